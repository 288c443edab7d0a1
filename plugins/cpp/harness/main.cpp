// Drives the plugin library without TensorRT.
//
//   edge_lsla_harness check LIBRARY            conformance checks; a line each, exit code 1 when one fails
//   edge_lsla_harness run LIBRARY CASE         computes a case on this machine's GPU (case_file.h says how to write
//   one)
//
// With the folder fake_driver/ of the build in LD_LIBRARY_PATH, `check` also follows launches.
#include <cstdio>
#include <exception>
#include <string>

#include "checks.h"
#include "embedded.h"
#include "run_case.h"

namespace {

using edge_lsla::harness::Check;
using edge_lsla::harness::Library;

struct Entry {
    char const* name;
    void (*run)(Check&, Library const&);
};

constexpr Entry kChecks[] = {
    {"creators and versions", edge_lsla::harness::check_creators},
    {"fields", edge_lsla::harness::check_fields},
    {"output types", edge_lsla::harness::check_output_types},
    {"output shapes, symbolic", edge_lsla::harness::check_output_shapes},
    {"format table", edge_lsla::harness::check_formats},
    {"configure", edge_lsla::harness::check_configure},
    {"profiles", edge_lsla::harness::check_profiles},
    {"serialise and recreate", edge_lsla::harness::check_serialization},
    {"clone", edge_lsla::harness::check_clones},
    {"workspace, tactics, aliasing", edge_lsla::harness::check_resources},
    {"shapes at run time", edge_lsla::harness::check_run_time_shapes},
    {"without a driver", edge_lsla::harness::check_without_driver},
    {"attach", edge_lsla::harness::check_attach},
    {"launch", edge_lsla::harness::check_launch},
    {"launch refusals", edge_lsla::harness::check_launch_refusals},
    {"threads", edge_lsla::harness::check_threads},
};

// Failures shown for one check; the rest are counted.
constexpr size_t kShown = 10;

bool report(Entry const& entry, Check const& check) {
    bool const ok = check.failures().empty();
    bool const skipped = ok && !check.skipped().empty();
    std::printf("%-7s %-30s %6d expectations%s%s\n", ok ? (skipped ? "skipped" : "ok") : "FAILED", entry.name,
                check.expectations(), check.skipped().empty() ? "" : ", ", check.skipped().c_str());
    for (size_t index = 0; index < check.failures().size() && index < kShown; ++index) {
        std::printf("        expected: %s\n", check.failures()[index].c_str());
    }
    if (check.failures().size() > kShown) {
        std::printf("        and %zu more\n", check.failures().size() - kShown);
    }
    // A check without a single expectation would prove nothing.
    return ok && (skipped || check.expectations() > 0);
}

int run_checks(std::string const& path) {
    Library const library(path);
    int failed = 0;
    int expectations = 0;
    for (Entry const& entry : kChecks) {
        Check check;
        try {
            entry.run(check, library);
        } catch (std::exception const& error) {
            check.expect(false, std::string("no exception, but: ") + error.what());
        }
        failed += report(entry, check) ? 0 : 1;
        expectations += check.expectations();
    }
    std::printf("%s: %zu checks, %d failed, %d expectations\n", failed == 0 ? "PASSED" : "FAILED",
                sizeof kChecks / sizeof kChecks[0], failed, expectations);
    return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        std::string const verb = count > 1 ? arguments[1] : "";
        if (verb == "check" && count == 3) {
            return run_checks(arguments[2]);
        }
        if (verb == "run" && count == 4) {
            edge_lsla::harness::run_case(arguments[2], arguments[3]);
            return 0;
        }
        std::fprintf(stderr, "usage: edge_lsla_harness check LIBRARY | run LIBRARY CASE\n");
        return 2;
    } catch (std::exception const& error) {
        std::fprintf(stderr, "edge-lsla harness: %s\n", error.what());
        return 1;
    }
}
