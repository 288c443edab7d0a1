// The two functions that TensorRT's load_library looks for; exports.map lets nothing else out.
#include <NvInferRuntime.h>

#include <array>

#include "creator.h"
#include "operators.h"
#include "refusal.h"

namespace edge_lsla {

namespace {

using nvinfer1::IPluginCreatorInterface;
using Creators = std::array<IPluginCreatorInterface*, kOperatorCount>;

Creators make_creators() {
    Creators creators{};
    for (size_t index = 0; index < creators.size(); ++index) {
        creators[index] = new LslaPluginCreator(kOperators[index]);
    }
    return creators;
}

}  // namespace

}  // namespace edge_lsla

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(
    int32_t& count) {
    using namespace edge_lsla;
    count = 0;
    return guarded<IPluginCreatorInterface* const*>(nullptr, [&count] {
        // Never destroyed: TensorRT's registry may still ask a creator for its name while the process ends.
        static Creators const creators = make_creators();
        count = kOperatorCount;
        return creators.data();
    });
}

// Required by load_library, unused: see report() in refusal.h.
extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* /*finder*/) {}
