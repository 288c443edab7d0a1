// The `run` mode: one case through the plugin's whole life on a GPU.
#pragma once

#include <string>

namespace edge_lsla::harness {

// Creates, configures, serialises and recreates the plugin, attaches it, computes the case, writes y, and prints one
// line of JSON: {"ok": true, "operator", "device", "median_ms", "min_ms", "samples", "per_sample", "graph"}. Throws
// std::runtime_error when anything fails, also when something was written beyond y.
void run_case(std::string const& library_path, std::string const& case_path);

}  // namespace edge_lsla::harness
