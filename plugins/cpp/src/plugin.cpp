#include "plugin.h"

#include <string>

#include "launch.h"
#include "refusal.h"
#include "shapes.h"
#include "variants.h"

namespace edge_lsla {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

namespace {

// The kernels load and store 16 bytes at a time; TensorRT aligns tensors to 256.
constexpr std::uintptr_t kAlignment = 16;

void require_counts(Operator const& op, int32_t input_count, int32_t output_count) {
    if (input_count != op.input_count || output_count != 1) {
        throw Refusal(
            "the node has " + std::to_string(input_count) + " inputs and " + std::to_string(output_count) + " outputs",
            op.name, "give it " + std::to_string(op.input_count) + " inputs and 1 output");
    }
}

// Which of a profile's shapes, and what messages call them.
struct Profile {
    Dims const& (*dims)(DynamicPluginTensorDesc const&);
    char const* moment;
};

constexpr Profile kProfiles[] = {
    {[](DynamicPluginTensorDesc const& tensor) -> Dims const& { return tensor.desc.dims; }, "in the network"},
    {[](DynamicPluginTensorDesc const& tensor) -> Dims const& { return tensor.min; }, "smallest of the profile"},
    {[](DynamicPluginTensorDesc const& tensor) -> Dims const& { return tensor.opt; }, "optimum of the profile"},
    {[](DynamicPluginTensorDesc const& tensor) -> Dims const& { return tensor.max; }, "largest of the profile"},
};

}  // namespace

LslaPlugin::LslaPlugin(Operator const& op, Settings const& settings) noexcept : op_(op), settings_(settings) {}

nvinfer1::IPluginCapability* LslaPlugin::getCapabilityInterface(PluginCapabilityType type) noexcept {
    switch (type) {
        case PluginCapabilityType::kCORE:
            return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case PluginCapabilityType::kBUILD:
            return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case PluginCapabilityType::kRUNTIME:
            return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;  // a capability of a later TensorRT
}

nvinfer1::IPluginV3* LslaPlugin::clone() noexcept {
    return guarded<nvinfer1::IPluginV3*>(nullptr, [this] { return new LslaPlugin(op_, settings_); });
}

nvinfer1::AsciiChar const* LslaPlugin::getPluginName() const noexcept { return op_.name; }
nvinfer1::AsciiChar const* LslaPlugin::getPluginVersion() const noexcept { return kPluginVersion; }
nvinfer1::AsciiChar const* LslaPlugin::getPluginNamespace() const noexcept { return kPluginNamespace; }

int32_t LslaPlugin::getNbOutputs() const noexcept { return 1; }

int32_t LslaPlugin::getOutputDataTypes(DataType* output_types, int32_t output_count, DataType const* input_types,
                                       int32_t input_count) const noexcept {
    return guarded(kFailed, [&] {
        require_counts(op_, input_count, output_count);
        output_types[0] = input_types[0];
        return kDone;
    });
}

int32_t LslaPlugin::getOutputShapes(DimsExprs const* inputs, int32_t input_count, DimsExprs const* /*shape_inputs*/,
                                    int32_t /*shape_input_count*/, DimsExprs* outputs, int32_t output_count,
                                    nvinfer1::IExprBuilder& /*expressions*/) noexcept {
    return guarded(kFailed, [&] {
        require_counts(op_, input_count, output_count);
        if (inputs[0].nbDims != 4) {
            throw Refusal("x has " + std::to_string(inputs[0].nbDims) + " dimensions", op_.name,
                          "give it [B, H, W, C], channels last");
        }
        outputs[0] = inputs[0];  // the same expressions, so y's dimensions stay tied to x's
        return kDone;
    });
}

bool LslaPlugin::supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* tensors,
                                           int32_t input_count, int32_t output_count) noexcept {
    // Without a message: TensorRT asks this for every combination it can think of.
    if (input_count != op_.input_count || output_count != 1 || position < 0 || position >= op_.tensor_count()) {
        return false;
    }
    PluginTensorDesc const& tensor = tensors[position].desc;
    DataType const x_type = tensors[0].desc.type;  // tensors up to `position` are filled in
    return tensor.format == TensorFormat::kLINEAR && accepts(op_, x_type) &&
           accepts(op_, position, tensor.type, x_type);
}

void LslaPlugin::check_tensor(int32_t position, PluginTensorDesc const& tensor, DataType x_type) const {
    bool const right =
        tensor.format == TensorFormat::kLINEAR && accepts(op_, x_type) && accepts(op_, position, tensor.type, x_type);
    if (!right) {
        throw Refusal(std::string(op_.tensor(position).name) + " is " + name_of(tensor.type) +
                          (tensor.format == TensorFormat::kLINEAR ? "" : " in a format other than linear") +
                          " while x is " + name_of(x_type),
                      op_.name, "build a strongly typed network from a graph that 'fuse' wrote");
    }
}

int32_t LslaPlugin::configurePlugin(DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                    DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept {
    return guarded(kFailed, [&] {
        require_counts(op_, input_count, output_count);
        auto const tensor = [&](int32_t position) -> DynamicPluginTensorDesc const& {
            return position < input_count ? inputs[position] : outputs[0];
        };
        Settings found = settings_;
        found.head_width = Settings::kUnknown;
        for (int32_t position = 0; position < op_.tensor_count(); ++position) {
            check_tensor(position, tensor(position).desc, inputs[0].desc.type);
        }
        Element element{};
        element_of(inputs[0].desc.type, element);
        found.element = static_cast<int32_t>(element);
        for (Profile const& profile : kProfiles) {
            TensorShapes shapes{};
            for (int32_t position = 0; position < op_.tensor_count(); ++position) {
                shapes[position] = &profile.dims(tensor(position));
            }
            int32_t const head_width = check_shapes(op_, found, shapes, profile.moment);
            if (head_width == Settings::kUnknown) {
                continue;
            }
            if (found.head_width != Settings::kUnknown && found.head_width != head_width) {
                throw Refusal("the number of channels changes within the profile", op_.name,
                              "leave only batch, height and width dynamic");
            }
            found.head_width = head_width;
        }
        if (found.complete()) {
            require_variant(op_, found);
        }
        settings_ = found;
        kernel_.store(nullptr, std::memory_order_release);
        return kDone;
    });
}

size_t LslaPlugin::getWorkspaceSize(DynamicPluginTensorDesc const* /*inputs*/, int32_t /*input_count*/,
                                    DynamicPluginTensorDesc const* /*outputs*/,
                                    int32_t /*output_count*/) const noexcept {
    return 0;  // everything is held in registers and shared memory
}

nvinfer1::IPluginV3* LslaPlugin::attachToContext(nvinfer1::IPluginResourceContext* /*context*/) noexcept {
    return guarded<nvinfer1::IPluginV3*>(nullptr, [this]() -> nvinfer1::IPluginV3* {
        // Load first, clone then: a failure leaves nothing to clean up.
        driver();
        LoadedKernel const* const kernel = settings_.complete() ? &loaded_kernel(op_, settings_) : nullptr;
        auto* const attached = new LslaPlugin(op_, settings_);
        attached->kernel_.store(kernel, std::memory_order_release);
        return attached;
    });
}

int32_t LslaPlugin::onShapeChange(PluginTensorDesc const* inputs, int32_t input_count, PluginTensorDesc const* outputs,
                                  int32_t output_count) noexcept {
    return guarded(kFailed, [&] {
        require_counts(op_, input_count, output_count);
        TensorShapes shapes{};
        for (int32_t position = 0; position < op_.tensor_count(); ++position) {
            PluginTensorDesc const& tensor = position < input_count ? inputs[position] : outputs[0];
            check_tensor(position, tensor, inputs[0].type);
            shapes[position] = &tensor.dims;
        }
        require_known(op_, shapes, "at run time");
        Settings found = settings_;
        found.head_width = check_shapes(op_, settings_, shapes, "at run time");
        Element element{};
        element_of(inputs[0].type, element);
        found.element = static_cast<int32_t>(element);
        bool const same = found.element == settings_.element && found.head_width == settings_.head_width;
        if (settings_.complete() && !same) {
            throw Refusal("x has another type or head width than the engine was built for",
                          std::string(op_.name) + ", " + variant_name(op_, settings_), "build the engine again");
        }
        require_variant(op_, found);
        settings_ = found;
        LoadedKernel const& kernel = kernel_here();
        plan_launch(op_, settings_, *kernel.variant, inputs[0].dims, kernel.multiprocessors);  // refuses what overflows
        return kDone;
    });
}

LoadedKernel const& LslaPlugin::kernel_here() {
    LoadedKernel const* kernel = kernel_.load(std::memory_order_acquire);
    if (kernel == nullptr || !(kernel->context == current_context(driver()))) {
        kernel = &loaded_kernel(op_, settings_);
        kernel_.store(kernel, std::memory_order_release);
    }
    return *kernel;
}

int32_t LslaPlugin::enqueue(PluginTensorDesc const* input_descriptions, PluginTensorDesc const* /*output_descriptions*/,
                            void const* const* inputs, void* const* outputs, void* /*workspace*/,
                            cudaStream_t stream) noexcept {
    return guarded(kFailed, [&] {
        PluginTensorDesc const& x = input_descriptions[0];
        if (!settings_.complete() || x.type != data_type_of(static_cast<Element>(settings_.element))) {
            throw Refusal("the plugin is not prepared for x's type and shape", op_.name,
                          "call onShapeChange before enqueue");
        }
        launch(x, inputs, outputs[0], stream);
        return kDone;
    });
}

// Runs in every inference and inside CUDA graph capture: no allocation, no synchronisation, and no lock while the
// context is the one that the kernel was loaded in.
void LslaPlugin::launch(PluginTensorDesc const& x, void const* const* inputs, void* output, cudaStream_t stream) {
    Driver const& cuda = driver();
    LoadedKernel const& kernel = kernel_here();
    Variant const& variant = *kernel.variant;
    Launch plan = plan_launch(op_, settings_, variant, x.dims, kernel.multiprocessors);
    if (plan.num_windows == 0) {
        return;  // an empty batch; a grid of 0 would be an error
    }

    // Inputs, y, [epsilon], five integers, and the two scratch pointers that Triton's compiler adds (unused, null).
    void const* tensors[Operator::kMaxInputs + 1];
    void* scratch[2] = {nullptr, nullptr};
    float epsilon = settings_.epsilon;
    void* parameters[Operator::kMaxInputs + 1 + 1 + 5 + 2];
    int32_t count = 0;
    for (int32_t position = 0; position < op_.tensor_count(); ++position) {
        void const* const address = position < op_.input_count ? inputs[position] : output;
        if (address == nullptr || reinterpret_cast<std::uintptr_t>(address) % kAlignment != 0) {
            throw Refusal(std::string(op_.tensor(position).name) + " is not at an address that 16 divides", op_.name,
                          "allocate tensors with cudaMalloc, and do not offset them");
        }
        tensors[position] = address;
        parameters[count++] = &tensors[position];
    }
    if (op_.has_epsilon) {
        parameters[count++] = &epsilon;
    }
    for (int32_t* const number :
         {&plan.num_windows, &plan.windows_down, &plan.windows_across, &plan.heads, &plan.per_program}) {
        parameters[count++] = number;
    }
    for (void*& pointer : scratch) {
        parameters[count++] = &pointer;
    }
    CUresult const result = cuda.launch_kernel(kernel.function, plan.grid, 1, 1, variant.threads, 1, 1,
                                               variant.shared_bytes, stream, parameters, nullptr);
    if (result != CUDA_SUCCESS) {  // asked first, so that no text is made when all is well
        cuda.check(result, "the kernel cannot be launched", variant.name, "see the driver's error code");
    }
}

nvinfer1::PluginFieldCollection const* LslaPlugin::getFieldsToSerialize() noexcept { return serialized_.collection(); }

}  // namespace edge_lsla
