// The operators that this library offers to TensorRT, described as data: one plugin class serves them all.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>

namespace edge_lsla {

inline constexpr char const* kPluginVersion = "1";
inline constexpr char const* kPluginNamespace = "";

// Limits of the operator; the kernels are generated for these head widths only.
inline constexpr int32_t kMinWindow = 2;
inline constexpr int32_t kMaxWindow = 16;
inline constexpr int32_t kMaxHeads = 1024;
inline constexpr std::array<int32_t, 3> kHeadWidths{16, 32, 64};

enum class Kernel { Attention, Residual, Quantised };
// Engines hold these numbers (field element): never renumber them.
enum class Element : int32_t { Half = 0, Float = 1, Int8 = 2 };

// The type that a tensor must have, given the type of x (tensor 0).
enum class TypeRule { kLikeX, kFloat };

// The shape that a tensor must have, with C = heads * d and w the window.
enum class ShapeRule {
    kMap,         // [B, H, W, C]
    kHeadVector,  // [heads, d]
    kHeads,       // [heads]
    kTable,       // [(2w - 1)^2, heads]
    kChannels,    // [C]
    kSquare,      // [C, C]
    kScalar,      // [] or [1]
};

struct Tensor {
    char const* name;
    TypeRule type;
    ShapeRule shape;
};

struct Operator {
    static constexpr int32_t kMaxInputs = 9;

    char const* name;  // also the ONNX op_type
    Kernel kernel;
    bool has_epsilon;
    std::array<Element, 2> elements;  // types of x that are accepted; a repeated one means there is no other
    int32_t input_count;
    std::array<Tensor, kMaxInputs> inputs;  // in the operator's order, x first; y is like x

    // Tensor `position` as TensorRT numbers them: the inputs, then y.
    Tensor const& tensor(int32_t position) const noexcept {
        return position < input_count ? inputs[position] : kOutput;
    }
    int32_t tensor_count() const noexcept { return input_count + 1; }

    static constexpr Tensor kOutput{"y", TypeRule::kLikeX, ShapeRule::kMap};
};

inline constexpr int32_t kOperatorCount = 3;
extern std::array<Operator, kOperatorCount> const kOperators;

// The element type of x as TensorRT names it. False when no kernel of any operator computes in that type.
bool element_of(nvinfer1::DataType type, Element& element) noexcept;
nvinfer1::DataType data_type_of(Element element) noexcept;
char const* name_of(Element element) noexcept;  // "fp16", "fp32", "int8", as in variant names
char const* name_of(Kernel kernel) noexcept;    // "attention", "residual", "quantised"
char const* name_of(nvinfer1::DataType type) noexcept;

// Whether the operator takes x in this type.
bool accepts(Operator const& op, nvinfer1::DataType x_type) noexcept;
// Whether tensor `position` may have `type` when x has `x_type`.
bool accepts(Operator const& op, int32_t position, nvinfer1::DataType type, nvinfer1::DataType x_type) noexcept;

}  // namespace edge_lsla
