"""Half precision is judged in half precision; what overflows there is found, named and kept in float32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from surgery_parts import run

from edge_lsla.errors import AccuracyError, GraphError, UsageError
from edge_lsla.surgery.fuse import fuse
from edge_lsla.surgery.half import to_half
from edge_lsla.surgery.half_evaluator import evaluate
from edge_lsla.surgery.half_measure import HEADROOM, choose_half, measure_half


@pytest.fixture(scope="module")
def source(tiny_onnx) -> onnx.ModelProto:
    return fuse(onnx.load(tiny_onnx))[0]


@pytest.fixture(scope="module")
def batches() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal((count, 3, 32, 32), dtype=np.float32) for count in (3, 2)]


def strengthened(source: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """Widen the residual stream of both stages; the LayerNorms after it bring the logits back to ordinary size."""
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    linear = [node for node in copy.graph.node if node.op_type == "MatMul" and "Gelu" in makers(copy, node.input[0])]
    assert len(linear) == 2  # of each block the second of its MLP
    for tensor in copy.graph.initializer:
        if tensor.name in {node.input[1] for node in linear}:
            weight = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return copy


def makers(model: onnx.ModelProto, tensor: str) -> list[str]:
    return [node.op_type for node in model.graph.node if tensor in node.output]


def one_node(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, None) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Conv"])
def test_products_are_those_of_torch_s_half(operator):
    generator = np.random.default_rng(3)
    shapes = {"MatMul": ((4, 9, 64), (64, 32)), "Gemm": ((4, 64), (64, 32)), "Conv": ((2, 16, 8, 8), (32, 16, 3, 3))}
    x, w = (generator.standard_normal(shape).astype(np.float16) for shape in shapes[operator])
    bias = generator.standard_normal(32).astype(np.float16)
    more = {} if operator == "MatMul" else {"b": bias}
    node = helper.make_node(operator, ["x", "w", *more], ["y"])
    found = evaluate(one_node(node, {"w": w, **more}), [x]).logits
    tensors = [torch.from_numpy(value) for value in (x, w, bias)]
    if operator == "Conv":
        expected = torch.nn.functional.conv2d(*tensors)
    else:
        expected = tensors[0] @ tensors[1] if operator == "MatMul" else torch.addmm(tensors[2], *tensors[:2])
    assert found.dtype == np.float16
    # Another order of a float32 sum may round to the neighbour: 2^-10 of the value, and values near zero cancel.
    np.testing.assert_allclose(found, expected.numpy(), rtol=2**-10, atol=1e-3)
    assert np.mean(found == expected.numpy()) > 0.95


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_onnx_s_own_of_every_half(approximate):
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    model = one_node(helper.make_node("Gelu", ["x"], ["y"], approximate=approximate), {})
    with np.errstate(all="ignore"):
        expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    assert expected.dtype == np.float16
    np.testing.assert_array_equal(evaluate(model, [x[:, None]]).logits[:, 0], expected)


def test_the_whole_graph_is_as_onnx_s_own_evaluator_has_it(source, batches):
    half, _ = to_half(source)
    expected = ReferenceEvaluator(half).run(None, {"images": batches[0]})[0]
    found = evaluate(half, batches[:1]).logits
    assert np.abs(found - expected).max() <= 2e-3 * np.abs(expected).max()  # there Conv rounds before it adds its bias


def test_every_half_tensor_is_measured(source, batches):
    half, report = to_half(source)
    measure = measure_half(source, half, batches)
    assert measure.images == 5
    assert measure.nonfinite == ()
    values = {v.name: v.type.tensor_type.elem_type for v in half.graph.value_info}
    halves = [n for node in half.graph.node for n in node.output if values.get(n) == TensorProto.FLOAT16]
    assert [tensor.name for tensor in measure.tensors] == halves
    assert set(report.half) <= set(measure.layers)
    assert measure.largest.ratio == max(measure.layers.values()) < 0.01
    assert 0 < measure.max_difference < 5e-3
    assert measure.top1_agreement == 1.0
    for tensor in measure.tensors:
        if tensor.name == "images_fp16":
            expected = max(float(np.abs(batch.astype(np.float16)).max()) for batch in batches)
            assert tensor.ratio == expected / 65504


def test_overflow_is_found_where_it_begins_and_kept_in_float32(source, batches):
    wide = strengthened(source, 8e5)  # weights up to 62,000, which half can hold, and products of 75,000
    naive, report = to_half(wide)
    assert report.kept == ()
    measure = measure_half(wide, naive, batches)
    first = next(tensor for tensor in measure.tensors if not tensor.finite)
    assert first.layer == measure.nonfinite[0]
    assert next(node.op_type for node in wide.graph.node if node.name == first.layer) == "MatMul"
    assert 1 < first.ratio < 1.5  # what float32 had there
    assert measure.max_difference == np.inf

    half, report, measure = choose_half(wide, batches)
    assert measure.nonfinite == ()
    assert measure.largest.ratio <= HEADROOM
    assert measure.top1_agreement == 1.0
    assert measure.max_difference < 5e-3
    kinds = {node.name: node.op_type for node in wide.graph.node}
    assert {"MatMul", "Add"} <= {kinds[entry.where] for entry in report.kept}
    assert all("of half precision's range" in entry.reason for entry in report.kept)
    # No more than the residual stream and what reads it: the attentions and the first half of each MLP stay half.
    assert {kinds[name] for name in report.half} >= {"Conv", "MatMul", "Gelu", "LslaAttention"}
    expected, found = run(wide, batches[0]), run(half, batches[0])
    assert np.abs(found - expected).max() <= 5e-3 * np.abs(expected).max()


def test_an_operator_that_overflows_inside_is_kept():
    """What Attention takes and makes is far from the end of half's range; its scores are beyond it."""
    shapes = {"images": ["n", 1, 2, 4], "logits": ["n", 8]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("Attention", ["images"] * 3, ["y"], name="attention", scale=1.0),
        helper.make_node("Flatten", ["y"], ["logits"], name="flatten"),
    ]
    graph = helper.make_graph(nodes, "scores", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    batches = [np.random.default_rng(0).uniform(200, 300, (3, 1, 2, 4)).astype(np.float32)]
    naive = measure_half(model, to_half(model)[0], batches)
    assert naive.nonfinite == ("attention", "flatten")
    assert all(tensor.ratio < 0.01 for tensor in naive.tensors)
    _, report, measure = choose_half(model, batches)
    assert [(entry.where, entry.reason) for entry in report.kept] == [
        ("attention", "it makes infinity or NaN in half precision")
    ]
    assert report.half == ("flatten",)
    assert measure.nonfinite == ()


def test_headroom_decides_what_is_kept(source, batches):
    half, report, measure = choose_half(source, batches)
    assert report.kept == ()
    assert half.SerializeToString(deterministic=True) == to_half(source)[0].SerializeToString(deterministic=True)
    limit = sorted(measure.layers.values())[-2]  # all but one layer's tensors are allowed
    _, report, measure = choose_half(source, batches, headroom=limit)
    assert report.kept
    assert measure.largest.ratio <= limit


def test_what_cannot_be_judged_is_refused(source, batches):
    with pytest.raises(UsageError, match="half precision is judged on images: batches; give some"):
        measure_half(source, source, [])
    with pytest.raises(UsageError, match="headroom must be above 0 and at most 1: headroom; got 0"):
        choose_half(source, batches, headroom=0)
    with pytest.raises(GraphError, match=r"the float32 graph is not finite on these images: .*; repair the checkpoint"):
        choose_half(strengthened(source, np.inf), batches)
    with pytest.raises(AccuracyError, match=r"no layer stays within half precision: .*; use fp32 or int8"):
        choose_half(source, batches, headroom=1e-12)  # even the images are larger
