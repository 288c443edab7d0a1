#include "driver.h"

#include <dlfcn.h>

#include "refusal.h"

namespace edge_lsla {

namespace {

constexpr char const* kLibrary = "libcuda.so.1";

template <typename Function>
void resolve(void* library, char const* name, Function*& function, bool required = true) {
    function = reinterpret_cast<Function*>(::dlsym(library, name));
    if (function == nullptr && required) {
        throw Refusal(std::string("the NVIDIA driver lacks ") + name, kLibrary, "update the driver");
    }
}

Driver open_driver() {
    // Never closed: TensorRT uses the same library, and modules loaded through it stay until their context ends.
    void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        char const* const reason = ::dlerror();
        throw Refusal("the NVIDIA driver cannot be opened", reason == nullptr ? kLibrary : reason,
                      "run on a machine with an NVIDIA GPU and its driver");
    }
    Driver cuda{};
    resolve(library, "cuGetErrorName", cuda.get_error_name);
    resolve(library, "cuCtxGetCurrent", cuda.context_get_current);
    resolve(library, "cuCtxGetDevice", cuda.context_get_device);
    resolve(library, "cuCtxGetId", cuda.context_get_id, false);
    resolve(library, "cuDeviceGetAttribute", cuda.device_get_attribute);
    resolve(library, "cuModuleLoadDataEx", cuda.module_load_data);
    resolve(library, "cuModuleGetFunction", cuda.module_get_function);
    resolve(library, "cuModuleUnload", cuda.module_unload);
    resolve(library, "cuFuncSetAttribute", cuda.function_set_attribute);
    resolve(library, "cuThreadExchangeStreamCaptureMode", cuda.exchange_capture_mode);
    resolve(library, "cuLaunchKernel", cuda.launch_kernel);
    return cuda;
}

}  // namespace

void Driver::check(CUresult result, char const* what, std::string const& where, char const* remedy) const {
    if (result == CUDA_SUCCESS) {
        return;
    }
    char const* name = nullptr;
    std::string text = "error " + std::to_string(static_cast<int>(result));
    if (get_error_name(result, &name) == CUDA_SUCCESS && name != nullptr) {
        text = name;
    }
    throw Refusal(std::string(what) + " (" + text + ")", where, remedy);
}

Driver const& driver() {
    static Driver const cuda = open_driver();  // an exception leaves it unset, so the next call tries again
    return cuda;
}

ContextKey current_context(Driver const& cuda) {
    ContextKey key;
    cuda.check(cuda.context_get_current(&key.handle), "the CUDA context cannot be asked for", "this thread",
               "create TensorRT's objects first");
    if (key.handle == nullptr) {
        throw Refusal("no CUDA context is current", "this thread", "call cudaSetDevice, or push a context, first");
    }
    if (cuda.context_get_id != nullptr) {
        cuda.check(cuda.context_get_id(key.handle, &key.id), "the CUDA context has no id", "this thread",
                   "create TensorRT's objects again; the context they were made in is gone");
    }
    return key;
}

}  // namespace edge_lsla
