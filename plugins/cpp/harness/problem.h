// A complete, valid problem for one operator: the tensors' names, types and shapes, which checks then spoil one by one.
#pragma once

#include <NvInferRuntime.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "library.h"

namespace edge_lsla::harness {

// Written from the operators' contract, not from the plugin's tables: the two are compared by the checks.
struct Problem {
    Problem(std::string op, std::string dtype, int window, int head_width, int heads, int batch = 2, int down = 2,
            int across = 3);

    std::string op;
    std::string dtype;
    int window;
    int head_width;
    int heads;
    std::vector<std::string> names;                   // inputs, then y
    std::vector<nvinfer1::PluginTensorDesc> tensors;  // likewise

    int inputs() const noexcept { return static_cast<int>(tensors.size()) - 1; }
    nvinfer1::PluginTensorDesc& tensor(std::string const& name);
    // x, query and y where the operator has them: the tensors that share x's shape.
    void set_map(std::initializer_list<int64_t> extents);

    // The fields of a build-phase creator.
    void write_fields(Fields& fields) const;

    // Calls of the plugin with these tensors, profile and network alike.
    std::vector<nvinfer1::DynamicPluginTensorDesc> dynamic() const;
    int32_t configure(Plugin const& plugin) const;
    int32_t shape_change(Plugin const& plugin) const;

  private:
    void add(char const* name, nvinfer1::DataType type, std::initializer_list<int64_t> extents);
};

nvinfer1::Dims dims(std::initializer_list<int64_t> extents);
nvinfer1::DataType data_type(std::string const& dtype);  // throws std::runtime_error for an unknown name

// A plugin of the problem's operator, in the build phase.
Plugin make_plugin(Library const& library, Problem const& problem);

// A problem that a kernel embedded in the library computes. Throws std::runtime_error when the operator has none.
Problem embedded_problem(std::string const& op);

}  // namespace edge_lsla::harness
