#include "run_case.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <vector>

#include "case_file.h"
#include "gpu.h"
#include "library.h"

namespace edge_lsla::harness {

namespace {

// Poisoned space behind y: a kernel that writes beyond its end shows here.
constexpr size_t kMargin = 4096;

std::vector<char> read_file(std::string const& path, size_t bytes) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) {
        throw std::runtime_error("cannot read " + path);
    }
    auto const size = static_cast<size_t>(file.tellg());
    if (size != bytes) {
        throw std::runtime_error(path + " has " + std::to_string(size) + " bytes, its tensor " + std::to_string(bytes));
    }
    std::vector<char> content(bytes);
    file.seekg(0);
    if (!file.read(content.data(), static_cast<std::streamsize>(bytes))) {
        throw std::runtime_error("cannot read " + path);
    }
    return content;
}

void write_file(std::string const& path, char const* data, size_t bytes) {
    std::ofstream file(path, std::ios::binary);
    file.write(data, static_cast<std::streamsize>(bytes));
    if (!file.flush()) {
        throw std::runtime_error("cannot write " + path);
    }
}

void write_fields(Case const& problem, Fields& fields) {
    for (CaseField const& field : problem.fields) {
        char* end = nullptr;
        char const* const text = field.value.c_str();
        if (field.type == "int32") {
            fields.integer(field.name.c_str(), static_cast<int32_t>(std::strtol(text, &end, 10)));
        } else if (field.type == "int64") {
            fields.long_integer(field.name.c_str(), std::strtoll(text, &end, 10));
        } else if (field.type == "float32") {
            fields.real(field.name.c_str(), std::strtof(text, &end));
        } else if (field.type == "float64") {
            fields.double_real(field.name.c_str(), std::strtod(text, &end));
        } else {
            throw std::runtime_error("field " + field.name + " has the unknown type " + field.type);
        }
        if (*end != '\0') {
            throw std::runtime_error("field " + field.name + " is not a number: " + field.value);
        }
    }
}

void require(bool held, char const* what) {
    if (!held) {
        throw std::runtime_error(std::string(what) + " failed; the plugin's own message is above");
    }
}

// The plugin as an engine would hold it: built, serialised, and made again in the runtime phase.
Plugin built_plugin(Library const& library, Case const& problem) {
    nvinfer1::IPluginCreatorV3One& creator = library.creator(problem.op);
    Fields fields;
    write_fields(problem, fields);
    Plugin const built(creator.createPlugin("case", fields.collection(), nvinfer1::TensorRTPhase::kBUILD));
    std::vector<nvinfer1::DynamicPluginTensorDesc> inputs;
    auto const dynamic = [](CaseTensor const& tensor) {
        nvinfer1::Dims const& dims = tensor.description.dims;
        return nvinfer1::DynamicPluginTensorDesc{tensor.description, dims, dims, dims};
    };
    for (CaseTensor const& tensor : problem.inputs) {
        inputs.push_back(dynamic(tensor));
    }
    nvinfer1::DynamicPluginTensorDesc const output = dynamic(problem.output);
    require(built.build().configurePlugin(inputs.data(), static_cast<int32_t>(inputs.size()), &output, 1) == 0,
            "configuring the plugin");
    return Plugin(
        creator.createPlugin("case", built.runtime().getFieldsToSerialize(), nvinfer1::TensorRTPhase::kRUNTIME));
}

// Times of single enqueues in milliseconds, sorted.
std::vector<float> measure(Gpu const& gpu, Stream const& stream, Case const& problem,
                           std::function<void()> const& enqueue) {
    auto const many = [&] {
        for (int count = 0; count < problem.per_sample; ++count) {
            enqueue();
        }
    };
    std::optional<Graph> graph;
    if (problem.graph) {
        graph.emplace(gpu, stream, many);
    }
    auto const sample = [&] { graph.has_value() ? graph->launch(stream) : many(); };
    for (int count = 0; count < problem.warmup; ++count) {
        sample();
    }
    stream.synchronize();
    Event const begin(gpu);
    Event const end(gpu);
    std::vector<float> times;
    for (int count = 0; count < problem.samples; ++count) {
        begin.record(stream);
        sample();
        end.record(stream);
        stream.synchronize();
        times.push_back(end.since(begin) / static_cast<float>(problem.per_sample));
    }
    std::sort(times.begin(), times.end());
    return times;
}

