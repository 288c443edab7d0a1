#include "fields.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>

#include "refusal.h"

namespace edge_lsla {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorRTPhase;

namespace {

std::string const kRepair = "export the graph with 'fuse', or set the attribute on the node";
std::string const kRebuild = "build the engine again with this library";

[[noreturn]] void refuse(Operator const& op, std::string const& field, std::string const& wrong) {
    throw Refusal("field " + field + " " + wrong, op.name, kRepair);
}

// TensorRT gives no promise about the alignment of field data, and none is needed for a copy.
template <typename Value>
Value load(PluginField const& field) noexcept {
    Value value;
    std::memcpy(&value, field.data, sizeof value);
    return value;
}

void require_one_value(Operator const& op, PluginField const& field) {
    if (field.length != 1) {
        refuse(op, field.name, "has " + std::to_string(field.length) + " values instead of 1");
    }
    if (field.data == nullptr) {
        refuse(op, field.name, "has no data");
    }
}

// The ONNX parser passes integers as INT32, other callers as INT64.
int32_t read_integer(Operator const& op, PluginField const& field, int32_t least, int32_t most) {
    if (field.type != PluginFieldType::kINT32 && field.type != PluginFieldType::kINT64) {
        refuse(op, field.name, "is not an integer");
    }
    require_one_value(op, field);
    int64_t const value = field.type == PluginFieldType::kINT32 ? load<int32_t>(field) : load<int64_t>(field);
    if (value < least || value > most) {
        refuse(op, field.name,
               "is " + std::to_string(value) + ", not " + std::to_string(least) + " to " + std::to_string(most));
    }
    return static_cast<int32_t>(value);
}

float read_epsilon(Operator const& op, PluginField const& field) {
    if (field.type != PluginFieldType::kFLOAT32 && field.type != PluginFieldType::kFLOAT64) {
        refuse(op, field.name, "is not a floating-point number");
    }
    require_one_value(op, field);
    double const wide = field.type == PluginFieldType::kFLOAT32 ? load<float>(field) : load<double>(field);
    // Compared as a double: a number outside float's range must not be converted. Written so that NaN is refused; a
    // positive double may still round to 0.
    bool const in_range = wide > 0.0 && wide <= 1.0;
    float const value = in_range ? static_cast<float>(wide) : 0.0F;
    if (!(value > 0.0F)) {
        refuse(op, field.name, "is " + std::to_string(wide) + ", not above 0 and at most 1");
    }
    return value;
}

void require_text(Operator const& op, PluginField const& field, std::string_view expected) {
    if (field.type != PluginFieldType::kCHAR) {
        refuse(op, field.name, "is not text");
    }
    if (field.length < 0 || (field.length > 0 && field.data == nullptr)) {
        refuse(op, field.name, "has no data");
    }
    auto text =
        field.length == 0 ? std::string_view() : std::string_view(static_cast<char const*>(field.data), field.length);
    text = text.substr(0, text.find('\0'));  // some callers count the terminator in the length, some do not
    if (text != expected) {
        refuse(op, field.name, "is \"" + std::string(text) + "\", not \"" + std::string(expected) + "\"");
    }
}

// Element and head width are written as kUnknown by a plugin that was never configured.
int32_t read_element(Operator const& op, PluginField const& field) {
    int32_t const value = read_integer(op, field, Settings::kUnknown, static_cast<int32_t>(Element::Int8));
    if (value != Settings::kUnknown && !accepts(op, data_type_of(static_cast<Element>(value)))) {
        throw Refusal("field element is " + std::to_string(value) + ", a type it cannot have", op.name, kRebuild);
    }
    return value;
}

int32_t read_head_width(Operator const& op, PluginField const& field) {
    int32_t const value = read_integer(op, field, Settings::kUnknown, kHeadWidths.back());
    if (value != Settings::kUnknown && std::find(kHeadWidths.begin(), kHeadWidths.end(), value) == kHeadWidths.end()) {
        throw Refusal("field head_width is " + std::to_string(value) + ", not 16, 32 or 64", op.name, kRebuild);
    }
    return value;
}

// Each field at most once: with two of a name, which one counts would be an accident.
struct Seen {
    bool num_heads = false, window = false, epsilon = false, element = false, head_width = false;
    bool plugin_version = false, plugin_namespace = false;
};

void mark(Operator const& op, PluginField const& field, bool& seen) {
    if (seen) {
        refuse(op, field.name, "is given twice");
    }
    seen = true;
}

void read_field(Operator const& op, PluginField const& field, Settings& settings, Seen& seen) {
    std::string_view const name = field.name;
    if (name == "num_heads") {
        mark(op, field, seen.num_heads);
        settings.num_heads = read_integer(op, field, 1, kMaxHeads);
    } else if (name == "window") {
        mark(op, field, seen.window);
        settings.window = read_integer(op, field, kMinWindow, kMaxWindow);
    } else if (name == "epsilon" && op.has_epsilon) {
        mark(op, field, seen.epsilon);
        settings.epsilon = read_epsilon(op, field);
    } else if (name == "element") {
        mark(op, field, seen.element);
        settings.element = read_element(op, field);
    } else if (name == "head_width") {
        mark(op, field, seen.head_width);
        settings.head_width = read_head_width(op, field);
    } else if (name == "plugin_version") {
        mark(op, field, seen.plugin_version);
        require_text(op, field, kPluginVersion);
    } else if (name == "plugin_namespace") {
        mark(op, field, seen.plugin_namespace);
        require_text(op, field, kPluginNamespace);
    } else {
        // A field of a later version may change the numbers; ignoring it would be silent.
        throw Refusal("field " + std::string(name) + " is not known to this version of the plugin", op.name,
                      "correct its name, or install the library that the graph or engine was made for");
    }
}

}  // namespace

Settings read_fields(Operator const& op, PluginFieldCollection const* fields, TensorRTPhase phase) {
    if (fields == nullptr || fields->nbFields < 0 || (fields->nbFields > 0 && fields->fields == nullptr)) {
        throw Refusal("the list of fields is not valid", op.name, "pass a PluginFieldCollection with its fields");
    }
    Settings settings;
    Seen seen;
    for (int32_t index = 0; index < fields->nbFields; ++index) {
        PluginField const& field = fields->fields[index];
        if (field.name == nullptr) {
            throw Refusal("field " + std::to_string(index) + " has no name", op.name, "name every field");
        }
        read_field(op, field, settings, seen);
    }
    if (!seen.num_heads) {
        refuse(op, "num_heads", "is missing");
    }
    if (!seen.window) {
        refuse(op, "window", "is missing");
    }
    if (op.has_epsilon && !seen.epsilon) {
        refuse(op, "epsilon", "is missing");
    }
    if (phase == TensorRTPhase::kRUNTIME && !(seen.element && seen.head_width)) {
        throw Refusal("the engine lacks the fields element and head_width", op.name, kRebuild);
    }
    return settings;
}

FieldNames::FieldNames(Operator const& op) noexcept {
    int32_t count = 0;
    fields_[count++] = PluginField("num_heads", nullptr, PluginFieldType::kINT32, 1);
    fields_[count++] = PluginField("window", nullptr, PluginFieldType::kINT32, 1);
    if (op.has_epsilon) {
        fields_[count++] = PluginField("epsilon", nullptr, PluginFieldType::kFLOAT32, 1);
    }
    fields_[count++] = PluginField("plugin_version", nullptr, PluginFieldType::kCHAR, 1);
    fields_[count++] = PluginField("plugin_namespace", nullptr, PluginFieldType::kCHAR, 1);
    collection_ = {count, fields_.data()};
}

SerializedFields::SerializedFields(Operator const& op, Settings const& settings) noexcept {
    int32_t count = 0;
    fields_[count++] = PluginField("num_heads", &settings.num_heads, PluginFieldType::kINT32, 1);
    fields_[count++] = PluginField("window", &settings.window, PluginFieldType::kINT32, 1);
    if (op.has_epsilon) {
        fields_[count++] = PluginField("epsilon", &settings.epsilon, PluginFieldType::kFLOAT32, 1);
    }
    fields_[count++] = PluginField("element", &settings.element, PluginFieldType::kINT32, 1);
    fields_[count++] = PluginField("head_width", &settings.head_width, PluginFieldType::kINT32, 1);
    collection_ = {count, fields_.data()};
}

}  // namespace edge_lsla
