// The plugin's fields: what an ONNX node says about it, and what an engine keeps of it.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>

#include "operators.h"

namespace edge_lsla {

// Everything that distinguishes one plugin of an operator from another.
struct Settings {
    static constexpr int32_t kUnknown = -1;

    int32_t num_heads = 0;
    int32_t window = 0;
    float epsilon = 0.0F;  // the residual operator's LayerNorm; 0 for the others
    // Known once TensorRT has told types and shapes. An engine keeps both, so that the kernel can be loaded when the
    // plugin is attached to a context, long before the first shape is known (and outside CUDA graph capture).
    int32_t element = kUnknown;     // an Element
    int32_t head_width = kUnknown;  // d

    bool complete() const noexcept { return element != kUnknown && head_width != kUnknown; }
};

// Reads the fields that TensorRT passes to a creator. Every field is required, save plugin_version and
// plugin_namespace (the ONNX parser reads those itself) and, in the build phase, element and head_width.
// Throws Refusal for what is missing, unknown, given twice, of a wrong type or length, or out of range.
Settings read_fields(Operator const& op, nvinfer1::PluginFieldCollection const* fields, nvinfer1::TensorRTPhase phase);

// What a creator announces: names and types of the attributes that the ONNX parser passes on.
class FieldNames {
  public:
    explicit FieldNames(Operator const& op) noexcept;
    FieldNames(FieldNames const&) = delete;
    FieldNames& operator=(FieldNames const&) = delete;
    nvinfer1::PluginFieldCollection const* collection() const noexcept { return &collection_; }

  private:
    std::array<nvinfer1::PluginField, 5> fields_;
    nvinfer1::PluginFieldCollection collection_;
};

// What an engine keeps. It points into the settings given, which must outlive it.
class SerializedFields {
  public:
    SerializedFields(Operator const& op, Settings const& settings) noexcept;
    SerializedFields(SerializedFields const&) = delete;
    SerializedFields& operator=(SerializedFields const&) = delete;
    nvinfer1::PluginFieldCollection const* collection() const noexcept { return &collection_; }

  private:
    std::array<nvinfer1::PluginField, 5> fields_;
    nvinfer1::PluginFieldCollection collection_;
};

}  // namespace edge_lsla
