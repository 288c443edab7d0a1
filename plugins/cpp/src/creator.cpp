#include "creator.h"

#include "plugin.h"
#include "refusal.h"

#ifdef EDGE_LSLA_RECORD_FIELDS
#include "record_fields.h"
#endif

namespace edge_lsla {

nvinfer1::IPluginV3* LslaPluginCreator::createPlugin([[maybe_unused]] nvinfer1::AsciiChar const* name,
                                                     nvinfer1::PluginFieldCollection const* fields,
                                                     nvinfer1::TensorRTPhase phase) noexcept {
#ifdef EDGE_LSLA_RECORD_FIELDS
    record_fields(op_, name, fields, phase);
#endif
    return guarded<nvinfer1::IPluginV3*>(nullptr, [&] { return new LslaPlugin(op_, read_fields(op_, fields, phase)); });
}

}  // namespace edge_lsla
