#include "gpu.h"

#include <dlfcn.h>

#include <stdexcept>
#include <utility>

namespace edge_lsla::harness {

namespace {

template <typename Function>
void resolve(void* library, char const* name, Function*& function) {
    function = reinterpret_cast<Function*>(::dlsym(library, name));
    if (function == nullptr) {
        throw std::runtime_error(std::string("this driver is too old: libcuda.so.1 lacks ") + name);
    }
}

Cuda open_cuda() {
    void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        char const* const reason = ::dlerror();
        throw std::runtime_error(std::string("no NVIDIA driver: ") + (reason == nullptr ? "libcuda.so.1" : reason) +
                                 "; run on a machine with an NVIDIA GPU");
    }
    Cuda cuda{};
    resolve(library, "cuInit", cuda.init);
    resolve(library, "cuGetErrorName", cuda.get_error_name);
    resolve(library, "cuDeviceGet", cuda.device_get);
    resolve(library, "cuDeviceGetName", cuda.device_get_name);
    resolve(library, "cuDevicePrimaryCtxRetain", cuda.primary_context_retain);
    resolve(library, "cuDevicePrimaryCtxRelease_v2", cuda.primary_context_release);
    resolve(library, "cuCtxSetCurrent", cuda.context_set_current);
    resolve(library, "cuMemAlloc_v2", cuda.memory_allocate);
    resolve(library, "cuMemFree_v2", cuda.memory_free);
    resolve(library, "cuMemcpyHtoD_v2", cuda.copy_to_device);
    resolve(library, "cuMemcpyDtoH_v2", cuda.copy_to_host);
    resolve(library, "cuMemsetD8_v2", cuda.fill_bytes);
    resolve(library, "cuStreamCreate", cuda.stream_create);
    resolve(library, "cuStreamSynchronize", cuda.stream_synchronize);
    resolve(library, "cuStreamDestroy_v2", cuda.stream_destroy);
    resolve(library, "cuStreamBeginCapture_v2", cuda.stream_begin_capture);
    resolve(library, "cuStreamEndCapture", cuda.stream_end_capture);
    resolve(library, "cuEventCreate", cuda.event_create);
    resolve(library, "cuEventRecord", cuda.event_record);
    resolve(library, "cuEventElapsedTime", cuda.event_elapsed);
    resolve(library, "cuEventDestroy_v2", cuda.event_destroy);
    resolve(library, "cuGraphInstantiateWithFlags", cuda.graph_instantiate);
    resolve(library, "cuGraphLaunch", cuda.graph_launch);
    resolve(library, "cuGraphExecDestroy", cuda.graph_exec_destroy);
    resolve(library, "cuGraphDestroy", cuda.graph_destroy);
    return cuda;
}

}  // namespace

void Cuda::check(CUresult result, char const* what) const {
    if (result == CUDA_SUCCESS) {
        return;
    }
    char const* name = nullptr;
    get_error_name(result, &name);
    throw std::runtime_error(std::string(what) + " failed: " + (name == nullptr ? "unknown error" : name) + " (" +
                             std::to_string(static_cast<int>(result)) + ")");
}

Gpu::Gpu() : cuda_(open_cuda()) {
    cuda_.check(cuda_.init(0), "starting CUDA");
    cuda_.check(cuda_.device_get(&device_, 0), "finding a GPU");
    CUcontext context = nullptr;
    cuda_.check(cuda_.primary_context_retain(&context, device_), "opening the GPU's context");
    CUresult const result = cuda_.context_set_current(context);
    if (result != CUDA_SUCCESS) {
        cuda_.primary_context_release(device_);  // the destructor of an object that throws does not run
        cuda_.check(result, "using the GPU's context");
    }
}

Gpu::~Gpu() {
    cuda_.context_set_current(nullptr);
    cuda_.primary_context_release(device_);
}

std::string Gpu::name() const {
    char text[256] = {};
    cuda_.check(cuda_.device_get_name(text, sizeof text - 1, device_), "asking for the GPU's name");
    return text;
}

DeviceMemory::DeviceMemory(Gpu const& gpu, size_t bytes) : cuda_(&gpu.cuda()) {
    cuda_->check(cuda_->memory_allocate(&address_, bytes == 0 ? 1 : bytes), "allocating GPU memory");
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : cuda_(other.cuda_), address_(std::exchange(other.address_, 0)) {}

DeviceMemory::~DeviceMemory() {
    if (address_ != 0) {
        cuda_->memory_free(address_);
    }
}

Stream::Stream(Gpu const& gpu) : cuda_(gpu.cuda()) {
    // Non-blocking: the legacy stream must not order our work by accident.
    cuda_.check(cuda_.stream_create(&stream_, CU_STREAM_NON_BLOCKING), "making a stream");
}

Stream::~Stream() { cuda_.stream_destroy(stream_); }

void Stream::synchronize() const { cuda_.check(cuda_.stream_synchronize(stream_), "the kernel"); }

Event::Event(Gpu const& gpu) : cuda_(gpu.cuda()) {
    cuda_.check(cuda_.event_create(&event_, CU_EVENT_DEFAULT), "making an event");
}

Event::~Event() { cuda_.event_destroy(event_); }

void Event::record(Stream const& stream) const {
    cuda_.check(cuda_.event_record(event_, stream.get()), "recording an event");
}

float Event::since(Event const& earlier) const {
    float milliseconds = 0;
    cuda_.check(cuda_.event_elapsed(&milliseconds, earlier.event_, event_), "reading the clock");
    return milliseconds;
}

Graph::Graph(Gpu const& gpu, Stream const& stream, std::function<void()> const& body) : cuda_(gpu.cuda()) {
    cuda_.check(cuda_.stream_begin_capture(stream.get(), CU_STREAM_CAPTURE_MODE_GLOBAL), "beginning the capture");
    try {
        body();
    } catch (...) {
        cuda_.stream_end_capture(stream.get(), &graph_);
        if (graph_ != nullptr) {
            cuda_.graph_destroy(graph_);
        }
        throw;
    }
    cuda_.check(cuda_.stream_end_capture(stream.get(), &graph_), "the capture");
    CUresult const result = cuda_.graph_instantiate(&executable_, graph_, 0);
    if (result != CUDA_SUCCESS) {
        cuda_.graph_destroy(graph_);
        cuda_.check(result, "instantiating the graph");
    }
}

Graph::~Graph() {
    cuda_.graph_exec_destroy(executable_);
    cuda_.graph_destroy(graph_);
}

void Graph::launch(Stream const& stream) const {
    cuda_.check(cuda_.graph_launch(executable_, stream.get()), "launching the graph");
}

}  // namespace edge_lsla::harness