std::string escaped(std::string const& text) {
    std::string json;
    for (char const character : text) {
        if (character == '"' || character == '\\') {
            json += '\\';
        }
        json += static_cast<unsigned char>(character) < 0x20 ? ' ' : character;
    }
    return json;
}

}  // namespace

void run_case(std::string const& library_path, std::string const& case_path) {
    Case const problem = read_case(case_path);
    std::vector<std::vector<char>> contents;
    for (CaseTensor const& tensor : problem.inputs) {
        contents.push_back(read_file(tensor.path, tensor.bytes()));
    }
    size_t const output_bytes = problem.output.bytes();

    Gpu const gpu;
    Cuda const& cuda = gpu.cuda();
    Library const library(library_path);
    Plugin const plugin = built_plugin(library, problem);
    Plugin const attached(plugin.runtime().attachToContext(nullptr));

    std::vector<DeviceMemory> memory;
    std::vector<nvinfer1::PluginTensorDesc> descriptions;
    std::vector<void const*> inputs;
    for (size_t index = 0; index < contents.size(); ++index) {
        DeviceMemory const& allocated = memory.emplace_back(gpu, contents[index].size());
        if (!contents[index].empty()) {
            cuda.check(cuda.copy_to_device(allocated.address(), contents[index].data(), contents[index].size()),
                       "copying an input");
        }
        inputs.push_back(allocated.pointer());
        descriptions.push_back(problem.inputs[index].description);
    }
    DeviceMemory const output(gpu, output_bytes + kMargin);
    cuda.check(cuda.fill_bytes(output.address(), static_cast<unsigned char>(problem.poison), output_bytes + kMargin),
               "poisoning the output");
    // Memory is copied and filled on the legacy stream, asynchronously to ours in the case of the fill: wait for it.
    cuda.check(cuda.stream_synchronize(nullptr), "preparing memory");

    require(attached.runtime().onShapeChange(descriptions.data(), static_cast<int32_t>(descriptions.size()),
                                             &problem.output.description, 1) == 0,
            "preparing the plugin for the shapes");
    Stream const stream(gpu);
    void* const outputs[] = {output.pointer()};
    std::vector<float> const times = measure(gpu, stream, problem, [&] {
        // CUstream and cudaStream_t are the same type.
        require(attached.runtime().enqueue(descriptions.data(), &problem.output.description, inputs.data(), outputs,
                                           nullptr, stream.get()) == 0,
                "enqueue");
    });

    std::vector<char> result(output_bytes + kMargin);
    cuda.check(cuda.copy_to_host(result.data(), output.address(), result.size()), "copying the output");
    if (std::any_of(result.begin() + static_cast<std::ptrdiff_t>(output_bytes), result.end(),
                    [&](char byte) { return static_cast<unsigned char>(byte) != problem.poison; })) {
        throw std::runtime_error("the kernel wrote beyond the end of y");
    }
    write_file(problem.output.path, result.data(), output_bytes);
    std::printf(
        "{\"ok\": true, \"operator\": \"%s\", \"device\": \"%s\", \"median_ms\": %.6f, \"min_ms\": %.6f, "
        "\"samples\": %d, \"per_sample\": %d, \"graph\": %s}\n",
        escaped(problem.op).c_str(), escaped(gpu.name()).c_str(), times[times.size() / 2], times.front(),
        problem.samples, problem.per_sample, problem.graph ? "true" : "false");
}

}  // namespace edge_lsla::harness
