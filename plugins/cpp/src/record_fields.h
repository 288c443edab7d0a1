// Test builds only (EDGE_LSLA_RECORD_FIELDS): what a parser passes to a creator, written down before anything else
// happens. TensorRT for RTX aborts the process right after it has created a plugin, so a test can only read a file.
#pragma once

#include <NvInferRuntime.h>

#include "operators.h"

namespace edge_lsla {

// Appends one line of JSON to the file that the environment variable EDGE_LSLA_RECORD_FIELDS names; does nothing
// without it. {"operator", "version", "namespace", "name", "phase", "fields": [{"name", "type", "length", "value"}]};
// `type` is PluginFieldType's number, `value` a list of numbers (null for NaN and infinities), a text (CHAR), or null
// where type or length is another.
void record_fields(Operator const& op, char const* name, nvinfer1::PluginFieldCollection const* fields,
                   nvinfer1::TensorRTPhase phase) noexcept;

}  // namespace edge_lsla
