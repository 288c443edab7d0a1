// Which operators the library announces, and under which names, versions and fields.
#include <string>
#include <vector>

#include "checks.h"
#include "problem.h"

namespace edge_lsla::harness {

namespace {

using nvinfer1::PluginFieldType;

struct Announced {
    char const* name;
    std::vector<std::pair<std::string, PluginFieldType>> fields;
};

std::vector<Announced> const kExpected{
    {"LslaAttention",
     {{"num_heads", PluginFieldType::kINT32},
      {"window", PluginFieldType::kINT32},
      {"plugin_version", PluginFieldType::kCHAR},
      {"plugin_namespace", PluginFieldType::kCHAR}}},
    {"LslaResidualAttention",
     {{"num_heads", PluginFieldType::kINT32},
      {"window", PluginFieldType::kINT32},
      {"epsilon", PluginFieldType::kFLOAT32},
      {"plugin_version", PluginFieldType::kCHAR},
      {"plugin_namespace", PluginFieldType::kCHAR}}},
    {"QLslaAttention",
     {{"num_heads", PluginFieldType::kINT32},
      {"window", PluginFieldType::kINT32},
      {"plugin_version", PluginFieldType::kCHAR},
      {"plugin_namespace", PluginFieldType::kCHAR}}},
};

void check_creator(Check& check, Library const& library, Announced const& expected) {
    nvinfer1::IPluginCreatorV3One& creator = library.creator(expected.name);
    std::string const name = expected.name;
    check.expect(std::string(creator.getPluginVersion()) == "1", name + " has version 1");
    check.expect(std::string(creator.getPluginNamespace()).empty(), name + " has no namespace");
    nvinfer1::PluginFieldCollection const* const fields = creator.getFieldNames();
    check.expect(fields != nullptr && fields == creator.getFieldNames(), name + " always gives the same field names");
    check.expect(fields->nbFields == static_cast<int32_t>(expected.fields.size()), name + " has its fields, no more");
    for (size_t index = 0; index < expected.fields.size(); ++index) {
        check.expect(fields->fields[index].name == expected.fields[index].first &&
                         fields->fields[index].type == expected.fields[index].second,
                     name + " has field " + expected.fields[index].first + " of its type");
    }
}

}  // namespace

void check_creators(Check& check, Library const& library) {
    check.expect(library.creators().size() == kExpected.size(), "the library has three operators");
    for (Announced const& expected : kExpected) {
        check_creator(check, library, expected);
        std::string const dtype = std::string(expected.name) == "QLslaAttention" ? "int8" : "fp16";
        Plugin const plugin = make_plugin(library, Problem(expected.name, dtype, 7, 32, 3));
        std::string const name = expected.name;
        check.expect(name == plugin.core().getPluginName(), name + ": the plugin has the creator's name");
        check.expect(std::string(plugin.core().getPluginVersion()) == "1", name + ": the plugin has version 1");
        check.expect(std::string(plugin.core().getPluginNamespace()).empty(), name + ": the plugin has no namespace");
        // Value 3 is no capability today; a later TensorRT may ask for one.
        check.expect(plugin.whole().getCapabilityInterface(static_cast<nvinfer1::PluginCapabilityType>(3)) == nullptr,
                     name + ": an unknown capability is null");
    }
}

}  // namespace edge_lsla::harness
