#include "operators.h"

#include <algorithm>

namespace edge_lsla {

using nvinfer1::DataType;

// clang-format off
std::array<Operator, kOperatorCount> const kOperators{{
    {"LslaAttention", Kernel::Attention, false, {Element::Half, Element::Float}, 6, {{
        {"x", TypeRule::kLikeX, ShapeRule::kMap},
        {"query", TypeRule::kLikeX, ShapeRule::kMap},
        {"scale_weight", TypeRule::kLikeX, ShapeRule::kHeadVector},
        {"scale_bias", TypeRule::kLikeX, ShapeRule::kHeads},
        {"inner_bias", TypeRule::kLikeX, ShapeRule::kTable},
        {"outer_bias", TypeRule::kLikeX, ShapeRule::kTable},
    }}},
    {"LslaResidualAttention", Kernel::Residual, true, {Element::Half, Element::Float}, 9, {{
        {"x", TypeRule::kLikeX, ShapeRule::kMap},
        {"norm_weight", TypeRule::kLikeX, ShapeRule::kChannels},
        {"norm_bias", TypeRule::kLikeX, ShapeRule::kChannels},
        {"query_weight", TypeRule::kLikeX, ShapeRule::kSquare},
        {"query_bias", TypeRule::kLikeX, ShapeRule::kChannels},
        {"scale_weight", TypeRule::kLikeX, ShapeRule::kHeadVector},
        {"scale_bias", TypeRule::kLikeX, ShapeRule::kHeads},
        {"inner_bias", TypeRule::kLikeX, ShapeRule::kTable},
        {"outer_bias", TypeRule::kLikeX, ShapeRule::kTable},
    }}},
    {"QLslaAttention", Kernel::Quantised, false, {Element::Int8, Element::Int8}, 9, {{
        {"x", TypeRule::kLikeX, ShapeRule::kMap},
        {"query", TypeRule::kLikeX, ShapeRule::kMap},
        {"scale_weight", TypeRule::kFloat, ShapeRule::kHeadVector},
        {"scale_bias", TypeRule::kFloat, ShapeRule::kHeads},
        {"inner_bias", TypeRule::kFloat, ShapeRule::kTable},
        {"outer_bias", TypeRule::kFloat, ShapeRule::kTable},
        {"x_scale", TypeRule::kFloat, ShapeRule::kScalar},
        {"query_scale", TypeRule::kFloat, ShapeRule::kScalar},
        {"y_scale", TypeRule::kFloat, ShapeRule::kScalar},
    }}},
}};
// clang-format on

bool element_of(DataType type, Element& element) noexcept {
    switch (type) {
        case DataType::kHALF:
            element = Element::Half;
            return true;
        case DataType::kFLOAT:
            element = Element::Float;
            return true;
        case DataType::kINT8:
            element = Element::Int8;
            return true;
        default:
            return false;
    }
}

DataType data_type_of(Element element) noexcept {
    switch (element) {
        case Element::Half:
            return DataType::kHALF;
        case Element::Float:
            return DataType::kFLOAT;
        case Element::Int8:
            break;
    }
    return DataType::kINT8;
}

char const* name_of(Element element) noexcept {
    switch (element) {
        case Element::Half:
            return "fp16";
        case Element::Float:
            return "fp32";
        case Element::Int8:
            break;
    }
    return "int8";
}

char const* name_of(Kernel kernel) noexcept {
    switch (kernel) {
        case Kernel::Attention:
            return "attention";
        case Kernel::Residual:
            return "residual";
        case Kernel::Quantised:
            break;
    }
    return "quantised";
}

char const* name_of(DataType type) noexcept {
    Element element{};
    return element_of(type, element) ? name_of(element) : "another type";
}

bool accepts(Operator const& op, DataType x_type) noexcept {
    Element element{};
    return element_of(x_type, element) &&
           std::find(op.elements.begin(), op.elements.end(), element) != op.elements.end();
}

bool accepts(Operator const& op, int32_t position, DataType type, DataType x_type) noexcept {
    return type == (op.tensor(position).type == TypeRule::kFloat ? DataType::kFLOAT : x_type);
}

}  // namespace edge_lsla
