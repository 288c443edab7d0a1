// libedge_lsla_plugin_register.so: for programs that only dlopen a plugin library (trtexec --staticPlugins, Polygraphy
// --plugins, DeepStream's custom-lib-path, Triton's backend-config) and expect it to register itself.
//
// When it is loaded, it looks for the TensorRT that is in the process already and, unless the plugin is registered,
// asks its registry to load libedge_lsla_plugin.so from the same folder. It is never unloaded, so this happens once: a
// program that loads TensorRT later gets no second chance. The plugin library cannot do that itself: a registry that
// loads it with load_library would meet every creator twice.
#include <NvInferRuntime.h>
#include <NvInferVersion.h>
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

namespace {

constexpr char const* kTensorRt[] = {"libnvinfer.so", "libnvinfer_lean.so", "libnvinfer_dispatch.so"};
constexpr char kPlugin[] = "libedge_lsla_plugin.so";

void report(std::string const& what) { std::fprintf(stderr, "edge-lsla plugin: %s\n", what.c_str()); }

// Stops at the first loaded object that is TensorRT's runtime.
int is_tensorrt(dl_phdr_info* info, size_t /*size*/, void* found) {
    std::string const path = info->dlpi_name;
    std::string const name = path.substr(path.rfind('/') + 1);
    for (char const* const known : kTensorRt) {
        if (name.rfind(known, 0) == 0) {
            *static_cast<std::string*>(found) = path;
            return 1;
        }
    }
    return 0;
}

std::string own_folder() {
    Dl_info info{};
    if (dladdr(reinterpret_cast<void const*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) {
        return {};
    }
    // A program's plugin folder may hold only a link to this library.
    std::unique_ptr<char, void (*)(void*)> const resolved(realpath(info.dli_fname, nullptr), std::free);
    std::string const path = resolved == nullptr ? info.dli_fname : resolved.get();
    size_t const slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

void load_plugin() {
    std::string tensorrt;
    dl_iterate_phdr(is_tensorrt, &tensorrt);
    if (tensorrt.empty()) {
        report("not registered: no TensorRT is loaded in this process; the program must load TensorRT first");
        return;
    }
    void* const handle = dlopen(tensorrt.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    auto const version =
        handle == nullptr ? nullptr : reinterpret_cast<int32_t (*)()>(dlsym(handle, "getInferLibVersion"));
    auto const registry =
        handle == nullptr ? nullptr
                          : reinterpret_cast<nvinfer1::IPluginRegistry* (*)()>(dlsym(handle, "getPluginRegistry"));
    if (version == nullptr || registry == nullptr) {
        report("not registered: this is no TensorRT: " + tensorrt);
        return;
    }
    // The registry's functions moved in TensorRT 11. The plugin library itself works with either.
    int32_t const major = version() / 10000;
    if (major != NV_TENSORRT_MAJOR) {
        report("not registered: built for TensorRT " + std::to_string(NV_TENSORRT_MAJOR) + ", this process has " +
               std::to_string(major) + "; build it again with that version's headers");
        return;
    }
    nvinfer1::IPluginRegistry* const plugins = registry();
    if (plugins->getCreator("LslaAttention", "1", "") != nullptr) {
        return;  // the program has loaded the plugin itself
    }
    std::string const plugin = own_folder() + "/" + kPlugin;
    if (access(plugin.c_str(), R_OK) != 0) {
        report("not registered: " + plugin + " cannot be read; it must lie beside this library");
    } else if (plugins->loadLibrary(plugin.c_str()) == nullptr) {
        report("not registered: TensorRT could not load " + plugin + "; its log says why");
    }
}

__attribute__((constructor)) void on_load() {
    try {
        load_plugin();
    } catch (...) {  // out of memory; a loader must not be thrown through
        std::fputs("edge-lsla plugin: not registered: out of memory\n", stderr);
    }
}

}  // namespace
