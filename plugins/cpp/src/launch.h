// The arithmetic of a launch: how many windows a feature map has, and how many programs compute them.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>

#include "fields.h"
#include "operators.h"
#include "variants.h"

namespace edge_lsla {

// The kernels' integer parameters, and the grid. All fit into int32.
struct Launch {
    int32_t num_windows;     // B * H/w * W/w; 0: nothing to compute
    int32_t windows_down;    // H/w
    int32_t windows_across;  // W/w
    int32_t heads;
    int32_t per_program;  // windows (residual: heads) that one program computes
    uint32_t grid;
};

// Works on x's dimensions [B, H, W, C], all known. Throws Refusal where a number does not fit into int32 or x does not
// fit the settings; allocates nothing otherwise, since it runs in every enqueue.
Launch plan_launch(Operator const& op, Settings const& settings, Variant const& variant, nvinfer1::Dims const& x,
                   int32_t multiprocessors);

}  // namespace edge_lsla
