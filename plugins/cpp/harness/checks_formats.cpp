// The format table: every position, type and format, against the operators' contract.
#include <string>
#include <vector>

#include "checks.h"
#include "problem.h"

namespace edge_lsla::harness {

namespace {

using nvinfer1::DataType;
using nvinfer1::TensorFormat;

// One beyond what any header of 10.3 to 11.1 names; values that a header lacks must be refused like the others.
constexpr int32_t kTypes = 13;
constexpr int32_t kFormats = 14;

bool allowed(std::string const& op, int32_t position, DataType type, DataType x_type) {
    bool const quantised = op == "QLslaAttention";
    bool const x_allowed =
        quantised ? x_type == DataType::kINT8 : x_type == DataType::kHALF || x_type == DataType::kFLOAT;
    // QLslaAttention: x, query and y (position 9) are int8, the seven tables and scales between them float32.
    bool const is_float = quantised && position >= 2 && position <= 8;
    return x_allowed && type == (is_float ? DataType::kFLOAT : x_type);
}

}  // namespace

void check_formats(Check& check, Library const& library) {
    for (char const* const op : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        Problem const problem(op, std::string(op) == "QLslaAttention" ? "int8" : "fp16", 7, 32, 3);
        Plugin const plugin = make_plugin(library, problem);
        int const count = problem.inputs() + 1;
        int accepted = 0;
        std::string const messages = messages_of([&] {
            for (int32_t x = 0; x < kTypes; ++x) {
                auto const x_type = static_cast<DataType>(x);
                for (int32_t position = 0; position < count; ++position) {
                    for (int32_t t = 0; t < kTypes; ++t) {
                        for (int32_t f = 0; f < kFormats; ++f) {
                            auto const type = static_cast<DataType>(t);
                            auto const format = static_cast<TensorFormat>(f);
                            if (position == 0 && type != x_type) {
                                continue;  // position 0 is x itself
                            }
                            std::vector<nvinfer1::DynamicPluginTensorDesc> tensors = problem.dynamic();
                            tensors[0].desc.type = x_type;
                            tensors[position].desc.type = type;
                            tensors[position].desc.format = format;
                            bool const answer =
                                plugin.build().supportsFormatCombination(position, tensors.data(), problem.inputs(), 1);
                            bool const wanted = format == TensorFormat::kLINEAR && allowed(op, position, type, x_type);
                            accepted += answer ? 1 : 0;
                            check.expect(answer == wanted, std::string(op) + ": position " + std::to_string(position) +
                                                               ", type " + std::to_string(t) + ", format " +
                                                               std::to_string(f) + ", x " + std::to_string(x) +
                                                               (wanted ? " is supported" : " is not supported"));
                        }
                    }
                }
            }
        });
        check.expect(messages.empty(), std::string(op) + ": silent while TensorRT tries formats");
        int const types_of_x = std::string(op) == "QLslaAttention" ? 1 : 2;
        check.expect(accepted == types_of_x * count, std::string(op) + ": one format a position and type of x");
        std::vector<nvinfer1::DynamicPluginTensorDesc> const tensors = problem.dynamic();
        check.expect(!plugin.build().supportsFormatCombination(-1, tensors.data(), problem.inputs(), 1) &&
                         !plugin.build().supportsFormatCombination(count, tensors.data(), problem.inputs(), 1) &&
                         !plugin.build().supportsFormatCombination(0, tensors.data(), problem.inputs() - 1, 1) &&
                         !plugin.build().supportsFormatCombination(0, tensors.data(), problem.inputs(), 2),
                     std::string(op) + ": positions and counts that do not exist are not supported");
    }
}

}  // namespace edge_lsla::harness
