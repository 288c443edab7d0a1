// Build-time shapes: what configurePlugin lets through and what it says about the rest.
#include <functional>
#include <string>
#include <vector>

#include "checks.h"
#include "embedded.h"
#include "problem.h"

namespace edge_lsla::harness {

namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DynamicPluginTensorDesc;

bool configures(Plugin const& plugin, std::vector<DynamicPluginTensorDesc> const& tensors) {
    return plugin.build().configurePlugin(tensors.data(), static_cast<int32_t>(tensors.size()) - 1, &tensors.back(),
                                          1) == 0;
}

void refuses(Check& check, Library const& library, std::string const& what, std::string const& part,
             Problem const& problem) {
    Plugin const plugin = make_plugin(library, problem);
    expect_refused(check, problem.op + ", " + what, part, [&] { return problem.configure(plugin) != 0; });
}

void accepts(Check& check, Library const& library, std::string const& what, Problem const& problem) {
    Plugin const plugin = make_plugin(library, problem);
    expect_accepted(check, problem.op + ", " + what, [&] { return problem.configure(plugin) == 0; });
}

void check_each_tensor(Check& check, Library const& library, Problem const& good) {
    for (size_t index = 0; index < good.tensors.size(); ++index) {
        Problem bad = good;
        Dims& shape = bad.tensors[index].dims;
        std::string const& name = good.names[index];
        if (shape.nbDims == 0) {
            shape = dims({1});
            accepts(check, library, name + " as a vector of one", bad);
            shape = dims({2});
            refuses(check, library, name + " as a vector of two", name + " [2]", bad);
            shape = dims({1, 1});
            refuses(check, library, name + " as a matrix", name + " [1, 1]", bad);
            continue;
        }
        shape.d[0] += name == "x" ? 0 : 1;
        if (name != "x") {
            refuses(check, library, name + " of another size", name + " [", bad);
        }
        bad = good;
        --bad.tensors[index].dims.nbDims;
        refuses(check, library, name + " of a smaller rank", name + " [", bad);
        bad = good;
        bad.tensors[index].dims.nbDims = -1;  // TensorRT's mark for an invalid shape
        refuses(check, library, name + " without a shape", name + " [", bad);
        bad = good;
        bad.tensors[index].type = DataType::kBF16;
        refuses(check, library, name + " of another type", name + " is another type", bad);
        bad = good;
        bad.tensors[index].format = nvinfer1::TensorFormat::kHWC8;
        refuses(check, library, name + " in another format", "format other than linear", bad);
    }
}

void check_map(Check& check, Library const& library, Problem const& good) {
    int64_t const window = good.window;
    int64_t const channels = int64_t{good.heads} * good.head_width;
    Problem changed = good;
    changed.set_map({5, window, window, channels});
    accepts(check, library, "one window an image", changed);
    changed.set_map({0, window, window, channels});
    accepts(check, library, "an empty batch", changed);
    changed.set_map({-1, -1, -1, channels});
    accepts(check, library, "unknown batch, height and width", changed);
    changed.set_map({2, window + 1, window, channels});
    refuses(check, library, "a height that the window does not divide", "is not a multiple of the window", changed);
    changed.set_map({2, window, 2 * window - 1, channels});
    refuses(check, library, "a width that the window does not divide", "is not a multiple of the window", changed);
    changed.set_map({2, window, window, channels + 1});
    refuses(check, library, "channels that the heads do not divide", "heads do not divide", changed);
    // 32 bits count windows and reach over the rows of one window; x as a whole may be larger.
    changed.set_map({1 << 26, window, window, channels});
    accepts(check, library, "2^31 elements", changed);
    for (int const exponent : {31, 40, 62}) {
        changed.set_map({int64_t{1} << exponent, window, window, channels});
        refuses(check, library, "2^" + std::to_string(exponent) + " images", "too many windows for one launch",
                changed);
    }
    changed.set_map({int64_t{1} << 20, (int64_t{1} << 20) * window, window, channels});
    refuses(check, library, "2^40 windows", "too many windows for one launch", changed);
    // The widest map whose window * W * C is below 2^31, and the next one.
    int64_t const widest = ((int64_t{1} << 31) - 1) / (window * window * channels) * window;
    changed.set_map({1, window, widest, channels});
    accepts(check, library, "rows of one window below 2^31 elements", changed);
    for (int64_t const width : {widest + window, (int64_t{1} << 58) * window}) {
        changed.set_map({1, window, width, channels});
        refuses(check, library, "width " + std::to_string(width), "2^31 elements or more in the rows of one window",
                changed);
    }
    refuses(check, library, "a head width of 48", "heads 48 wide, not 16, 32 or 64",
            Problem(good.op, good.dtype, good.window, 48, good.heads));
    // C unknown: the tables tell the head width.
    changed = good;
    changed.set_map({-1, -1, -1, -1});
    accepts(check, library, "unknown channels", changed);
}

void check_counts(Check& check, Library const& library, Problem const& good) {
    Plugin const plugin = make_plugin(library, good);
    std::vector<DynamicPluginTensorDesc> const all = good.dynamic();
    for (int const count : {0, good.inputs() - 1, good.inputs() + 1}) {
        expect_refused(check, good.op + " with " + std::to_string(count) + " inputs",
                       "has " + std::to_string(count) + " inputs",
                       [&] { return plugin.build().configurePlugin(all.data(), count, &all.back(), 1) != 0; });
    }
    expect_refused(check, good.op + " without output", "0 outputs",
                   [&] { return plugin.build().configurePlugin(all.data(), good.inputs(), &all.back(), 0) != 0; });
}

std::string variant_name(Problem const& problem) {
    std::string const kernel = problem.op == "LslaAttention"    ? "attention"
                               : problem.op == "QLslaAttention" ? "quantised"
                                                                : "residual";
    std::string name = kernel + "-w" + std::to_string(problem.window) + "-d" + std::to_string(problem.head_width) + "-";
    if (problem.op == "LslaResidualAttention") {
        name += "c" + std::to_string(problem.heads * problem.head_width) + "-";
    }
    return name + problem.dtype;
}

bool is_embedded(std::string const& name) {
    for (Embedded const& variant : embedded()) {
        if (variant.name == name) {
            return true;
        }
    }
    return false;
}

// Problems that differ from an embedded one in a single property; those that are not embedded must be refused by name,
// so each property takes part in the choice.
void check_missing_variants(Check& check, Library const& library, Problem const& good) {
    std::vector<Problem> candidates;
    for (int const window : {3, 5, 9, 10, 11, 13, 15}) {
        candidates.emplace_back(good.op, good.dtype, window, good.head_width, good.heads);
    }
    for (int const head_width : {16, 32, 64}) {
        // The same C where the heads can make it up, since the residual kernels compile C in.
        int const channels = good.heads * good.head_width;
        candidates.emplace_back(good.op, good.dtype, good.window, head_width,
                                channels % head_width == 0 ? channels / head_width : good.heads);
    }
    for (int const heads : {1, 2, 5, 7, 31}) {
        candidates.emplace_back(good.op, good.dtype, good.window, good.head_width, heads);
    }
    if (good.dtype != "int8") {
        candidates.emplace_back(good.op, good.dtype == "fp16" ? "fp32" : "fp16", good.window, good.head_width,
                                good.heads);
    }
    int refused = 0;
    for (Problem const& candidate : candidates) {
        std::string const name = variant_name(candidate);
        if (is_embedded(name)) {
            accepts(check, library, name, candidate);
            continue;
        }
        ++refused;
        refuses(check, library, name + ", absent", "no kernel " + name + " in this library", candidate);
        refuses(check, library, name + ", its remedy", "plugin build --variants " + name, candidate);
        refuses(check, library, name + ", what there is", first_embedded(good.op)->name, candidate);
    }
    check.expect(refused > 0, good.op + ": some kernel is not embedded");
}

}  // namespace

