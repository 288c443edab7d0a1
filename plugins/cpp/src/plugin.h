// The plugin: TensorRT's view of one attention node. The operator's description decides what it takes.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fields.h"
#include "modules.h"
#include "operators.h"

namespace edge_lsla {

// One object is all four interfaces. What it holds is small and copied by clone(); kernels belong to the module cache.
//
// Threads: TensorRT gives each execution context its own clone, so the methods that change a plugin (configurePlugin,
// onShapeChange) are not called on one object by two threads. enqueue changes nothing but an atomic pointer.
class LslaPlugin final : public nvinfer1::IPluginV3,
                         public nvinfer1::IPluginV3OneCore,
                         public nvinfer1::IPluginV3OneBuild,
                         public nvinfer1::IPluginV3OneRuntime {
  public:
    LslaPlugin(Operator const& op, Settings const& settings) noexcept;
    LslaPlugin(LslaPlugin const&) = delete;
    LslaPlugin& operator=(LslaPlugin const&) = delete;

    // IPluginV3
    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    // IPluginV3OneCore
    nvinfer1::AsciiChar const* getPluginName() const noexcept override;
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override;
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override;

    // IPluginV3OneBuild
    int32_t getNbOutputs() const noexcept override;
    int32_t getOutputDataTypes(nvinfer1::DataType* output_types, int32_t output_count,
                               nvinfer1::DataType const* input_types, int32_t input_count) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count,
                            nvinfer1::DimsExprs const* shape_inputs, int32_t shape_input_count,
                            nvinfer1::DimsExprs* outputs, int32_t output_count,
                            nvinfer1::IExprBuilder& expressions) noexcept override;
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                   int32_t input_count, int32_t output_count) noexcept override;
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                            nvinfer1::DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept override;
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                            nvinfer1::DynamicPluginTensorDesc const* outputs,
                            int32_t output_count) const noexcept override;

    // IPluginV3OneRuntime
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, int32_t input_count,
                          nvinfer1::PluginTensorDesc const* outputs, int32_t output_count) noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descriptions,
                    nvinfer1::PluginTensorDesc const* output_descriptions, void const* const* inputs,
                    void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

  private:
    // Tensor `position`'s type and format against the operator's table; throws Refusal.
    void check_tensor(int32_t position, nvinfer1::PluginTensorDesc const& tensor, nvinfer1::DataType x_type) const;
    // The kernel for the calling thread's context: the one prepared, unless another context is current now.
    LoadedKernel const& kernel_here();
    void launch(nvinfer1::PluginTensorDesc const& x, void const* const* inputs, void* output, cudaStream_t stream);

    Operator const& op_;
    Settings settings_;
    SerializedFields serialized_{op_, settings_};
    std::atomic<LoadedKernel const*> kernel_{nullptr};
};

}  // namespace edge_lsla
