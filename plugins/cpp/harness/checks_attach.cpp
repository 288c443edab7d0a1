// Attaching to an execution context, with no driver and with a fake one; shapes at run time.
#include <memory>
#include <string>

#include "checks.h"
#include "embedded.h"
#include "fake_driver.h"
#include "problem.h"

namespace edge_lsla::harness {

namespace {

char const* const kOperators[] = {"LslaAttention", "LslaResidualAttention", "QLslaAttention"};

bool attaches(Plugin const& plugin) {
    return std::unique_ptr<nvinfer1::IPluginV3>(plugin.runtime().attachToContext(nullptr)) != nullptr;
}

}  // namespace

// All of these are refused before a driver is needed.
void check_run_time_shapes(Check& check, Library const& library) {
    for (char const* const op : kOperators) {
        if (first_embedded(op) == nullptr) {
            check.skip(std::string("no kernel of ") + op + " is embedded");
            continue;
        }
        Problem const good = embedded_problem(op);
        std::string const name = op;
        Plugin const plugin = make_plugin(library, good);
        check.expect(good.configure(plugin) == 0, name + " is configured");
        auto const refuses = [&](std::string const& what, std::string const& part, Problem const& problem) {
            expect_refused(check, name + " at run time, " + what, part,
                           [&] { return problem.shape_change(plugin) != 0; });
        };
        int64_t const window = good.window;
        int64_t const channels = int64_t{good.heads} * good.head_width;
        Problem bad = good;
        bad.set_map({-1, window, window, channels});
        refuses("an unknown batch", "has an unknown dimension", bad);
        bad.set_map({2, window + 1, window, channels});
        refuses("a height that the window does not divide", "is not a multiple of the window", bad);
        bad.set_map({int64_t{1} << 40, window, window, channels});
        refuses("2^40 images", "too many windows for one launch", bad);
        bad = good;
        bad.tensor("x").type = nvinfer1::DataType::kINT32;
        refuses("another type", "x is another type", bad);
        // Half the head width, twice the heads' number of channels: legal shapes, but not the engine's.
        int const other = good.head_width == 16 ? 32 : 16;
        refuses("another head width", "than the engine was built for",
                Problem(good.op, good.dtype, good.window, other, good.heads));
        expect_refused(check, name + " at run time, an input too few", "inputs", [&] {
            return plugin.runtime().onShapeChange(good.tensors.data(), good.inputs() - 1, &good.tensors.back(), 1) != 0;
        });
    }
}

void check_without_driver(Check& check, Library const& library) {
    if (driver_at_hand() != DriverAtHand::None) {
        check.skip("a driver is at hand");
        return;
    }
    for (char const* const op : kOperators) {
        if (first_embedded(op) == nullptr) {
            check.skip(std::string("no kernel of ") + op + " is embedded");
            continue;
        }
        Problem const problem = embedded_problem(op);
        std::string const name = op;
        Plugin const plugin = make_plugin(library, problem);
        expect_refused(check, name + ", attaching before configuring", "libcuda.so.1",
                       [&] { return !attaches(plugin); });
        check.expect(problem.configure(plugin) == 0, name + " is configured");
        // Twice: a failed attempt leaves nothing behind that would make the second look like a success.
        for (int attempt = 0; attempt < 2; ++attempt) {
            expect_refused(check, name + ", attaching", "libcuda.so.1", [&] { return !attaches(plugin); });
            expect_refused(check, name + ", a shape", "libcuda.so.1",
                           [&] { return problem.shape_change(plugin) != 0; });
        }
        void const* inputs[9] = {};
        void* outputs[1] = {};
        expect_refused(check, name + ", enqueue", "libcuda.so.1", [&] {
            return plugin.runtime().enqueue(problem.tensors.data(), &problem.tensors.back(), inputs, outputs, nullptr,
                                            nullptr) != 0;
        });
    }
}

void check_attach(Check& check, Library const& library) {
    FakeDriver* const driver = fake_driver();
    if (driver == nullptr) {
        check.skip("the fake driver is not in LD_LIBRARY_PATH");
        return;
    }
    for (char const* const op : kOperators) {
        if (first_embedded(op) == nullptr) {
            check.skip(std::string("no kernel of ") + op + " is embedded");
            continue;
        }
        Problem const problem = embedded_problem(op);
        std::string const name = op;
        driver->arch = first_embedded(op)->arch;
        driver->context_id += 1;  // a context that nothing was loaded in
        Plugin const plugin = make_plugin(library, problem);
        int loads = driver->loads;
        expect_accepted(check, name + ", attaching before configuring", [&] { return attaches(plugin); });
        check.expect(driver->loads == loads, name + ": nothing is loaded before the kernel is known");
        check.expect(problem.configure(plugin) == 0, name + " is configured");

        driver->context = 0;
        expect_refused(check, name + ", no context", "no CUDA context is current", [&] { return !attaches(plugin); });
        driver->context = 0x1000;
        driver->load_result = CUDA_ERROR_INVALID_IMAGE;
        expect_refused(check, name + ", a kernel that the driver refuses", "second line",
                       [&] { return !attaches(plugin); });
        driver->load_result = CUDA_SUCCESS;
        driver->arch = 75;
        expect_refused(check, name + ", an architecture without kernel", "compute capability 75",
                       [&] { return !attaches(plugin); });
        driver->arch = first_embedded(op)->arch;

        expect_accepted(check, name + ", attaching", [&] { return attaches(plugin); });
        check.expect(driver->loads == loads + 1, name + ": the kernel is loaded when attached");
        expect_accepted(check, name + ", attaching again", [&] { return attaches(plugin); });
        expect_accepted(check, name + ", a shape", [&] { return problem.shape_change(plugin) == 0; });
        check.expect(driver->loads == loads + 1, name + ": once for all plugins of a context");
        driver->context_id += 1;  // the context was destroyed and its handle given out again
        expect_accepted(check, name + ", a new context with an old handle", [&] { return attaches(plugin); });
        check.expect(driver->loads == loads + 2, name + ": loaded anew in a new context");
        check.expect(driver->loads_outside_relaxed_capture == 0, name + ": loading spares a capture in progress");
        check.expect(driver->unloads == 0, name + ": nothing is unloaded");
    }
}

}  // namespace edge_lsla::harness
