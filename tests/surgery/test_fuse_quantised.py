"""Attention between symmetric int8 Q/DQ becomes `QLslaAttention`; any other kind stays, with the reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from surgery_parts import run

from edge_lsla.errors import GraphError
from edge_lsla.operator import DOMAIN, INPUTS, NAME, QUANTISED_ATTRIBUTES, QUANTISED_NAME, quantised_reference
from edge_lsla.surgery.function import attention_function, attention_node
from edge_lsla.surgery.fuse import FusedAttention, fuse, fuse_quantised

HEADS, WINDOW, MAP = 2, 2, (4, 6, 32)
SCALES = {"x": 0.03, "query": 0.04, "y": 0.05}


def attention_between(dtype: type = np.float32, **changes) -> onnx.ModelProto:
    """image -> Q/DQ, and Tanh -> Q/DQ -> attention -> Q/DQ -> out; `changes` replaces constants by name."""
    generator = np.random.default_rng(8)
    rows = (2 * WINDOW - 1) ** 2
    sizes = ((HEADS, 16), (HEADS,), (rows, HEADS), (rows, HEADS))
    constants = {name: generator.standard_normal(size) * 0.4 for name, size in zip(INPUTS[2:], sizes)}
    constants = {name: value.astype(dtype) for name, value in constants.items()}
    for name, scale in SCALES.items():
        constants[f"{name}_scale"] = np.array(scale, dtype)
        constants[f"{name}_zero"] = np.array(0, np.int8)
    constants |= changes
    nodes = [helper.make_node("Tanh", ["image"], ["other"])]
    for source, name in (("image", "x"), ("other", "query")):
        nodes.append(helper.make_node("QuantizeLinear", [source, f"{name}_scale", f"{name}_zero"], [f"{name}_int8"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale", f"{name}_zero"], [name]))
    nodes.append(attention_node(list(INPUTS), "y", "attention", num_heads=HEADS, window=WINDOW))
    nodes.append(helper.make_node("QuantizeLinear", ["y", "y_scale", "y_zero"], ["y_int8"]))
    nodes.append(helper.make_node("DequantizeLinear", ["y_int8", "y_scale", "y_zero"], ["out"]))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [helper.make_tensor_value_info(name, kind, ["batch", *MAP]) for name in ("image", "out")]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "int8", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[attention_function(20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["fp32", "fp16"])
def test_it_applies_with_the_same_numbers(dtype):
    source = attention_between(dtype)
    before = source.SerializeToString(deterministic=True)
    fused, report = fuse_quantised(source)
    assert source.SerializeToString(deterministic=True) == before
    assert report.fused == (FusedAttention("attention", HEADS, WINDOW, MAP[:2], QUANTISED_NAME),)
    assert report.refusals == ()
    assert (report.nodes_before, report.nodes_after) == (8, 5)
    # fp16: y was rounded to float16 before it was quantised, and is no more: a step of 0.05 where that decided a tie
    assert report.graph_error <= (1e-6 if dtype == np.float32 else 3e-2)
    onnx.checker.check_model(fused, full_check=True)
    assert [function.name for function in fused.functions] == [QUANTISED_NAME]
    node = next(node for node in fused.graph.node if node.op_type == QUANTISED_NAME)
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert set(values) == set(QUANTISED_ATTRIBUTES)
    assert (values["num_heads"], values["window"]) == (HEADS, WINDOW)
    constants = constants_of(fused)
    operands = [constants[name] for name in node.input[2:]]
    assert {operand.dtype for operand in operands} == {np.dtype(np.float32)}
    assert [operand.shape for operand in operands[4:]] == [(), (), ()]
    information = {value.name: value.type.tensor_type for value in fused.graph.value_info}
    for name in (*node.input[:2], node.output[0]):
        dims = [d.dim_param or d.dim_value for d in information[name].shape.dim]
        assert (dims, information[name].elem_type) == (["batch", *MAP], TensorProto.INT8)

    image = np.random.default_rng(9).standard_normal((2, *MAP)).astype(dtype)
    steps = run(fused, image).astype(np.float64) / float(dtype(SCALES["y"]))
    x, query = (
        np.clip(np.rint(value.astype(np.float64) / float(dtype(SCALES[name]))), -128, 127).astype(np.int8)
        for name, value in (("x", image), ("query", np.tanh(image)))
    )
    _, expected = quantised_reference(x, query, *operands, num_heads=HEADS, window=WINDOW)
    # a tie in float16 may quantise x or query one step aside, which moves y by little
    assert np.abs(steps - expected).max() <= (1.01 if dtype == np.float32 else 3.01)
    assert (np.abs(steps - expected) > 0.5).mean() <= (1e-3 if dtype == np.float32 else 5e-2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x_zero": np.array(0, np.uint8)}, "its x is uint8, not int8; Q/DQ for TensorRT is symmetric int8"),
        ({"query_zero": np.array(128, np.uint8)}, "its query is uint8, not int8"),
        ({"y_zero": np.array(0, np.uint8)}, "its y is uint8, not int8"),
        ({"x_zero": np.array(3, np.int8)}, "its x is asymmetric: the zero point is not 0"),
        ({"y_zero": np.array(-1, np.int8)}, "its y is asymmetric: the zero point is not 0"),
        (
            {"query_scale": np.full(6, 0.04, np.float32), "query_zero": np.zeros(6, np.int8)},
            "its query has 6 scales, not one for the whole tensor",
        ),
    ],
)
def test_other_kinds_of_quantisation_stay_with_the_reason(changes, reason):
    source = attention_between(**changes)
    if "query_scale" in changes:  # one for each column of the map
        for node in source.graph.node:
            if "query_scale" in node.input:
                node.attribute.append(helper.make_attribute("axis", 2))
    stays(source, reason)


def stays(source: onnx.ModelProto, reason: str) -> None:
    fused, report = fuse_quantised(source)
    assert [entry.op for entry in report.fused] == [NAME]
    assert [refusal.where for refusal in report.refusals] == ["attention"]
    assert report.refusals[0].reason.startswith(reason)
    assert [node.op_type for node in fused.graph.node] == [node.op_type for node in source.graph.node]
    image = np.random.default_rng(9).standard_normal((1, *MAP)).astype(np.float32)
    np.testing.assert_array_equal(run(fused, image), run(source, image))


def test_attention_without_pairs_stays_with_the_reason():
    source = attention_between()
    nodes = {node.op_type + node.output[0]: node for node in source.graph.node}
    nodes["LslaAttentiony"].input[1] = "other"
    stays(source, "its query comes from Tanh, not from DequantizeLinear")

    source = attention_between()
    source.graph.node[-1].CopyFrom(helper.make_node("Tanh", ["y"], ["out"]))
    del source.graph.node[-2]
    stays(source, "its y goes to Tanh, not to QuantizeLinear alone")

    source = attention_between()
    source.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *MAP]))
    stays(source, "its y goes to QuantizeLinear and an output of the graph, not to QuantizeLinear alone")


def test_graphs_without_attention_say_what_to_do():
    source = attention_between()
    fused, _ = fuse_quantised(source)
    with pytest.raises(GraphError, match="no LslaAttention node; fuse it, then calibrate it with int8 attention"):
        fuse_quantised(fused)
    with pytest.raises(GraphError, match="already fused, it has 1 QLslaAttention nodes"):
        fuse(fused, level="residual")
