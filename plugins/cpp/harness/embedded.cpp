#include "embedded.h"

#include <dlfcn.h>

#include "fake_driver.h"

namespace edge_lsla::harness {

namespace {

std::string operator_of(std::string const& kernel) {
    if (kernel == "Attention") {
        return "LslaAttention";
    }
    return kernel == "Residual" ? "LslaResidualAttention" : "QLslaAttention";
}

std::string dtype_of(std::string const& element) {
    if (element == "Half") {
        return "fp16";
    }
    return element == "Float" ? "fp32" : "int8";
}

}  // namespace

std::vector<Embedded> const& embedded() {
    static std::vector<Embedded> const all{
#define EDGE_LSLA_VARIANT(kernel, dtype, window, head_width, channels, arch, is_ptx, symbol, threads, shared_bytes, \
                          row_blocks, max_per_program, blob, name)                                                  \
    {operator_of(#kernel), dtype_of(#dtype), window,          head_width, channels, arch, is_ptx, threads,          \
     shared_bytes,         row_blocks,       max_per_program, name},
#include "variants.inc"
#undef EDGE_LSLA_VARIANT
    };
    return all;
}

Embedded const* first_embedded(std::string const& op) {
    for (Embedded const& variant : embedded()) {
        if (variant.op == op) {
            return &variant;
        }
    }
    return nullptr;
}

Embedded const* image_for(std::string const& name, int arch) {
    Embedded const* ptx = nullptr;
    for (Embedded const& variant : embedded()) {
        if (variant.name != name || variant.arch > arch) {
            continue;
        }
        if (!variant.is_ptx && variant.arch == arch) {
            return &variant;
        }
        if (variant.is_ptx && (ptx == nullptr || variant.arch > ptx->arch)) {
            ptx = &variant;
        }
    }
    return ptx;
}

DriverAtHand driver_at_hand() {
    static DriverAtHand const found = [] {
        void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) {
            return DriverAtHand::None;
        }
        return ::dlsym(library, kFakeDriverSymbol) == nullptr ? DriverAtHand::Real : DriverAtHand::Fake;
    }();
    return found;
}

FakeDriver* fake_driver() {
    static FakeDriver* const found = []() -> FakeDriver* {
        void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        void* const controls = library == nullptr ? nullptr : ::dlsym(library, kFakeDriverSymbol);
        return controls == nullptr ? nullptr : reinterpret_cast<FakeDriver* (*)()>(controls)();
    }();
    return found;
}

}  // namespace edge_lsla::harness
