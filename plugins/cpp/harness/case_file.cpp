#include "case_file.h"

#include <charconv>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "problem.h"

namespace edge_lsla::harness {

using nvinfer1::Dims;

namespace {

int64_t number(std::string const& text, int64_t least, int64_t most) {
    int64_t value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
        throw std::runtime_error("\"" + text + "\" is not a number from " + std::to_string(least) + " to " +
                                 std::to_string(most));
    }
    return value;
}

Dims shape(std::string const& text) {
    Dims dims{};
    if (text == "scalar") {
        return dims;
    }
    std::stringstream parts(text);
    std::string part;
    while (std::getline(parts, part, ',')) {
        if (dims.nbDims == Dims::MAX_DIMS) {
            throw std::runtime_error("\"" + text + "\" has too many dimensions");
        }
        dims.d[dims.nbDims++] = number(part, 0, std::numeric_limits<int32_t>::max());
    }
    if (dims.nbDims == 0) {
        throw std::runtime_error("the dimensions are missing");
    }
    return dims;
}

std::string word(std::istringstream& line) {
    std::string text;
    if (!(line >> text)) {
        throw std::runtime_error("the line is incomplete");
    }
    return text;
}

CaseTensor tensor(std::istringstream& line, std::string const& folder) {
    CaseTensor read;
    read.name = word(line);
    read.description.type = data_type(word(line));
    read.description.dims = shape(word(line));
    read.description.format = nvinfer1::TensorFormat::kLINEAR;
    read.description.scale = 1.0F;
    std::string path;
    std::getline(line >> std::ws, path);  // the rest of the line: names of files may have spaces
    if (path.empty()) {
        throw std::runtime_error("the file's name is missing");
    }
    read.path = path.front() == '/' ? path : folder + path;
    return read;
}

void read_statement(std::istringstream& line, std::string const& keyword, std::string const& folder, Case& into) {
    int64_t const many = 1'000'000;
    if (keyword == "operator") {
        into.op = word(line);
    } else if (keyword == "field") {
        std::string const name = word(line);
        std::string const type = word(line);
        into.fields.push_back({name, type, word(line)});
    } else if (keyword == "input") {
        into.inputs.push_back(tensor(line, folder));
    } else if (keyword == "output") {
        into.output = tensor(line, folder);
    } else if (keyword == "graph") {
        std::string const answer = word(line);
        if (answer != "yes" && answer != "no") {
            throw std::runtime_error("graph takes yes or no");
        }
        into.graph = answer == "yes";
    } else if (keyword == "warmup") {
        into.warmup = static_cast<int>(number(word(line), 0, many));
    } else if (keyword == "samples") {
        into.samples = static_cast<int>(number(word(line), 1, many));
    } else if (keyword == "per_sample") {
        into.per_sample = static_cast<int>(number(word(line), 1, many));
    } else if (keyword == "poison") {
        into.poison = static_cast<int>(number(word(line), 0, 255));
    } else {
        throw std::runtime_error("unknown statement \"" + keyword + "\"");
    }
    std::string rest;
    if (line >> rest) {
        throw std::runtime_error("\"" + rest + "\" is more than the statement takes");
    }
}

}  // namespace

size_t CaseTensor::bytes() const {
    size_t count = description.type == nvinfer1::DataType::kFLOAT  ? 4
                   : description.type == nvinfer1::DataType::kHALF ? 2
                                                                   : 1;
    for (int32_t axis = 0; axis < description.dims.nbDims; ++axis) {
        if (__builtin_mul_overflow(count, static_cast<size_t>(description.dims.d[axis]), &count)) {
            throw std::runtime_error(name + " is too large");
        }
    }
    return count;
}

Case read_case(std::string const& path) {
    std::ifstream file(path);
    if (!file) {
        throw std::runtime_error("cannot read the case: " + path);
    }
    size_t const slash = path.rfind('/');
    std::string const folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
    Case read;
    std::string text;
    for (int number = 1; std::getline(file, text); ++number) {
        std::istringstream line(text.substr(0, text.find('#')));
        std::string keyword;
        if (!(line >> keyword)) {
            continue;
        }
        try {
            read_statement(line, keyword, folder, read);
        } catch (std::exception const& error) {
            throw std::runtime_error(path + ", line " + std::to_string(number) + ": " + error.what());
        }
    }
    if (read.op.empty() || read.inputs.empty() || read.output.path.empty()) {
        throw std::runtime_error(path + ": operator, input and output are required");
    }
    return read;
}

}  // namespace edge_lsla::harness
