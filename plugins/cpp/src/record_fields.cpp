#include "record_fields.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "refusal.h"

namespace edge_lsla {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

namespace {

constexpr int32_t kLongest = 64;

std::string quoted(char const* text, size_t length) {
    std::string json = "\"";
    for (size_t index = 0; index < length; ++index) {
        auto const byte = static_cast<unsigned char>(text[index]);
        if (byte < 0x20 || byte >= 0x7f || byte == '"' || byte == '\\') {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", byte);
            json += escape;
        } else {
            json += text[index];
        }
    }
    return json + "\"";
}

std::string quoted(char const* text) { return text == nullptr ? "null" : quoted(text, std::strlen(text)); }

template <typename Value>
std::string numbers(PluginField const& field) {
    std::string json = "[";
    for (int32_t index = 0; index < field.length; ++index) {
        Value value;
        std::memcpy(&value, static_cast<char const*>(field.data) + index * sizeof value, sizeof value);
        char text[40];
        std::snprintf(text, sizeof text, "%.17g", static_cast<double>(value));
        bool const finite = std::isfinite(static_cast<double>(value));  // JSON has no word for the others
        json += std::string(index == 0 ? "" : ", ") + (finite ? text : "null");
    }
    return json + "]";
}

std::string value_of(PluginField const& field) {
    // A length that no field of ours has is not believed: the harness passes such on purpose.
    if (field.length < 0 || field.length > kLongest || (field.data == nullptr && field.length > 0)) {
        return "null";
    }
    switch (field.type) {
        case PluginFieldType::kCHAR:
            return quoted(static_cast<char const*>(field.data), field.length);
        case PluginFieldType::kINT32:
            return numbers<int32_t>(field);
        case PluginFieldType::kINT64:
            return numbers<int64_t>(field);
        case PluginFieldType::kFLOAT32:
            return numbers<float>(field);
        case PluginFieldType::kFLOAT64:
            return numbers<double>(field);
        default:
            return "null";
    }
}

}  // namespace

void record_fields(Operator const& op, char const* name, nvinfer1::PluginFieldCollection const* fields,
                   nvinfer1::TensorRTPhase phase) noexcept {
    guarded(kFailed, [&] {
        char const* const path = std::getenv("EDGE_LSLA_RECORD_FIELDS");
        if (path == nullptr) {
            return kDone;
        }
        std::string json = "{\"operator\": " + quoted(op.name) + ", \"version\": " + quoted(kPluginVersion) +
                           ", \"namespace\": " + quoted(kPluginNamespace) + ", \"name\": " + quoted(name) +
                           ", \"phase\": " + std::to_string(static_cast<int>(phase)) + ", \"fields\": [";
        int32_t const count = fields == nullptr || fields->fields == nullptr ? 0 : fields->nbFields;
        for (int32_t index = 0; index < count; ++index) {
            PluginField const& field = fields->fields[index];
            json += std::string(index == 0 ? "" : ", ") + "{\"name\": " + quoted(field.name) +
                    ", \"type\": " + std::to_string(static_cast<int>(field.type)) +
                    ", \"length\": " + std::to_string(field.length) + ", \"value\": " + value_of(field) + "}";
        }
        std::ofstream file(path, std::ios::app);
        file << json << "]}\n";
        if (!file.flush()) {
            throw Refusal("the fields cannot be recorded", path, "make the file writable");
        }
        return kDone;
    });
}

}  // namespace edge_lsla
