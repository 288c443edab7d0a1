// What a creator makes of good, bad and hostile fields.
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "checks.h"
#include "problem.h"

namespace edge_lsla::harness {

namespace {

using nvinfer1::IPluginCreatorV3One;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorRTPhase;

bool creates(IPluginCreatorV3One& creator, PluginFieldCollection const* fields, TensorRTPhase phase) {
    return std::unique_ptr<nvinfer1::IPluginV3>(creator.createPlugin("harness", fields, phase)) != nullptr;
}

// The creator of one operator, with words for expectations.
class Subject {
  public:
    Subject(Check& check, Library const& library, std::string name)
        : check_(check), name_(std::move(name)), creator_(library.creator(name_)) {}

    bool has_epsilon() const { return name_ == "LslaResidualAttention"; }

    void accepts(std::string const& what, std::function<void(Fields&)> const& write,
                 TensorRTPhase phase = TensorRTPhase::kBUILD) const {
        Fields fields;
        write(fields);
        expect_accepted(check_, name_ + ", " + what, [&] { return creates(creator_, fields.collection(), phase); });
    }

    void refuses(std::string const& what, std::string const& part, std::function<void(Fields&)> const& write,
                 TensorRTPhase phase = TensorRTPhase::kBUILD) const {
        Fields fields;
        write(fields);
        refuses(what, part, fields.collection(), phase);
    }

    void refuses(std::string const& what, std::string const& part, PluginFieldCollection const* fields,
                 TensorRTPhase phase = TensorRTPhase::kBUILD) const {
        expect_refused(check_, name_ + ", " + what, part, [&] { return !creates(creator_, fields, phase); });
    }

    // Everything but the field under test.
    void write_others(Fields& fields, std::string const& without) const {
        if (without != "num_heads") {
            fields.integer("num_heads", 3);
        }
        if (without != "window") {
            fields.integer("window", 7);
        }
        if (has_epsilon() && without != "epsilon") {
            fields.real("epsilon", 1e-5F);
        }
    }

