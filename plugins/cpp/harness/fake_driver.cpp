// A libcuda.so.1 that computes nothing and writes everything down. The functions are those that src/driver.cpp opens,
// with their signatures from cuda.h, so that the compiler compares the two.
#include "fake_driver.h"

#include <algorithm>
#include <cstring>
#include <memory>

using edge_lsla::harness::FakeDriver;

// Opaque in cuda.h, ours to define.
struct CUmod_st {
    std::string image;
};

struct CUfunc_st {
    std::string image;
    std::string symbol;
};

namespace {

FakeDriver& state() {
    static FakeDriver instance;
    return instance;
}

thread_local CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

}  // namespace

extern "C" {

FakeDriver* edge_lsla_fake_driver() { return &state(); }

CUresult CUDAAPI cuGetErrorName(CUresult error, char const** name) {
    static char const* const names[] = {"CUDA_SUCCESS", "CUDA_ERROR_FAKE"};
    *name = names[error == CUDA_SUCCESS ? 0 : 1];
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetCurrent(CUcontext* context) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    *context = reinterpret_cast<CUcontext>(state().context);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetId(CUcontext context, unsigned long long* id) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    *id = state().context_id;
    return context == nullptr ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetDevice(CUdevice* device) {
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
            *value = state().arch / 10;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
            *value = state().arch % 10;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
            *value = state().multiprocessors;
            return CUDA_SUCCESS;
        default:
            return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult CUDAAPI cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
    std::swap(*mode, capture_mode);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleLoadDataEx(CUmodule* module, void const* image, unsigned int option_count,
                                    CUjit_option* options, void** values) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    if (state().load_result != CUDA_SUCCESS) {
        for (unsigned int index = 0; index < option_count; ++index) {
            if (options[index] == CU_JIT_ERROR_LOG_BUFFER) {
                std::strcpy(static_cast<char*>(values[index]), "compiler log,\nsecond line");
            }
        }
        return state().load_result;
    }
    ++state().loads;
    state().loads_outside_relaxed_capture += capture_mode == CU_STREAM_CAPTURE_MODE_RELAXED ? 0 : 1;
    char const* const text = static_cast<char const*>(image);
    *module = new CUmod_st{std::string(text, strcspn(text, "\n"))};
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction* function, CUmodule module, char const* symbol) {
    // Kept for the process: a function lives as long as its module, and modules are kept as well.
    static std::vector<std::unique_ptr<CUfunc_st>> functions;
    std::lock_guard<std::mutex> const lock(state().mutex);
    functions.push_back(std::make_unique<CUfunc_st>(CUfunc_st{module->image, symbol}));
    static std::vector<std::unique_ptr<CUmod_st>> modules;
    if (std::none_of(modules.begin(), modules.end(), [&](auto const& kept) { return kept.get() == module; })) {
        modules.emplace_back(module);
    }
    *function = functions.back().get();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleUnload(CUmodule) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    ++state().unloads;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    state().shared_bytes_asked[function->symbol] = value;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                                unsigned int block_x, unsigned int block_y, unsigned int block_z,
                                unsigned int shared_bytes, CUstream stream, void** parameters, void** extra) {
    std::lock_guard<std::mutex> const lock(state().mutex);
    if (state().launch_result != CUDA_SUCCESS || extra != nullptr) {
        return state().launch_result != CUDA_SUCCESS ? state().launch_result : CUDA_ERROR_INVALID_VALUE;
    }
    ++state().launches;
    edge_lsla::harness::FakeLaunch launch{function->image,
                                          function->symbol,
                                          {grid_x, grid_y, grid_z},
                                          {block_x, block_y, block_z},
                                          shared_bytes,
                                          stream,
                                          {}};
    for (size_t index = 0; index < state().parameter_sizes.size(); ++index) {
        auto const* const bytes = static_cast<unsigned char const*>(parameters[index]);
        launch.parameters.emplace_back(bytes, bytes + state().parameter_sizes[index]);
    }
    state().last_launch = std::move(launch);
    return CUDA_SUCCESS;
}

}  // extern "C"
