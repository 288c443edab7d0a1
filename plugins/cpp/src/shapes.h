// What the operators demand of their tensors' shapes.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>

#include "fields.h"
#include "operators.h"

namespace edge_lsla {

// The shapes of one operator's tensors, inputs first and y last; a dimension below 0 is unknown.
using TensorShapes = std::array<nvinfer1::Dims const*, Operator::kMaxInputs + 1>;

// Checks everything that can be checked of the known dimensions and returns the head width d, or Settings::kUnknown.
// `moment` says in messages which shapes these are: "at run time", "largest of the profile".
// Throws Refusal naming the tensor and what it should be.
int32_t check_shapes(Operator const& op, Settings const& settings, TensorShapes const& shapes, char const* moment);

// Throws Refusal when a dimension of a tensor is unknown.
void require_known(Operator const& op, TensorShapes const& shapes, char const* moment);

}  // namespace edge_lsla
