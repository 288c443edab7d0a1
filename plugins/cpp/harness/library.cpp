#include "library.h"

#include <dlfcn.h>

#include <cstring>
#include <stdexcept>

namespace edge_lsla::harness {

using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginFieldType;

namespace {

template <typename Function>
Function* exported(void* handle, char const* name) {
    auto* const function = reinterpret_cast<Function*>(::dlsym(handle, name));
    if (function == nullptr) {
        throw std::runtime_error(std::string("the library does not export ") + name);
    }
    return function;
}

}  // namespace

Library::Library(std::string const& path) {
    // RTLD_NOW and RTLD_LOCAL: an undefined symbol shows here, not in the middle of a check.
    handle_ = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) {
        throw std::runtime_error(std::string("cannot load the plugin library: ") + ::dlerror());
    }
    exported<void(nvinfer1::ILoggerFinder*)>(handle_, "setLoggerFinder")(nullptr);
    int32_t count = -1;
    auto* const get = exported<nvinfer1::IPluginCreatorInterface* const*(int32_t&)>(handle_, "getCreators");
    nvinfer1::IPluginCreatorInterface* const* const creators = get(count);
    for (int32_t index = 0; index < count; ++index) {
        std::string const kind = creators[index]->getInterfaceInfo().kind;
        if (kind != "PLUGIN CREATOR_V3ONE") {
            throw std::runtime_error("a creator is a " + kind);
        }
        creators_.push_back(static_cast<nvinfer1::IPluginCreatorV3One*>(creators[index]));
    }
}

Library::~Library() { ::dlclose(handle_); }

nvinfer1::IPluginCreatorV3One& Library::creator(std::string const& name) const {
    for (nvinfer1::IPluginCreatorV3One* const creator : creators_) {
        if (name == creator->getPluginName()) {
            return *creator;
        }
    }
    throw std::runtime_error("the library has no operator " + name);
}

void const* Fields::keep(void const* data, size_t size) {
    std::vector<char>& value = values_.emplace_back(size);
    if (size > 0) {
        std::memcpy(value.data(), data, size);
    }
    return value.data();
}

Fields& Fields::raw(char const* name, void const* data, PluginFieldType type, int32_t length) {
    fields_.emplace_back(name, data, type, length);
    return *this;
}

Fields& Fields::integer(char const* name, int32_t value) {
    return raw(name, keep(&value, sizeof value), PluginFieldType::kINT32, 1);
}

Fields& Fields::long_integer(char const* name, int64_t value) {
    return raw(name, keep(&value, sizeof value), PluginFieldType::kINT64, 1);
}

Fields& Fields::real(char const* name, float value) {
    return raw(name, keep(&value, sizeof value), PluginFieldType::kFLOAT32, 1);
}

Fields& Fields::double_real(char const* name, double value) {
    return raw(name, keep(&value, sizeof value), PluginFieldType::kFLOAT64, 1);
}

Fields& Fields::text(char const* name, std::string const& value) {
    return raw(name, keep(value.data(), value.size()), PluginFieldType::kCHAR, static_cast<int32_t>(value.size()));
}

nvinfer1::PluginFieldCollection const* Fields::collection() {
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    return &collection_;
}

Plugin::Plugin(nvinfer1::IPluginV3* plugin) : plugin_(plugin) {
    if (plugin == nullptr) {
        throw std::runtime_error("the plugin was not created");
    }
    core_ = static_cast<nvinfer1::IPluginV3OneCore*>(plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
    build_ = static_cast<nvinfer1::IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
    runtime_ =
        static_cast<nvinfer1::IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    if (core_ == nullptr || build_ == nullptr || runtime_ == nullptr) {
        throw std::runtime_error("the plugin lacks an interface");
    }
}

}  // namespace edge_lsla::harness
