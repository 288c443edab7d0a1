// The GPU for the `run` mode, through the driver API; each object owns what it names.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <functional>
#include <string>

namespace edge_lsla::harness {

// The driver's functions under their exported names, opened at run time like the plugin's.
struct Cuda {
    CUresult (*init)(unsigned int);
    CUresult (*get_error_name)(CUresult, char const**);
    CUresult (*device_get)(CUdevice*, int);
    CUresult (*device_get_name)(char*, int, CUdevice);
    CUresult (*primary_context_retain)(CUcontext*, CUdevice);
    CUresult (*primary_context_release)(CUdevice);
    CUresult (*context_set_current)(CUcontext);
    CUresult (*memory_allocate)(CUdeviceptr*, size_t);
    CUresult (*memory_free)(CUdeviceptr);
    CUresult (*copy_to_device)(CUdeviceptr, void const*, size_t);
    CUresult (*copy_to_host)(void*, CUdeviceptr, size_t);
    CUresult (*fill_bytes)(CUdeviceptr, unsigned char, size_t);
    CUresult (*stream_create)(CUstream*, unsigned int);
    CUresult (*stream_synchronize)(CUstream);
    CUresult (*stream_destroy)(CUstream);
    CUresult (*stream_begin_capture)(CUstream, CUstreamCaptureMode);
    CUresult (*stream_end_capture)(CUstream, CUgraph*);
    CUresult (*event_create)(CUevent*, unsigned int);
    CUresult (*event_record)(CUevent, CUstream);
    CUresult (*event_elapsed)(float*, CUevent, CUevent);
    CUresult (*event_destroy)(CUevent);
    CUresult (*graph_instantiate)(CUgraphExec*, CUgraph, unsigned long long);
    CUresult (*graph_launch)(CUgraphExec, CUstream);
    CUresult (*graph_exec_destroy)(CUgraphExec);
    CUresult (*graph_destroy)(CUgraph);

    // Throws std::runtime_error with the driver's name for the error.
    void check(CUresult result, char const* what) const;
};

// Device 0's primary context, current in this thread while this lives: the one that TensorRT would use.
class Gpu {
  public:
    Gpu();  // throws std::runtime_error where there is no driver or no GPU
    ~Gpu();
    Gpu(Gpu const&) = delete;
    Gpu& operator=(Gpu const&) = delete;

    Cuda const& cuda() const noexcept { return cuda_; }
    std::string name() const;

  private:
    Cuda cuda_{};
    CUdevice device_ = 0;
};

class DeviceMemory {
  public:
    DeviceMemory(Gpu const& gpu, size_t bytes);
    DeviceMemory(DeviceMemory&& other) noexcept;
    ~DeviceMemory();
    DeviceMemory(DeviceMemory const&) = delete;
    DeviceMemory& operator=(DeviceMemory const&) = delete;
    DeviceMemory& operator=(DeviceMemory&&) = delete;

    CUdeviceptr address() const noexcept { return address_; }
    void* pointer() const noexcept { return reinterpret_cast<void*>(address_); }

  private:
    Cuda const* cuda_;
    CUdeviceptr address_ = 0;
};

class Stream {
  public:
    explicit Stream(Gpu const& gpu);
    ~Stream();
    Stream(Stream const&) = delete;
    Stream& operator=(Stream const&) = delete;

    CUstream get() const noexcept { return stream_; }
    void synchronize() const;

  private:
    Cuda const& cuda_;
    CUstream stream_ = nullptr;
};

class Event {
  public:
    explicit Event(Gpu const& gpu);
    ~Event();
    Event(Event const&) = delete;
    Event& operator=(Event const&) = delete;

    void record(Stream const& stream) const;
    // Milliseconds from `earlier` to this one; both must have happened.
    float since(Event const& earlier) const;

  private:
    Cuda const& cuda_;
    CUevent event_ = nullptr;
};

// What `body` puts on the stream, captured. The capture is in the strictest mode: whatever allocates or synchronises in
// this process meanwhile makes it fail.
class Graph {
  public:
    Graph(Gpu const& gpu, Stream const& stream, std::function<void()> const& body);
    ~Graph();
    Graph(Graph const&) = delete;
    Graph& operator=(Graph const&) = delete;

    void launch(Stream const& stream) const;

  private:
    Cuda const& cuda_;
    CUgraph graph_ = nullptr;
    CUgraphExec executable_ = nullptr;
};

}  // namespace edge_lsla::harness
