#include "problem.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "embedded.h"

namespace edge_lsla::harness {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

Dims dims(std::initializer_list<int64_t> extents) {
    Dims shape{};
    shape.nbDims = static_cast<int32_t>(extents.size());
    std::copy(extents.begin(), extents.end(), shape.d);
    return shape;
}

DataType data_type(std::string const& dtype) {
    if (dtype == "fp16") {
        return DataType::kHALF;
    }
    if (dtype == "fp32") {
        return DataType::kFLOAT;
    }
    if (dtype == "int8") {
        return DataType::kINT8;
    }
    throw std::runtime_error("unknown type " + dtype);
}

Problem::Problem(std::string op_, std::string dtype_, int window_, int head_width_, int heads_, int batch, int down,
                 int across)
    : op(std::move(op_)), dtype(std::move(dtype_)), window(window_), head_width(head_width_), heads(heads_) {
    DataType const type = data_type(dtype);
    DataType const table_type = op == "QLslaAttention" ? DataType::kFLOAT : type;
    int64_t const height = static_cast<int64_t>(down) * window;
    int64_t const width = static_cast<int64_t>(across) * window;
    int64_t const channels = static_cast<int64_t>(heads) * head_width;
    int64_t const places = (2 * window - 1) * (2 * window - 1);
    add("x", type, {batch, height, width, channels});
    if (op == "LslaResidualAttention") {
        add("norm_weight", type, {channels});
        add("norm_bias", type, {channels});
        add("query_weight", type, {channels, channels});
        add("query_bias", type, {channels});
    } else {
        add("query", type, {batch, height, width, channels});
    }
    add("scale_weight", table_type, {heads, head_width});
    add("scale_bias", table_type, {heads});
    add("inner_bias", table_type, {places, heads});
    add("outer_bias", table_type, {places, heads});
    if (op == "QLslaAttention") {
        add("x_scale", DataType::kFLOAT, {});
        add("query_scale", DataType::kFLOAT, {});
        add("y_scale", DataType::kFLOAT, {});
    }
    add("y", type, {batch, height, width, channels});
}

void Problem::add(char const* name, DataType type, std::initializer_list<int64_t> extents) {
    names.emplace_back(name);
    tensors.push_back({dims(extents), type, nvinfer1::TensorFormat::kLINEAR, 1.0F});
}

PluginTensorDesc& Problem::tensor(std::string const& name) {
    auto const found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
        throw std::runtime_error(op + " has no tensor " + name);
    }
    return tensors[found - names.begin()];
}

void Problem::set_map(std::initializer_list<int64_t> extents) {
    for (size_t index = 0; index < names.size(); ++index) {
        if (names[index] == "x" || names[index] == "query" || names[index] == "y") {
            tensors[index].dims = dims(extents);
        }
    }
}

void Problem::write_fields(Fields& fields) const {
    fields.integer("num_heads", heads).integer("window", window);
    if (op == "LslaResidualAttention") {
        fields.real("epsilon", 1e-5F);
    }
}

std::vector<DynamicPluginTensorDesc> Problem::dynamic() const {
    std::vector<DynamicPluginTensorDesc> all;
    for (PluginTensorDesc const& tensor : tensors) {
        all.push_back({tensor, tensor.dims, tensor.dims, tensor.dims});
    }
    return all;
}

int32_t Problem::configure(Plugin const& plugin) const {
    std::vector<DynamicPluginTensorDesc> const all = dynamic();
    return plugin.build().configurePlugin(all.data(), inputs(), &all.back(), 1);
}

int32_t Problem::shape_change(Plugin const& plugin) const {
    return plugin.runtime().onShapeChange(tensors.data(), inputs(), &tensors.back(), 1);
}

Plugin make_plugin(Library const& library, Problem const& problem) {
    Fields fields;
    problem.write_fields(fields);
    return Plugin(
        library.creator(problem.op).createPlugin("harness", fields.collection(), nvinfer1::TensorRTPhase::kBUILD));
}

Problem embedded_problem(std::string const& op) {
    Embedded const* const variant = first_embedded(op);
    if (variant == nullptr) {
        throw std::runtime_error("the library holds no kernel of " + op);
    }
    int const heads = variant->channels > 0 ? variant->channels / variant->head_width : 3;
    return Problem(op, variant->dtype, variant->window, variant->head_width, heads);
}

}  // namespace edge_lsla::harness
