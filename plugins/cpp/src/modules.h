// Kernels loaded on the device: once for each CUDA context, for all plugins of the process.
#pragma once

#include <cstdint>

#include "driver.h"
#include "fields.h"
#include "operators.h"
#include "variants.h"

namespace edge_lsla {

// A kernel ready to launch in one context. It lives until the process ends and never changes.
struct LoadedKernel {
    ContextKey context;
    Variant const* variant;
    CUfunction function;
    int32_t multiprocessors;
};

// The kernel of complete settings in the calling thread's context, loaded if this is the first use there. Takes a lock;
// safe while a stream of the process is being captured. Throws Refusal.
LoadedKernel const& loaded_kernel(Operator const& op, Settings const& settings);

}  // namespace edge_lsla
