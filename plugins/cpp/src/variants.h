// The kernels embedded in this library, and the choice among them.
#pragma once

#include <cstdint>
#include <string>

#include "fields.h"
#include "operators.h"

namespace edge_lsla {

// One compiled kernel for one architecture.
struct Variant {
    Kernel kernel;
    Element element;
    int32_t window;
    int32_t head_width;
    int32_t channels;  // C where it is compiled in (residual), else 0
    int32_t arch;      // compute capability, 87 for 8.7
    bool is_ptx;
    char const* symbol;
    int32_t threads;
    int32_t shared_bytes;
    int32_t row_blocks;
    int32_t max_per_program;
    unsigned char const* image;  // a cubin, or PTX text that ends with NUL
    char const* name;            // "attention-w14-d32-fp16"
};

// The settings' variant by name, whether it is embedded or not. The settings must be complete.
std::string variant_name(Operator const& op, Settings const& settings);

// Throws Refusal, naming what is embedded, when no architecture has a kernel for these settings.
void require_variant(Operator const& op, Settings const& settings);

// The kernel for a device of this compute capability: the cubin of exactly that architecture, else the newest PTX that
// its driver can compile. Throws Refusal when there is neither.
Variant const& select_variant(Operator const& op, Settings const& settings, int32_t arch);

}  // namespace edge_lsla
