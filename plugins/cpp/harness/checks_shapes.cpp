// The output's type and shape, with symbolic dimensions.
#include <vector>

#include "checks.h"
#include "dimension_expressions.h"
#include "problem.h"

namespace edge_lsla::harness {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;

void check_output_types(Check& check, Library const& library) {
    for (auto const& [op, dtype] : std::vector<std::pair<std::string, std::string>>{
             {"LslaAttention", "fp16"},
             {"LslaAttention", "fp32"},
             {"LslaResidualAttention", "fp16"},
             {"LslaResidualAttention", "fp32"},
             {"QLslaAttention", "int8"},
         }) {
        Problem const problem(op, dtype, 7, 32, 3);
        Plugin const plugin = make_plugin(library, problem);
        std::vector<DataType> types;
        for (int index = 0; index < problem.inputs(); ++index) {
            types.push_back(problem.tensors[index].type);
        }
        DataType output = DataType::kINT64;
        expect_accepted(check, op + " " + dtype + ", output type", [&] {
            return plugin.build().getOutputDataTypes(&output, 1, types.data(), problem.inputs()) == 0;
        });
        check.expect(output == data_type(dtype), op + ": y has x's type " + dtype);
        check.expect(plugin.build().getNbOutputs() == 1, op + " has one output");
        expect_refused(check, op + ", an input too few", "inputs", [&] {
            return plugin.build().getOutputDataTypes(&output, 1, types.data(), problem.inputs() - 1) != 0;
        });
        expect_refused(check, op + ", two outputs", "2 outputs", [&] {
            return plugin.build().getOutputDataTypes(&output, 2, types.data(), problem.inputs()) != 0;
        });
    }
}

void check_output_shapes(Check& check, Library const& library) {
    for (char const* const op : {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}) {
        Problem const problem(op, std::string(op) == "QLslaAttention" ? "int8" : "fp16", 7, 32, 3);
        Plugin const plugin = make_plugin(library, problem);
        std::string const name = op;
        // B, H and W are symbols, C a constant, as in a graph with dynamic axes.
        Dimension const batch("B", -1), height("H", -1), width("W", -1), channels("C", 96);
        std::vector<DimsExprs> inputs(problem.inputs(), DimsExprs{1, {&channels}});
        inputs[0] = DimsExprs{4, {&batch, &height, &width, &channels}};
        DimsExprs output{};
        Expressions expressions;
        expect_accepted(check, name + ", symbolic shapes", [&] {
            return plugin.build().getOutputShapes(inputs.data(), problem.inputs(), nullptr, 0, &output, 1,
                                                  expressions) == 0;
        });
        check.expect(output.nbDims == 4 && output.d[0] == &batch && output.d[1] == &height && output.d[2] == &width &&
                         output.d[3] == &channels,
                     name + ": y has x's own dimensions, symbols included");
        check.expect(expressions.made() == 0, name + ": no new expressions");
        check.expect(output.d[3]->isConstant() && output.d[3]->getConstantValue() == 96 && !output.d[0]->isConstant(),
                     name + ": a constant stays constant, a symbol a symbol");
        inputs[0].nbDims = 3;
        expect_refused(check, name + ", x of rank 3", "x has 3 dimensions", [&] {
            return plugin.build().getOutputShapes(inputs.data(), problem.inputs(), nullptr, 0, &output, 1,
                                                  expressions) != 0;
        });
        expect_refused(check, name + ", an input too many", "inputs", [&] {
            return plugin.build().getOutputShapes(inputs.data(), problem.inputs() + 1, nullptr, 0, &output, 1,
                                                  expressions) != 0;
        });
    }
}

}  // namespace edge_lsla::harness
