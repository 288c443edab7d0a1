#include "variants.h"

#include <set>

#include "refusal.h"

// blobs.S defines these symbols; variants.inc names them by number.
#define EDGE_LSLA_VARIANT(kernel, dtype, window, head_width, channels, arch, is_ptx, symbol, threads, shared_bytes, \
                          row_blocks, max_per_program, blob, name)                                                  \
    extern "C" __attribute__((visibility("hidden"))) unsigned char const edge_lsla_blob_##blob[];
#include "variants.inc"
#undef EDGE_LSLA_VARIANT

namespace edge_lsla {

namespace {

constexpr Variant kVariants[] = {
#define EDGE_LSLA_VARIANT(kernel, dtype, window, head_width, channels, arch, is_ptx, symbol, threads, shared_bytes, \
                          row_blocks, max_per_program, blob, name)                                                  \
    {Kernel::kernel,                                                                                                \
     Element::dtype,                                                                                                \
     window,                                                                                                        \
     head_width,                                                                                                    \
     channels,                                                                                                      \
     arch,                                                                                                          \
     is_ptx,                                                                                                        \
     symbol,                                                                                                        \
     threads,                                                                                                       \
     shared_bytes,                                                                                                  \
     row_blocks,                                                                                                    \
     max_per_program,                                                                                               \
     edge_lsla_blob_##blob,                                                                                         \
     name},
#include "variants.inc"
#undef EDGE_LSLA_VARIANT
};

int32_t compiled_channels(Operator const& op, Settings const& settings) noexcept {
    return op.kernel == Kernel::Residual ? settings.num_heads * settings.head_width : 0;
}

bool matches(Variant const& variant, Operator const& op, Settings const& settings) noexcept {
    return variant.kernel == op.kernel && static_cast<int32_t>(variant.element) == settings.element &&
           variant.window == settings.window && variant.head_width == settings.head_width &&
           variant.channels == compiled_channels(op, settings);
}

std::string joined(std::set<std::string> const& names) {
    std::string text;
    for (std::string const& name : names) {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text.empty() ? "none" : text;
}

}  // namespace

std::string variant_name(Operator const& op, Settings const& settings) {
    std::string name = std::string(name_of(op.kernel)) + "-w" + std::to_string(settings.window) + "-d" +
                       std::to_string(settings.head_width);
    if (int32_t const channels = compiled_channels(op, settings); channels > 0) {
        name += "-c" + std::to_string(channels);
    }
    return name + "-" + name_of(static_cast<Element>(settings.element));
}

void require_variant(Operator const& op, Settings const& settings) {
    std::set<std::string> embedded;
    for (Variant const& variant : kVariants) {
        if (matches(variant, op, settings)) {
            return;
        }
        if (variant.kernel == op.kernel) {
            embedded.insert(variant.name);
        }
    }
    std::string const name = variant_name(op, settings);
    throw Refusal("no kernel " + name + " in this library", op.name,
                  "it holds " + joined(embedded) + "; run 'plugin build --variants " + name + "' and use that library");
}

Variant const& select_variant(Operator const& op, Settings const& settings, int32_t arch) {
    require_variant(op, settings);
    Variant const* fallback = nullptr;
    std::set<std::string> present;
    for (Variant const& variant : kVariants) {
        if (!matches(variant, op, settings)) {
            continue;
        }
        if (!variant.is_ptx && variant.arch == arch) {
            return variant;
        }
        if (variant.is_ptx && variant.arch <= arch && (fallback == nullptr || variant.arch > fallback->arch)) {
            fallback = &variant;
        }
        present.insert((variant.is_ptx ? "PTX " : "") + std::to_string(variant.arch));
    }
    if (fallback == nullptr) {
        throw Refusal("no kernel for compute capability " + std::to_string(arch), variant_name(op, settings),
                      "it is embedded for " + joined(present) + "; run 'plugin build --arch " + std::to_string(arch) +
                          "' and use that library");
    }
    return *fallback;
}

}  // namespace edge_lsla
