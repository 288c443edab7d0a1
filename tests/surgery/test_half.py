"""Half precision graphs: every type is written, the numbers stay, and what cannot be half is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from surgery_parts import run

from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.errors import GraphError, UsageError
from edge_lsla.surgery.function import drop_function
from edge_lsla.surgery.fuse import fuse, fuse_quantised
from edge_lsla.surgery.half import to_half

HALF, FLOAT, INT8 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT8
MULTIPLYING = {"Conv", "MatMul", "Gemm", "LslaAttention", "LslaResidualAttention", "QLslaAttention"}
# Of the largest logit: float16 keeps 11 bits, and some thirty layers round; int8 also rounds ties the other way.
TOLERANCE = {"plain": 5e-3, "attention": 5e-3, "residual": 5e-3, "qdq": 5e-2, "int8": 5e-2}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((8, 3, 32, 32), dtype=np.float32)


@pytest.fixture(scope="module")
def sources(tiny_onnx: Path, images: np.ndarray) -> dict[str, onnx.ModelProto]:
    """The tiny model at every level of fusion and quantisation."""
    plain = onnx.load(tiny_onnx)
    attention = fuse(plain)[0]
    ranges = collect_ranges(attention, [images], CalibrationSettings())
    qdq = insert_qdq(attention, ranges, QdqSettings("tensorrt"))[0]
    int8 = fuse_quantised(insert_qdq(attention, ranges, QdqSettings("tensorrt", attention="int8"))[0])[0]
    residual = fuse(plain, "residual")[0]
    return {"plain": plain, "attention": attention, "residual": residual, "qdq": qdq, "int8": int8}


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    return values | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("level", TOLERANCE)
def test_types_are_written_and_numbers_stay(level, sources, images):
    source = sources[level]
    before = source.SerializeToString(deterministic=True)
    half, report = to_half(source)
    assert source.SerializeToString(deterministic=True) == before
    assert to_half(source)[0].SerializeToString(deterministic=True) == half.SerializeToString(deterministic=True)
    onnx.checker.check_model(half, full_check=True)
    onnx.shape_inference.infer_shapes(half, strict_mode=True)

    kinds = types(half)
    assert [kinds[v.name] for v in (*half.graph.input, *half.graph.output)] == [FLOAT, FLOAT]
    assert [v.name for v in (*half.graph.input, *half.graph.output)] == ["images", "logits"]
    for node in half.graph.node:
        assert all(kinds[name] for name in node.output)
        inside = {kinds[name] for name in (*node.input, *node.output)}
        if node.op_type in MULTIPLYING - {"QLslaAttention"} or node.op_type in ("Gelu", "Add"):
            assert inside == {HALF}, node
        elif node.op_type == "LayerNormalization":
            assert inside == {FLOAT}
        elif node.op_type == "ReduceMean":
            assert inside == {FLOAT, TensorProto.INT64}  # axes
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert inside == {INT8, HALF}
        elif node.op_type == "QLslaAttention":
            assert [kinds[name] for name in node.input] == [INT8] * 2 + [FLOAT] * 7
            assert kinds[node.output[0]] == INT8
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert len(casts) == report.casts
    assert (casts[0].input[0], casts[-1].output[0]) == ("images", "logits")
    assert report.kept == ()
    assert report.weight_bytes_after < report.weight_bytes_before
    if level in ("attention", "residual"):
        assert report.weight_bytes_after <= 0.55 * report.weight_bytes_before  # LayerNorm keeps float32

    expected, found = run(source, images), run(half, images)
    assert np.abs(found - expected).max() <= TOLERANCE[level] * np.abs(expected).max()
    assert not np.array_equal(found, expected)


def test_precision_is_reported_for_every_layer_that_multiplies(sources):
    counts = {
        level: {kind: list(to_half(source)[1].precision.values()).count(kind) for kind in ("int8", "fp16", "fp32")}
        for level, source in sources.items()
    }
    layers = sum(node.op_type in MULTIPLYING for node in sources["attention"].graph.node)
    assert counts["attention"] == {"int8": 0, "fp16": layers, "fp32": 0}
    assert counts["qdq"] == {"int8": layers - 2, "fp16": 2, "fp32": 0}  # the two attentions
    assert counts["int8"] == {"int8": layers, "fp16": 0, "fp32": 0}


def test_scales_of_int8_attention_are_those_of_its_neighbours(sources):
    half, _ = to_half(sources["int8"])
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in half.graph.initializer}
    makers = {node.output[0]: node for node in half.graph.node}
    readers = {node.input[0]: node for node in half.graph.node if node.input}
    attentions = [node for node in half.graph.node if node.op_type == "QLslaAttention"]
    assert len(attentions) == 2
    for node in attentions:
        beside = [makers[node.input[0]], makers[node.input[1]], readers[node.output[0]]]
        for neighbour, scale in zip(beside, node.input[-3:]):
            assert weights[scale].dtype == np.float32
            assert weights[neighbour.input[1]].dtype == np.float16
            assert weights[scale] == weights[neighbour.input[1]]


def test_a_graph_without_its_functions_gets_them_back(sources):
    half, _ = to_half(drop_function(sources["attention"]))
    assert half.SerializeToString(deterministic=True) == to_half(sources["attention"])[0].SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("level", ["attention", "qdq"])
def test_a_layer_is_kept_in_float32_on_request(level, sources, images):
    source = sources[level]
    name = next(node.name for node in source.graph.node if node.op_type == "MatMul")
    half, report = to_half(source, keep_float=[name])
    kinds = types(half)
    node = next(node for node in half.graph.node if node.name == name)
    assert {kinds[tensor] for tensor in (*node.input, *node.output)} == {FLOAT}
    makers = {output: node.op_type for node in half.graph.node for output in node.output}
    # Between Q/DQ no Cast may part the DequantizeLinear from its layer: TensorRT would not see an INT8 layer.
    assert makers.get(node.input[1]) == (None if level == "attention" else "DequantizeLinear")
    assert report.precision[name] == ("fp32" if level == "attention" else "int8")
    assert [(entry.where, entry.reason) for entry in report.kept] == [(name, "asked for")]
    plain = run(source, images)
    assert np.abs(run(half, images) - plain).max() <= TOLERANCE[level] * np.abs(plain).max()
    with pytest.raises(UsageError, match="no such layer: node_of_dreams; take names from"):
        to_half(source, keep_float=["node_of_dreams"])


def changed(source: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))
    return copy


def test_weights_beyond_half_keep_their_layer(sources, images):
    """A LayerNorm follows the convolution, so that a weight of any size has ordinary logits."""
    source = changed(sources["attention"], "stem.conv2.weight", lambda weight: weight * np.float32(1e7))
    half, report = to_half(source)
    assert [entry.where for entry in report.kept] == ["node_conv2d_1"]
    assert "half precision ends at 65504" in report.kept[0].reason
    assert report.precision["node_conv2d_1"] == "fp32"
    kinds = types(half)
    assert (kinds["conv2d_1"], kinds["conv2d"]) == (FLOAT, HALF)


def test_values_that_become_zero_are_counted(sources):
    def shrink(weight: np.ndarray) -> np.ndarray:
        weight.reshape(-1)[:5] = 1e-9
        return weight

    _, report = to_half(changed(sources["attention"], "stem.conv2.weight", shrink))
    assert report.flushed == {"stem.conv2.weight": 5}


@pytest.mark.parametrize("value", [9.1e-8, 600.0])  # rounded by a sixth; 127 of it are more than 65504
def test_a_scale_that_half_cannot_hold_keeps_its_layer(value, sources):
    source = changed(sources["qdq"], "stem.conv2.weight_scale", lambda scale: np.full_like(scale, value))
    half, report = to_half(source)
    assert [entry.where for entry in report.kept] == ["node_conv2d_1"]
    assert report.kept[0].reason == f"a Q/DQ scale of {value:.3g} does not fit half precision"
    assert types(half)["conv2d_1"] == FLOAT


def one_node(node: onnx.NodeProto, kind: int = FLOAT, opset: int = 20, **constants: np.ndarray) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, kind, ["n", 4]) for name in ("images", "logits")]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_what_cannot_be_converted_is_refused_with_the_reason():
    with pytest.raises(GraphError, match="half precision tensors already; give the float32 graph"):
        to_half(one_node(helper.make_node("Relu", ["images"], ["logits"]), HALF))
    bad = np.array([1, np.nan, 1, 1], np.float32)
    with pytest.raises(GraphError, match="a weight holds NaN or infinity: b; repair the checkpoint"):
        to_half(one_node(helper.make_node("Add", ["images", "b"], ["logits"]), b=bad))
    scale = np.array(0.1, np.float32)
    quantise = helper.make_node("DequantizeLinear", ["q", "s"], ["logits"], name="dq")
    with pytest.raises(GraphError, match="Q/DQ of opset 17 have no FP16 scales: dq; export with opset 20"):
        to_half(one_node(quantise, opset=17, q=np.ones((1, 4), np.int8), s=scale))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 4])],
    )
    choice = helper.make_node("If", ["c"], ["logits"], name="choice", then_branch=branch, else_branch=branch)
    with pytest.raises(GraphError, match="If holds a graph of its own: choice; export a model without control flow"):
        to_half(one_node(choice, c=np.array(True)))
    stranger = one_node(helper.make_node("Mystery", ["images"], ["x"], domain="elsewhere"))
    stranger.graph.node.append(helper.make_node("Relu", ["x"], ["logits"]))
    stranger.opset_import.append(helper.make_opsetid("elsewhere", 1))
    with pytest.raises(GraphError, match="the type of what Mystery makes is not known: x; use standard operators"):
        to_half(stranger)


def test_operators_without_half_stay_float32_between_casts():
    model = one_node(helper.make_node("Softmax", ["x"], ["logits"], name="softmax"))
    model.graph.node.insert(0, helper.make_node("Relu", ["images"], ["x"], name="relu"))
    half, report = to_half(model)
    assert [node.op_type for node in half.graph.node] == ["Cast", "Relu", "Cast", "Softmax"]
    assert (report.half, report.float32) == (("relu",), ("softmax",))
    values = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)
    np.testing.assert_allclose(run(half, values), run(model, values), atol=1e-3)  # half keeps 3 digits
