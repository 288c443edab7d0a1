// The CUDA driver API, opened when it is first needed, so that a machine without a driver can load this library.
#pragma once

#include <cuda.h>

#include <string>

namespace edge_lsla {

// The functions used, under their exported names: cuda.h renames some with macros that depend on its version, the
// driver's exports stay.
struct Driver {
    CUresult (*get_error_name)(CUresult, char const**);
    CUresult (*context_get_current)(CUcontext*);
    CUresult (*context_get_device)(CUdevice*);
    CUresult (*context_get_id)(CUcontext, unsigned long long*);  // null before CUDA 12
    CUresult (*device_get_attribute)(int*, CUdevice_attribute, CUdevice);
    CUresult (*module_load_data)(CUmodule*, void const*, unsigned int, CUjit_option*, void**);
    CUresult (*module_get_function)(CUfunction*, CUmodule, char const*);
    CUresult (*module_unload)(CUmodule);
    CUresult (*function_set_attribute)(CUfunction, CUfunction_attribute, int);
    CUresult (*exchange_capture_mode)(CUstreamCaptureMode*);
    CUresult (*launch_kernel)(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
                              unsigned int, unsigned int, CUstream, void**, void**);

    // Throws Refusal with the driver's name for the error.
    void check(CUresult result, char const* what, std::string const& where, char const* remedy) const;
};

// Opens libcuda.so.1 on the first call. Throws Refusal when it is absent, and tries again on the next call.
Driver const& driver();

// What tells CUDA contexts apart. A destroyed context's handle may be given out again, its id never is.
struct ContextKey {
    CUcontext handle = nullptr;
    unsigned long long id = 0;  // 0 where the driver has no ids

    bool operator==(ContextKey const& other) const noexcept { return handle == other.handle && id == other.id; }
    bool operator<(ContextKey const& other) const noexcept {
        return handle != other.handle ? handle < other.handle : id < other.id;
    }
};

// The calling thread's context. Throws Refusal when there is none.
ContextKey current_context(Driver const& cuda);

}  // namespace edge_lsla
