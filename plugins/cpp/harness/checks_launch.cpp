// The launch itself, as the fake driver saw it: kernel, geometry and parameters against the launch contract.
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "checks.h"
#include "embedded.h"
#include "fake_driver.h"
#include "problem.h"

namespace edge_lsla::harness {

namespace {

// Addresses that 16 divides; the fake driver never follows them.
struct Addresses {
    explicit Addresses(Problem const& problem) {
        for (int index = 0; index < problem.inputs(); ++index) {
            inputs.push_back(reinterpret_cast<void const*>(uintptr_t{0x100000} + 256U * index));
        }
    }
    std::vector<void const*> inputs;
    void* output = reinterpret_cast<void*>(uintptr_t{0x200000});
};

bool enqueues(Plugin const& plugin, Problem const& problem, Addresses const& at, cudaStream_t stream = nullptr) {
    return plugin.runtime().enqueue(problem.tensors.data(), &problem.tensors.back(), at.inputs.data(), &at.output,
                                    nullptr, stream) == 0;
}

template <typename Value>
Value parameter(FakeLaunch const& launch, size_t index) {
    Value value{};
    std::memcpy(&value, launch.parameters.at(index).data(), sizeof value);
    return value;
}

// Says how long each kernel parameter is, so that the fake driver can copy them.
void expect_parameters(FakeDriver& driver, Problem const& problem) {
    driver.parameter_sizes.assign(problem.inputs() + 1, sizeof(void*));
    if (problem.op == "LslaResidualAttention") {
        driver.parameter_sizes.push_back(sizeof(float));
    }
    driver.parameter_sizes.insert(driver.parameter_sizes.end(), 5, sizeof(int32_t));
    driver.parameter_sizes.insert(driver.parameter_sizes.end(), 2, sizeof(void*));
}

struct Expected {
    int64_t windows, down, across, per_program, grid;
};

// The contract's formulas, written a second time.
Expected contract(Problem const& problem, Embedded const& variant, int multiprocessors) {
    nvinfer1::Dims const& x = problem.tensors[0].dims;
    Expected expected{};
    expected.down = x.d[1] / problem.window;
    expected.across = x.d[2] / problem.window;
    expected.windows = x.d[0] * expected.down * expected.across;
    int64_t const units = variant.row_blocks * problem.heads * expected.windows;
    expected.per_program = units / (8 * multiprocessors);
    if (expected.per_program > variant.max_per_program) {
        expected.per_program = variant.max_per_program;
    }
    if (expected.per_program < 1) {
        expected.per_program = 1;
    }
    int64_t const per = expected.per_program;
    expected.grid = problem.op == "LslaResidualAttention"
                        ? variant.row_blocks * expected.windows * ((problem.heads + per - 1) / per)
                        : variant.row_blocks * problem.heads * ((expected.windows + per - 1) / per);
    return expected;
}

void check_one_launch(Check& check, Plugin const& plugin, Problem const& problem, Embedded const& variant,
                      FakeDriver& driver) {
    Addresses const at(problem);
    auto* const stream = reinterpret_cast<cudaStream_t>(uintptr_t{0x5000});
    std::string const what = variant.name + " on " + std::to_string(driver.multiprocessors) +
                             " multiprocessors, batch " + std::to_string(problem.tensors[0].dims.d[0]);
    expect_parameters(driver, problem);
    int const launches = driver.launches;
    int const loads = driver.loads;
    expect_accepted(check, what, [&] { return enqueues(plugin, problem, at, stream); });
    check.expect(driver.launches == launches + 1 && driver.loads == loads, what + ": one launch, nothing loaded");
    if (driver.launches != launches + 1) {
        return;
    }
    FakeLaunch const& launch = driver.last_launch;
    Expected const expected = contract(problem, variant, driver.multiprocessors);
    check.expect(launch.grid[0] == expected.grid && launch.grid[1] == 1 && launch.grid[2] == 1, what + ": grid");
    check.expect(
        launch.block[0] == static_cast<unsigned>(variant.threads) && launch.block[1] == 1 && launch.block[2] == 1,
        what + ": threads");
    check.expect(launch.shared_bytes == static_cast<unsigned>(variant.shared_bytes), what + ": shared memory");
    check.expect(launch.stream == stream, what + ": stream");
    if (variant.shared_bytes > 48 * 1024) {
        check.expect(driver.shared_bytes_asked[launch.symbol] == variant.shared_bytes,
                     what + ": asked for shared memory");
    }
    size_t next = 0;
    for (void const* const input : at.inputs) {
        check.expect(parameter<void const*>(launch, next) == input, what + ": input " + std::to_string(next));
        ++next;
    }
    check.expect(parameter<void*>(launch, next++) == at.output, what + ": y");
    if (problem.op == "LslaResidualAttention") {
        check.expect(parameter<float>(launch, next++) == 1e-5F, what + ": epsilon");
    }
    check.expect(parameter<int32_t>(launch, next++) == expected.windows, what + ": num_windows");
    check.expect(parameter<int32_t>(launch, next++) == expected.down, what + ": windows_down");
    check.expect(parameter<int32_t>(launch, next++) == expected.across, what + ": windows_across");
    check.expect(parameter<int32_t>(launch, next++) == problem.heads, what + ": heads");
    check.expect(parameter<int32_t>(launch, next++) == expected.per_program, what + ": per_program");
    check.expect(parameter<void*>(launch, next) == nullptr && parameter<void*>(launch, next + 1) == nullptr,
                 what + ": two null pointers");
}

}  // namespace

void check_launch(Check& check, Library const& library) {
    FakeDriver* const driver = fake_driver();
    if (driver == nullptr) {
        check.skip("the fake driver is not in LD_LIBRARY_PATH");
        return;
    }
    for (Embedded const& variant : embedded()) {
        for (int const arch : {variant.arch, 121}) {  // 121: newer than any cubin, so its PTX is taken
            Embedded const* const image = image_for(variant.name, arch);
            if (image == nullptr) {
                continue;
            }
            driver->arch = arch;
            driver->context_id += 1;
            int const heads = variant.channels > 0 ? variant.channels / variant.head_width : 3;
            Problem problem(variant.op, variant.dtype, variant.window, variant.head_width, heads);
            Plugin const built = make_plugin(library, problem);
            check.expect(problem.configure(built) == 0, variant.name + " is configured");
            Plugin const plugin(built.runtime().attachToContext(nullptr));
            for (int const multiprocessors : {1, 16, 132}) {
                driver->multiprocessors = multiprocessors;
                driver->context_id += 1;  // the number is read when the kernel is loaded
                for (int const batch : {1, 3, 64}) {
                    problem.set_map({batch, 2 * problem.window, 3 * problem.window, heads * problem.head_width});
                    check.expect(problem.shape_change(plugin) == 0, variant.name + ": shape");
                    check_one_launch(check, plugin, problem, *image, *driver);
                }
            }
            // Real images begin as their kind does; the tests' own go on with a space and say what they are.
            std::string const& content = driver->last_launch.image;
            std::string const start = image->is_ptx ? "//" : std::string("\x7f") + "ELF";
            std::string const own =
                start + (image->is_ptx ? " ptx " : " cubin ") + std::to_string(image->arch) + " " + variant.name;
            bool const real = content.rfind(start, 0) == 0 && content.rfind(start + " ", 0) != 0;
            check.expect(real || content == own,
                         variant.name + " on " + std::to_string(arch) + ": not " + own + " but " + content);
        }
    }
}

void check_launch_refusals(Check& check, Library const& library) {
    FakeDriver* const driver = fake_driver();
    if (driver == nullptr) {
        check.skip("the fake driver is not in LD_LIBRARY_PATH");
        return;
    }
    for (char const* const op : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        if (first_embedded(op) == nullptr) {
            check.skip(std::string("no kernel of ") + op + " is embedded");
            continue;
        }
        Problem problem = embedded_problem(op);
        std::string const name = op;
        driver->arch = first_embedded(op)->arch;
        driver->context_id += 1;
        Plugin const plugin = make_plugin(library, problem);
        Addresses at(problem);
        expect_refused(check, name + ", enqueue before any shape", "call onShapeChange",
                       [&] { return !enqueues(plugin, problem, at); });
        check.expect(problem.shape_change(plugin) == 0, name + ": shape, without configuring");
        expect_parameters(*driver, problem);
        int const launches = driver->launches;
        for (int index = 0; index < problem.inputs(); ++index) {
            for (void const* const bad :
                 {static_cast<void const*>(nullptr), reinterpret_cast<void const*>(uintptr_t{0x100008})}) {
                Addresses spoiled = at;
                spoiled.inputs[index] = bad;
                expect_refused(check, name + ", a bad address", problem.names[index] + " is not at an address",
                               [&] { return !enqueues(plugin, problem, spoiled); });
            }
        }
        Addresses spoiled = at;
        spoiled.output = nullptr;
        expect_refused(check, name + ", no output", "y is not at an address",
                       [&] { return !enqueues(plugin, problem, spoiled); });
        driver->launch_result = CUDA_ERROR_LAUNCH_FAILED;
        expect_refused(check, name + ", a launch that fails", "CUDA_ERROR_FAKE",
                       [&] { return !enqueues(plugin, problem, at); });
        driver->launch_result = CUDA_SUCCESS;
        Problem other = problem;
        other.tensors[0].type = nvinfer1::DataType::kINT64;
        expect_refused(check, name + ", another type than prepared", "call onShapeChange",
                       [&] { return !enqueues(plugin, other, at); });
        other = problem;
        other.tensors[0].dims.d[3] *= 2;
        expect_refused(check, name + ", other channels than prepared", "call onShapeChange",
                       [&] { return !enqueues(plugin, other, at); });
        other = problem;
        // The larger one would also overflow int64 when multiplied.
        for (int const exponent : {31, 62}) {
            other.tensors[0].dims.d[0] = int64_t{1} << exponent;
            expect_refused(check, name + ", 2^" + std::to_string(exponent) + " images", "too many windows",
                           [&] { return !enqueues(plugin, other, at); });
        }
        check.expect(driver->launches == launches, name + ": nothing was launched");
        problem.set_map({0, problem.window, problem.window, int64_t{problem.heads} * problem.head_width});
        expect_accepted(check, name + ", an empty batch",
                        [&] { return problem.shape_change(plugin) == 0 && enqueues(plugin, problem, at); });
        check.expect(driver->launches == launches, name + ": an empty batch launches nothing");
    }
}

}  // namespace edge_lsla::harness
