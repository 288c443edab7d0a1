// What a plugin keeps: serialised fields, clones, and the resources it asks for.
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checks.h"
#include "embedded.h"
#include "problem.h"

namespace edge_lsla::harness {

namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorRTPhase;

using Values = std::map<std::string, std::vector<unsigned char>>;

Values values_of(Check& check, Plugin const& plugin) {
    Values values;
    PluginFieldCollection const* const fields = plugin.runtime().getFieldsToSerialize();
    for (int32_t index = 0; index < fields->nbFields; ++index) {
        PluginField const& field = fields->fields[index];
        check.expect((field.type == PluginFieldType::kINT32 || field.type == PluginFieldType::kFLOAT32) &&
                         field.length == 1 && field.data != nullptr,
                     std::string(field.name) + " is one number");
        auto const* const bytes = static_cast<unsigned char const*>(field.data);
        values[field.name].assign(bytes, bytes + 4);
    }
    return values;
}

int32_t integer(Values const& values, char const* name) {
    int32_t value = 0;
    std::memcpy(&value, values.at(name).data(), sizeof value);
    return value;
}

// What TensorRT does with an engine: copies the fields, and gives the copies to a creator in the runtime phase.
Plugin recreate(Library const& library, Plugin const& plugin) {
    PluginFieldCollection const* const written = plugin.runtime().getFieldsToSerialize();
    std::vector<std::vector<char>> storage;
    std::vector<std::string> names;
    for (int32_t index = 0; index < written->nbFields; ++index) {
        auto const* const bytes = static_cast<char const*>(written->fields[index].data);
        storage.emplace_back(bytes, bytes + 4);
        names.emplace_back(written->fields[index].name);
    }
    Fields fields;
    for (size_t index = 0; index < storage.size(); ++index) {
        fields.raw(names[index].c_str(), storage[index].data(), written->fields[index].type, 1);
    }
    return Plugin(library.creator(plugin.core().getPluginName())
                      .createPlugin("engine", fields.collection(), TensorRTPhase::kRUNTIME));
}

}  // namespace

void check_serialization(Check& check, Library const& library) {
    for (char const* const op : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        if (first_embedded(op) == nullptr) {
            check.skip(std::string("no kernel of ") + op + " is embedded");
            continue;
        }
        Problem const problem = embedded_problem(op);
        std::string const name = op;
        Plugin const plugin = make_plugin(library, problem);
        Values const before = values_of(check, plugin);
        check.expect(integer(before, "element") == -1 && integer(before, "head_width") == -1,
                     name + ": type and head width are unknown before configurePlugin");
        check.expect(values_of(check, recreate(library, plugin)) == before,
                     name + ": unconfigured, the same after a trip");
        check.expect(problem.configure(plugin) == 0, name + " is configured");
        Values const after = values_of(check, plugin);
        int const element = problem.dtype == "fp16"   ? 0
                            : problem.dtype == "fp32" ? 1
                                                      : 2;  // engines hold these numbers
        check.expect(integer(after, "num_heads") == problem.heads && integer(after, "window") == problem.window &&
                         integer(after, "head_width") == problem.head_width && integer(after, "element") == element,
                     name + ": an engine keeps heads, window, head width and type");
        check.expect((after.count("epsilon") == 1) == (name == "LslaResidualAttention") &&
                         after.size() == (name == "LslaResidualAttention" ? 5U : 4U),
                     name + ": and epsilon where there is one, and no more");
        Plugin const second = recreate(library, plugin);
        check.expect(values_of(check, second) == after, name + ": the same after a trip");
        check.expect(values_of(check, recreate(library, second)) == after, name + ": the same after two");
    }
}

void check_clones(Check& check, Library const& library) {
    for (char const* const op : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        if (first_embedded(op) == nullptr) {
            check.skip(std::string("no kernel of ") + op + " is embedded");
            continue;
        }
        Problem const problem = embedded_problem(op);
        std::string const name = op;
        auto original = std::make_unique<Plugin>(make_plugin(library, problem));
        Plugin const early(original->whole().clone());
        check.expect(problem.configure(*original) == 0, name + " is configured");
        Plugin const late(original->whole().clone());
        Values const values = values_of(check, *original);
        check.expect(values_of(check, late) == values, name + ": a clone has the same fields");
        check.expect(values_of(check, early) != values, name + ": configuring the original leaves a clone alone");
        check.expect(original->runtime().getFieldsToSerialize()->fields[0].data !=
                         late.runtime().getFieldsToSerialize()->fields[0].data,
                     name + ": a clone's fields are its own");
        original.reset();
        check.expect(values_of(check, late) == values, name + ": a clone outlives the original");
        check.expect(name == late.core().getPluginName(), name + ": a clone is of the same operator");
        check.expect(problem.configure(early) == 0 && values_of(check, early) == values,
                     name + ": a clone can be configured like the original");
    }
}

void check_resources(Check& check, Library const& library) {
    for (char const* const op : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        Problem const problem(op, std::string(op) == "QLslaAttention" ? "int8" : "fp16", 7, 32, 3);
        Plugin const plugin = make_plugin(library, problem);
        std::vector<nvinfer1::DynamicPluginTensorDesc> const all = problem.dynamic();
        std::string const name = op;
        check.expect(plugin.build().getWorkspaceSize(all.data(), problem.inputs(), &all.back(), 1) == 0,
                     name + " needs no workspace");
        check.expect(plugin.build().getNbTactics() == 0, name + " has no tactics of its own");
        // Version 1 of the build interface has no getAliasedInput: y is never written over an input.
        nvinfer1::InterfaceInfo const info = plugin.build().getInterfaceInfo();
        check.expect(std::string(info.kind) == "PLUGIN_V3ONE_BUILD" && info.major == 1 && info.minor == 0,
                     name + " aliases no input");
    }
}

}  // namespace edge_lsla::harness
