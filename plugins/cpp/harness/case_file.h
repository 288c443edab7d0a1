// A case for the `run` mode: one operator, its fields and its tensors, as text. One statement a line, # begins a
// comment:
//
//   operator LslaAttention
//   field num_heads int32 3
//   field epsilon float32 1e-05        (int32, int64, float32 or float64)
//   input x fp16 2,28,28,96 x.bin      (name, fp16 | fp32 | int8, dimensions or "scalar", file)
//   output y fp16 2,28,28,96 y.bin
//   graph yes                          (capture the enqueues in a CUDA graph and replay it; default no)
//   warmup 3                           (launches before the clock starts)
//   samples 50                         (times measured; the median is reported)
//   per_sample 20                      (enqueues between two events; their time is divided by it)
//   poison 255                         (byte that y and the space after it are filled with before the first launch)
//
// Inputs come in the operator's order. Files are raw little-endian values, row-major, relative to the case's folder.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

namespace edge_lsla::harness {

struct CaseTensor {
    std::string name;
    nvinfer1::PluginTensorDesc description;
    std::string path;

    size_t bytes() const;
};

struct CaseField {
    std::string name;
    std::string type;
    std::string value;
};

struct Case {
    std::string op;
    std::vector<CaseField> fields;
    std::vector<CaseTensor> inputs;
    CaseTensor output;
    bool graph = false;
    int warmup = 3;
    int samples = 50;
    int per_sample = 1;
    int poison = 255;
};

// Throws std::runtime_error, naming the line, for what is not such a case.
Case read_case(std::string const& path);

}  // namespace edge_lsla::harness
