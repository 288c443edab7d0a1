// The plugin library as TensorRT sees it: opened with dlopen, reached through getCreators and virtual methods only.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace edge_lsla::harness {

class Library {
  public:
    // Throws std::runtime_error when it cannot be opened or lacks an export.
    explicit Library(std::string const& path);
    ~Library();
    Library(Library const&) = delete;
    Library& operator=(Library const&) = delete;

    std::vector<nvinfer1::IPluginCreatorV3One*> const& creators() const noexcept { return creators_; }
    // Throws std::runtime_error when there is none of that name.
    nvinfer1::IPluginCreatorV3One& creator(std::string const& name) const;

  private:
    void* handle_ = nullptr;
    std::vector<nvinfer1::IPluginCreatorV3One*> creators_;
};

// A list of fields that owns its values.
class Fields {
  public:
    Fields() = default;
    Fields(Fields const&) = delete;
    Fields& operator=(Fields const&) = delete;

    Fields& integer(char const* name, int32_t value);
    Fields& long_integer(char const* name, int64_t value);
    Fields& real(char const* name, float value);
    Fields& double_real(char const* name, double value);
    Fields& text(char const* name, std::string const& value);
    // Any field; `data` must outlive the list.
    Fields& raw(char const* name, void const* data, nvinfer1::PluginFieldType type, int32_t length);

    nvinfer1::PluginFieldCollection const* collection();

  private:
    void const* keep(void const* data, size_t size);

    std::deque<std::vector<char>> values_;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

// The four views of one plugin, which it owns.
class Plugin {
  public:
    // Takes ownership; throws std::runtime_error for null or when an interface is missing.
    explicit Plugin(nvinfer1::IPluginV3* plugin);

    nvinfer1::IPluginV3& whole() const noexcept { return *plugin_; }
    nvinfer1::IPluginV3OneCore& core() const noexcept { return *core_; }
    nvinfer1::IPluginV3OneBuild& build() const noexcept { return *build_; }
    nvinfer1::IPluginV3OneRuntime& runtime() const noexcept { return *runtime_; }

  private:
    std::unique_ptr<nvinfer1::IPluginV3> plugin_;
    nvinfer1::IPluginV3OneCore* core_;
    nvinfer1::IPluginV3OneBuild* build_;
    nvinfer1::IPluginV3OneRuntime* runtime_;
};

}  // namespace edge_lsla::harness
