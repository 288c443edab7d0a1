// Many threads, each with plugins of its own, as applications with several execution contexts have.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "checks.h"
#include "embedded.h"
#include "fake_driver.h"
#include "problem.h"

namespace edge_lsla::harness {

namespace {

// An architecture for which every one of these problems has a kernel; 0 if there is none.
int common_arch(std::vector<std::string> const& names) {
    for (Embedded const& candidate : embedded()) {
        bool all = true;
        for (std::string const& name : names) {
            all = all && image_for(name, candidate.arch) != nullptr;
        }
        if (all) {
            return candidate.arch;
        }
    }
    return 0;
}

constexpr int kThreads = 8;
constexpr int kRounds = 50;

// One round of a plugin's life; returns whether every step went as it should.
bool live(Library const& library, Problem const& problem, bool with_driver) {
    Plugin const plugin = make_plugin(library, problem);
    if (problem.configure(plugin) != 0) {
        return false;
    }
    Plugin const clone(plugin.whole().clone());
    if (clone.runtime().getFieldsToSerialize()->nbFields < 4) {
        return false;
    }
    if (!with_driver) {
        return true;
    }
    Plugin const attached(clone.runtime().attachToContext(nullptr));
    std::vector<void const*> const inputs(problem.inputs(), reinterpret_cast<void const*>(uintptr_t{0x1000}));
    void* const output = reinterpret_cast<void*>(uintptr_t{0x2000});
    return problem.shape_change(attached) == 0 &&
           attached.runtime().enqueue(problem.tensors.data(), &problem.tensors.back(), inputs.data(), &output, nullptr,
                                      nullptr) == 0;
}

}  // namespace

void check_threads(Check& check, Library const& library) {
    FakeDriver* const driver = fake_driver();
    std::vector<Problem> problems;
    std::vector<std::string> names;
    for (char const* const op : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        if (first_embedded(op) != nullptr) {
            problems.push_back(embedded_problem(op));
            names.push_back(first_embedded(op)->name);
        }
    }
    int loads = 0;
    if (driver != nullptr) {
        driver->arch = common_arch(names);
        driver->context_id += 1;
        driver->parameter_sizes.clear();
        loads = driver->loads;
    }
    std::atomic<int> good{0};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&, thread] {
            for (int round = 0; round < kRounds; ++round) {
                Problem const& problem = problems[(thread + round) % problems.size()];
                good += live(library, problem, driver != nullptr) ? 1 : 0;
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    check.expect(good == kThreads * kRounds, "every plugin of every thread works");
    if (driver != nullptr) {
        check.expect(driver->loads - loads == static_cast<int>(problems.size()), "each kernel is loaded once for all");
        // One attached plugin enqueued by all: not what TensorRT does, but it must not race.
        Problem const& problem = problems.front();
        Plugin const built = make_plugin(library, problem);
        check.expect(problem.configure(built) == 0, "configured");
        Plugin const shared(built.runtime().attachToContext(nullptr));
        int const launches = driver->launches;
        threads.clear();
        for (int thread = 0; thread < kThreads; ++thread) {
            threads.emplace_back([&] {
                std::vector<void const*> const inputs(problem.inputs(),
                                                      reinterpret_cast<void const*>(uintptr_t{0x1000}));
                void* const output = reinterpret_cast<void*>(uintptr_t{0x2000});
                for (int round = 0; round < kRounds; ++round) {
                    shared.runtime().enqueue(problem.tensors.data(), &problem.tensors.back(), inputs.data(), &output,
                                             nullptr, nullptr);
                }
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        check.expect(driver->launches - launches == kThreads * kRounds, "one plugin launches from many threads");
    }
}

}  // namespace edge_lsla::harness
