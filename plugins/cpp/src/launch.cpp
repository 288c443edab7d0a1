#include "launch.h"

#include <algorithm>
#include <limits>
#include <string>

#include "refusal.h"

namespace edge_lsla {

namespace {

constexpr int64_t kMostInt32 = std::numeric_limits<int32_t>::max();

[[noreturn]] void refuse_size(Operator const& op) {
    throw Refusal("the feature map has too many windows for one launch", op.name, "use a smaller batch");
}

// Product of two numbers from 0 to kMostInt32.
int64_t product(Operator const& op, int64_t left, int64_t right) {
    int64_t const value = left * right;
    if (value > kMostInt32) {
        refuse_size(op);
    }
    return value;
}

int64_t ceil_divide(int64_t value, int64_t divisor) noexcept { return (value + divisor - 1) / divisor; }

}  // namespace

Launch plan_launch(Operator const& op, Settings const& settings, Variant const& variant, nvinfer1::Dims const& x,
                   int32_t multiprocessors) {
    int64_t const window = settings.window;
    int64_t const heads = settings.num_heads;
    bool const fits = x.nbDims == 4 && x.d[0] >= 0 && x.d[1] >= 0 && x.d[2] >= 0 && x.d[1] % window == 0 &&
                      x.d[2] % window == 0 && x.d[3] == heads * settings.head_width;
    if (!fits) {
        throw Refusal("x has another shape than the plugin was prepared for", op.name,
                      "call onShapeChange before enqueue");
    }
    if (std::max({x.d[0], x.d[1], x.d[2]}) > kMostInt32) {
        refuse_size(op);
    }
    int64_t const down = x.d[1] / window;
    int64_t const across = x.d[2] / window;
    int64_t const windows = product(op, x.d[0], product(op, down, across));
    // Enough programs to fill the device eight times over come first; only then does a program take more than one
    // window (residual: head), which saves loading the tables again.
    int64_t const units = product(op, product(op, variant.row_blocks, heads), windows);
    int64_t const per_program = std::clamp<int64_t>(units / (int64_t{8} * std::max(multiprocessors, 1)), 1,
                                                    std::max(variant.max_per_program, 1));
    int64_t const programs = op.kernel == Kernel::Residual ? windows * ceil_divide(heads, per_program)
                                                           : heads * ceil_divide(windows, per_program);
    int64_t const grid = variant.row_blocks * programs;  // at most `units`, so it fits
    return {static_cast<int32_t>(windows), static_cast<int32_t>(down),        static_cast<int32_t>(across),
            static_cast<int32_t>(heads),   static_cast<int32_t>(per_program), static_cast<uint32_t>(grid)};
}

}  // namespace edge_lsla