  private:
    Check& check_;
    std::string name_;
    IPluginCreatorV3One& creator_;
};

void check_integer(Subject const& subject, char const* name, int32_t least, int32_t most) {
    std::string const field = name;
    auto const with = [&](std::function<void(Fields&)> const& write) {
        return [&subject, field, write](Fields& fields) {
            subject.write_others(fields, field);
            write(fields);
        };
    };
    for (int32_t const value : {least, most}) {
        subject.accepts(field + " as int32", with([=](Fields& fields) { fields.integer(name, value); }));
        subject.accepts(field + " as int64", with([=](Fields& fields) { fields.long_integer(name, value); }));
    }
    subject.refuses(field + " missing", field + " is missing", with([](Fields&) {}));
    for (int32_t const value : {least - 1, most + 1, -least, std::numeric_limits<int32_t>::min()}) {
        subject.refuses(field + " out of range", field + " is " + std::to_string(value),
                        with([=](Fields& fields) { fields.integer(name, value); }));
    }
    // In range once cut to 32 bits.
    subject.refuses(field + " beyond int32", field + " is 4294967303",
                    with([=](Fields& fields) { fields.long_integer(name, (int64_t{1} << 32) + 7); }));
    subject.refuses(field + " as a float", "is not an integer", with([=](Fields& fields) { fields.real(name, 7); }));
    static int32_t const values[] = {7, 7};
    for (int32_t const length : {0, 2, -1, std::numeric_limits<int32_t>::max()}) {
        subject.refuses(field + " of a wrong length", std::to_string(length) + " values",
                        with([=](Fields& fields) { fields.raw(name, values, PluginFieldType::kINT32, length); }));
    }
    subject.refuses(field + " without data", "has no data",
                    with([=](Fields& fields) { fields.raw(name, nullptr, PluginFieldType::kINT32, 1); }));
    subject.refuses(field + " twice", "is given twice",
                    with([=](Fields& fields) { fields.integer(name, 7).integer(name, 7); }));
}

void check_epsilon(Subject const& subject) {
    auto const with = [&](std::function<void(Fields&)> const& write) {
        return [&subject, write](Fields& fields) {
            subject.write_others(fields, "epsilon");
            write(fields);
        };
    };
    if (!subject.has_epsilon()) {
        subject.refuses("epsilon on an operator without", "epsilon is not known",
                        with([](Fields& fields) { fields.real("epsilon", 1e-5F); }));
        return;
    }
    subject.accepts("epsilon as float", with([](Fields& fields) { fields.real("epsilon", 1e-6F); }));
    subject.accepts("epsilon as double", with([](Fields& fields) { fields.double_real("epsilon", 1e-6); }));
    subject.refuses("epsilon missing", "epsilon is missing", with([](Fields&) {}));
    subject.refuses("epsilon as an integer", "not a floating-point",
                    with([](Fields& fields) { fields.integer("epsilon", 1); }));
    double const infinity = std::numeric_limits<double>::infinity();
    // The last one is positive, and rounds to 0 as a float.
    for (double const value : {0.0, -1e-5, 1.5, 1e300, infinity, -infinity, std::nan(""), 1e-300}) {
        subject.refuses("epsilon out of range", "epsilon is ",
                        with([=](Fields& fields) { fields.double_real("epsilon", value); }));
    }
    static float const values[] = {1e-5F, 1e-5F};
    subject.refuses("epsilon of two values", "2 values",
                    with([](Fields& fields) { fields.raw("epsilon", values, PluginFieldType::kFLOAT32, 2); }));
    subject.refuses("epsilon without data", "has no data",
                    with([](Fields& fields) { fields.raw("epsilon", nullptr, PluginFieldType::kFLOAT32, 1); }));
    subject.refuses("epsilon twice", "is given twice",
                    with([](Fields& fields) { fields.real("epsilon", 1e-5F).real("epsilon", 1e-5F); }));
}

void check_version_and_namespace(Subject const& subject) {
    auto const with = [&](std::function<void(Fields&)> const& write) {
        return [&subject, write](Fields& fields) {
            subject.write_others(fields, "");
            write(fields);
        };
    };
    subject.accepts("version and namespace",
                    with([](Fields& fields) { fields.text("plugin_version", "1").text("plugin_namespace", ""); }));
    subject.accepts("a version with its terminator",
                    with([](Fields& fields) { fields.text("plugin_version", std::string("1\0", 2)); }));
    subject.accepts("an empty namespace without data",
                    with([](Fields& fields) { fields.raw("plugin_namespace", nullptr, PluginFieldType::kCHAR, 0); }));
    subject.refuses("another version", "plugin_version is \"2\"",
                    with([](Fields& fields) { fields.text("plugin_version", "2"); }));
    subject.refuses("another namespace", "plugin_namespace is \"theirs\"",
                    with([](Fields& fields) { fields.text("plugin_namespace", "theirs"); }));
    subject.refuses("a version that is a number", "is not text",
                    with([](Fields& fields) { fields.integer("plugin_version", 1); }));
    subject.refuses("a version without data", "has no data",
                    with([](Fields& fields) { fields.raw("plugin_version", nullptr, PluginFieldType::kCHAR, 1); }));
    subject.refuses("a version of negative length", "has no data",
                    with([](Fields& fields) { fields.raw("plugin_version", "1", PluginFieldType::kCHAR, -1); }));
}

void check_engine_fields(Subject const& subject) {
    auto const with = [&](std::function<void(Fields&)> const& write) {
        return [&subject, write](Fields& fields) {
            subject.write_others(fields, "");
            write(fields);
        };
    };
    constexpr TensorRTPhase kRuntime = TensorRTPhase::kRUNTIME;
    subject.accepts("an engine that knows nothing yet",
                    with([](Fields& fields) { fields.integer("element", -1).integer("head_width", -1); }), kRuntime);
    subject.refuses("an engine without element", "lacks the fields",
                    with([](Fields& fields) { fields.integer("head_width", 32); }), kRuntime);
    subject.refuses("an engine without head_width", "lacks the fields",
                    with([](Fields& fields) { fields.integer("element", -1); }), kRuntime);
    for (int32_t const element : {-2, 3, 1000}) {
        subject.refuses("an unknown element", "element is " + std::to_string(element),
                        with([=](Fields& fields) { fields.integer("element", element).integer("head_width", 32); }),
                        kRuntime);
    }
    for (int32_t const head_width : {-2, 0, 31, 65}) {
        subject.refuses("a wrong head width", "head_width is " + std::to_string(head_width),
                        with([=](Fields& fields) { fields.integer("element", -1).integer("head_width", head_width); }),
                        kRuntime);
    }
}

void check_collections(Subject const& subject) {
    subject.refuses("no collection", "list of fields is not valid", static_cast<PluginFieldCollection const*>(nullptr));
    PluginFieldCollection collection{};
    subject.refuses("an empty collection", "num_heads is missing", &collection);
    collection.nbFields = 2;
    subject.refuses("a collection without fields", "list of fields is not valid", &collection);
    nvinfer1::PluginField const field("window", nullptr, PluginFieldType::kINT32, 1);
    collection = {-1, &field};
    subject.refuses("a negative count", "list of fields is not valid", &collection);
    subject.refuses("a field without a name", "field 0 has no name",
                    [](Fields& fields) { fields.raw(nullptr, nullptr, PluginFieldType::kINT32, 1); });
    subject.refuses("an unknown field", "field shift is not known", [&](Fields& fields) {
        subject.write_others(fields, "");
        fields.integer("shift", 3);
    });
}

}  // namespace

void check_fields(Check& check, Library const& library) {
    for (char const* const name : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        Subject const subject(check, library, name);
        check_integer(subject, "num_heads", 1, 1024);
        check_integer(subject, "window", 2, 16);
        check_epsilon(subject);
        check_version_and_namespace(subject);
        check_engine_fields(subject);
        check_collections(subject);
    }
    // A layer without a name is legal.
    Fields fields;
    fields.integer("num_heads", 3).integer("window", 7);
    expect_accepted(check, "a layer without a name", [&] {
        nvinfer1::IPluginV3* const plugin =
            library.creator("LslaAttention").createPlugin(nullptr, fields.collection(), TensorRTPhase::kBUILD);
        return std::unique_ptr<nvinfer1::IPluginV3>(plugin) != nullptr;
    });
}

}  // namespace edge_lsla::harness