void check_configure(Check& check, Library const& library) {
    for (char const* const op : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        if (first_embedded(op) == nullptr) {
            check.skip(std::string("no kernel of ") + op + " is embedded");
            continue;
        }
        Problem const good = embedded_problem(op);
        accepts(check, library, "good shapes", good);
        check_each_tensor(check, library, good);
        check_map(check, library, good);
        check_counts(check, library, good);
        check_missing_variants(check, library, good);
    }
}

void check_profiles(Check& check, Library const& library) {
    for (char const* const op : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        if (first_embedded(op) == nullptr) {
            check.skip(std::string("no kernel of ") + op + " is embedded");
            continue;
        }
        Problem const good = embedded_problem(op);
        int64_t const window = good.window;
        int64_t const channels = int64_t{good.heads} * good.head_width;
        std::string const name = op;
        // A profile for x, query and y: unknown in the network, with a smallest, an optimum and a largest.
        auto const profile = [&](Dims const& least, Dims const& best, Dims const& most) {
            std::vector<DynamicPluginTensorDesc> tensors = good.dynamic();
            for (size_t index = 0; index < tensors.size(); ++index) {
                if (good.names[index] == "x" || good.names[index] == "query" || good.names[index] == "y") {
                    tensors[index].desc.dims = dims({-1, -1, -1, channels});
                    tensors[index].min = least;
                    tensors[index].opt = best;
                    tensors[index].max = most;
                }
            }
            return tensors;
        };
        Dims const small = dims({1, window, window, channels});
        Dims const medium = dims({4, 2 * window, window, channels});
        Dims const large = dims({32, 4 * window, 4 * window, channels});
        Dims const odd = dims({4, 2 * window + 1, window, channels});
        Plugin const plugin = make_plugin(library, good);
        expect_accepted(check, name + ", a profile", [&] { return configures(plugin, profile(small, medium, large)); });
        expect_refused(check, name + ", an odd smallest", "smallest of the profile",
                       [&] { return !configures(plugin, profile(odd, medium, large)); });
        expect_refused(check, name + ", an odd optimum", "optimum of the profile",
                       [&] { return !configures(plugin, profile(small, odd, large)); });
        expect_refused(check, name + ", an odd largest", "largest of the profile",
                       [&] { return !configures(plugin, profile(small, medium, odd)); });
        std::vector<DynamicPluginTensorDesc> growing = profile(small, medium, large);
        for (DynamicPluginTensorDesc& tensor : growing) {
            for (int32_t axis = 0; axis < tensor.desc.dims.nbDims; ++axis) {
                tensor.desc.dims.d[axis] = -1;
            }
        }
        expect_accepted(check, name + ", nothing known but the profile", [&] { return configures(plugin, growing); });
        // Each set of shapes is sound by itself, but no kernel serves both head widths.
        Problem const wider(good.op, good.dtype, good.window, good.head_width == 16 ? 32 : 16, good.heads);
        for (size_t index = 0; index < growing.size(); ++index) {
            growing[index].max = wider.tensors[index].dims;
        }
        expect_refused(check, name + ", channels that change", "channels changes within the profile",
                       [&] { return !configures(plugin, growing); });
    }
}

}  // namespace edge_lsla::harness
