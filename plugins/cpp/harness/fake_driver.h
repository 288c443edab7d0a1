// The controls of fake_driver.cpp, a libcuda.so.1 without a GPU: what it pretends to be, and what it was asked to do.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace edge_lsla::harness {

inline constexpr char const* kFakeDriverSymbol = "edge_lsla_fake_driver";

struct FakeLaunch {
    std::string image;  // the beginning of the module's bytes, up to a NUL or newline
    std::string symbol;
    unsigned int grid[3];
    unsigned int block[3];
    unsigned int shared_bytes;
    CUstream stream;
    std::vector<std::vector<unsigned char>> parameters;  // as long as `parameter_sizes` says
};

struct FakeDriver {
    std::mutex mutex;

    // Pretended; set by the checks.
    int arch = 87;
    int multiprocessors = 16;
    uintptr_t context = 0x1000;  // 0: none is current
    unsigned long long context_id = 1;
    CUresult load_result = CUDA_SUCCESS;
    CUresult launch_result = CUDA_SUCCESS;
    std::vector<size_t> parameter_sizes;

    // Recorded.
    int loads = 0;
    int unloads = 0;
    int loads_outside_relaxed_capture = 0;
    int launches = 0;
    FakeLaunch last_launch{};
    std::map<std::string, int> shared_bytes_asked;  // by symbol
};

// The fake driver that this process found as libcuda.so.1; null when the driver is another.
FakeDriver* fake_driver();

}  // namespace edge_lsla::harness
