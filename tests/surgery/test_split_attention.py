"""Attention as opset 23's operator plus the outer bias: same numbers, and a reason where it does not apply."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from surgery_parts import build, run

from edge_lsla.errors import GraphError
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.config import VIT_LSLA_T
from edge_lsla.operator import DOMAIN
from edge_lsla.surgery.fuse import fuse
from edge_lsla.surgery.half import to_half
from edge_lsla.surgery.half_measure import measure_half
from edge_lsla.surgery.split import inline_functions, mark_decomposable, split_attention


@pytest.fixture(scope="module")
def source(tiny_onnx) -> onnx.ModelProto:
    return fuse(onnx.load(tiny_onnx))[0]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_it_applies_with_the_same_numbers(source, images):
    before = source.SerializeToString(deterministic=True)
    split = split_attention(source)
    assert source.SerializeToString(deterministic=True) == before
    assert split_attention(source).SerializeToString(deterministic=True) == split.SerializeToString(deterministic=True)
    onnx.checker.check_model(split, full_check=True)
    assert {entry.domain: entry.version for entry in split.opset_import} == {"": 23}
    assert (len(split.functions), split.ir_version) == (0, 11)
    assert not [node for node in split.graph.node if node.domain == DOMAIN]
    nodes = [node for node in split.graph.node if node.op_type == "Attention"]
    assert len(nodes) == 2
    for node in nodes:  # K = V = X; TensorRT's parser refuses softmax_precision
        assert node.input[1] == node.input[2]
        assert {entry.name: helper.get_attribute_value(entry) for entry in node.attribute} == {"scale": 1.0}
    assert difference(run(split, images), run(source, images)) <= 1e-5
    assert difference(run(split, images[:1]), run(source, images[:1])) <= 1e-5


def test_every_term_of_the_operator_is_in_it(source, images):
    """Each parameter, changed, changes the result of the split form as it changes the function's."""
    for parameter in ("scale_weight", "scale_bias", "inner_bias", "outer_bias"):
        changed = onnx.ModelProto()
        changed.CopyFrom(source)
        for tensor in changed.graph.initializer:
            if tensor.name.endswith(parameter):
                tensor.CopyFrom(numpy_helper.from_array(-2 * numpy_helper.to_array(tensor), tensor.name))
        expected = run(changed, images)
        assert difference(expected, run(source, images)) > 1e-3, parameter
        assert difference(run(split_attention(changed), images), expected) <= 1e-5, parameter


def test_half_precision_graphs_are_split_too(source, images):
    half, _ = to_half(source)
    split = split_attention(half)
    kinds = {v.name: v.type.tensor_type.elem_type for v in split.graph.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in split.graph.initializer}
    for node in split.graph.node:
        inside = {kinds.get(name) for name in (*node.input, *node.output)} - {TensorProto.INT64}
        if node.op_type == "Attention" or node.name.endswith(".outer"):
            assert inside == {TensorProto.FLOAT16}
        elif node.op_type in ("Softplus", "ReduceSum") or node.name.endswith(".scaled_query"):
            assert inside == {TensorProto.FLOAT}  # the dynamic scale
    # The softmax and its weights are rounded to half as well, which they are not in the function.
    assert difference(run(split, images), run(source, images)) <= 5e-3
    measure = measure_half(source, split, [images])
    assert measure.nonfinite == ()
    assert measure.max_difference <= 5e-3


def test_every_shape_of_vit_lsla_t_equals_pytorch(tmp_path):
    """One block of each stage: windows 14 and 7, 3 to 24 heads, one to sixteen windows; benchmarks take all of it."""
    model = build(VIT_LSLA_T.with_(depths=(1, 1, 1, 1)))
    export_onnx(model, 224, tmp_path / "t.onnx")
    split = split_attention(fuse(onnx.load(tmp_path / "t.onnx"))[0])
    assert sum(node.op_type == "Attention" for node in split.graph.node) == 4
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(images).numpy()
    assert difference(run(split, images.numpy()), expected) <= 1e-4


def test_functions_written_out_are_the_same_graph(source, images):
    for model in (source, fuse(source, "residual")[0], to_half(source)[0]):
        inlined = inline_functions(model)
        assert len(inlined.functions) == 0
        names = [node.name for node in inlined.graph.node]
        assert len(set(names)) == len(names)
        assert difference(run(inlined, images), run(model, images)) <= 1e-6


def test_the_mark_is_for_tensorrt_alone(source):
    split = split_attention(source)
    marked = mark_decomposable(split)
    attributes = [[entry.name for entry in node.attribute] for node in marked.graph.node if node.op_type == "Attention"]
    assert attributes == [["scale", "TRT_decomposable"]] * 2
    assert all(entry.name != "TRT_decomposable" for node in split.graph.node for entry in node.attribute)


def test_other_graphs_are_refused_with_the_reason(source, tiny_onnx):
    with pytest.raises(GraphError, match="the graph has no LslaAttention node; fuse it first"):
        split_attention(onnx.load(tiny_onnx))
    with pytest.raises(GraphError, match="LslaResidualAttention has no split form; fuse at level attention"):
        split_attention(fuse(source, "residual")[0])
    computed = onnx.ModelProto()
    computed.CopyFrom(source)
    node = next(node for node in computed.graph.node if node.op_type == "LslaAttention")
    computed.graph.node.insert(0, helper.make_node("Abs", [node.input[4]], ["computed"]))
    node = next(node for node in computed.graph.node if node.op_type == "LslaAttention")
    node.input[4] = "computed"
    with pytest.raises(GraphError, match="a parameter of the attention is not constant: lsla_attention_0; fuse"):
        split_attention(computed)
    free = onnx.ModelProto()
    free.CopyFrom(source)
    output = next(node.output[0] for node in free.graph.node if node.op_type == "LslaAttention")
    for value in free.graph.value_info:
        if value.name == output:
            value.type.tensor_type.shape.dim[1].dim_param = "height"
    with pytest.raises(GraphError, match="its feature map has no fixed size: lsla_attention_0; export with a fixed"):
        split_attention(free)
