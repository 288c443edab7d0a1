// What TensorRT's registry holds: it makes the plugins of one operator.
#pragma once

#include <NvInferRuntime.h>

#include "fields.h"
#include "operators.h"

namespace edge_lsla {

class LslaPluginCreator final : public nvinfer1::IPluginCreatorV3One {
  public:
    explicit LslaPluginCreator(Operator const& op) noexcept : op_(op), names_(op) {}
    LslaPluginCreator(LslaPluginCreator const&) = delete;
    LslaPluginCreator& operator=(LslaPluginCreator const&) = delete;

    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* name, nvinfer1::PluginFieldCollection const* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return names_.collection(); }
    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return op_.name; }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kPluginVersion; }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

  private:
    Operator const& op_;
    FieldNames names_;
};

}  // namespace edge_lsla
