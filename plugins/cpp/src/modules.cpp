#include "modules.h"

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "refusal.h"

namespace edge_lsla {

namespace {

// Above this, a kernel must ask for its dynamic shared memory.
constexpr int32_t kSharedBytesWithoutAsking = 48 * 1024;

// Loading a module may allocate, which would break another thread's capture in the default (global) mode.
class RelaxedCapture {
  public:
    explicit RelaxedCapture(Driver const& cuda) : cuda_(cuda) {
        cuda_.check(cuda_.exchange_capture_mode(&mode_), "the capture mode cannot be changed", "this thread",
                    "load the engine before capturing a CUDA graph");
    }
    ~RelaxedCapture() { cuda_.exchange_capture_mode(&mode_); }
    RelaxedCapture(RelaxedCapture const&) = delete;
    RelaxedCapture& operator=(RelaxedCapture const&) = delete;

  private:
    Driver const& cuda_;
    CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

int32_t attribute(Driver const& cuda, CUdevice device, CUdevice_attribute name) {
    int value = 0;
    cuda.check(cuda.device_get_attribute(&value, name, device), "the GPU's properties cannot be read",
               "device " + std::to_string(device), "check the driver with nvidia-smi");
    return value;
}

// Unloads the module again unless its kernel was found in it.
class Module {
  public:
    Module(Driver const& cuda, Variant const& variant) : cuda_(cuda) {
        // The compiler's log says why PTX was refused; a cubin leaves it empty.
        std::array<char, 2048> log{};
        std::array<CUjit_option, 2> options{CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
        std::array<void*, 2> values{log.data(), reinterpret_cast<void*>(log.size() - 1)};
        CUresult const result =
            cuda_.module_load_data(&module_, variant.image, options.size(), options.data(), values.data());
        std::string where =
            std::string(variant.name) + (variant.is_ptx ? ", PTX " : ", ") + std::to_string(variant.arch);
        if (log[0] != '\0') {
            where += ", " + std::string(log.data());
        }
        cuda_.check(result, "the driver refuses the kernel", where,
                    "update the driver, or build the plugin with the compiler of this driver's CUDA version");
    }
    ~Module() {
        if (module_ != nullptr) {
            cuda_.module_unload(module_);
        }
    }
    Module(Module const&) = delete;
    Module& operator=(Module const&) = delete;

    CUfunction function(Variant const& variant) const {
        CUfunction function = nullptr;
        cuda_.check(cuda_.module_get_function(&function, module_, variant.symbol), "the kernel is not in its image",
                    std::string(variant.name) + ", " + variant.symbol, "build the plugin again");
        if (variant.shared_bytes > kSharedBytesWithoutAsking) {
            cuda_.check(cuda_.function_set_attribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                                     variant.shared_bytes),
                        "the GPU has too little shared memory for the kernel", variant.name,
                        "build the plugin for this GPU's architecture");
        }
        return function;
    }

    void keep() noexcept { module_ = nullptr; }

  private:
    Driver const& cuda_;
    CUmodule module_ = nullptr;
};

class ModuleCache {
  public:
    LoadedKernel const& get(Operator const& op, Settings const& settings) {
        Driver const& cuda = driver();
        ContextKey const context = current_context(cuda);
        RelaxedCapture const relaxed(cuda);
        CUdevice device = 0;
        cuda.check(cuda.context_get_device(&device), "the CUDA context has no device", "this thread",
                   "call cudaSetDevice first");
        int32_t const arch = 10 * attribute(cuda, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                             attribute(cuda, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
        Variant const& variant = select_variant(op, settings, arch);

        std::lock_guard<std::mutex> const lock(mutex_);
        std::unique_ptr<LoadedKernel>& kernel = kernels_[{context, &variant}];
        if (kernel == nullptr) {
            int32_t const multiprocessors = attribute(cuda, device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
            Module module(cuda, variant);
            CUfunction const function = module.function(variant);
            kernel = std::make_unique<LoadedKernel>(LoadedKernel{context, &variant, function, multiprocessors});
            module.keep();
        }
        return *kernel;
    }

  private:
    std::mutex mutex_;
    std::map<std::pair<ContextKey, Variant const*>, std::unique_ptr<LoadedKernel>> kernels_;
};

}  // namespace

LoadedKernel const& loaded_kernel(Operator const& op, Settings const& settings) {
    // Never destroyed: when static objects are, the driver may be gone already, and a thread may still be launching.
    static ModuleCache* const cache = new ModuleCache();
    return cache->get(op, settings);
}

}  // namespace edge_lsla
