"""Fusing the project's own model: the node's contract, the same weights bit for bit, the same numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from surgery_parts import SIMPLIFIERS, TINY, build, dynamo, plain, run, weight

from edge_lsla.errors import GraphError
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.config import VIT_LSLA_T
from edge_lsla.model.vit_lsla import LslaAttention
from edge_lsla.operator import RESIDUAL_NAME
from edge_lsla.surgery.function import is_attention
from edge_lsla.surgery.fuse import FusedAttention, fuse
from edge_lsla.surgery.onnx_file import read_onnx

WEIGHTS = ("scale_weight", "scale_bias", "inner_bias", "outer_bias")


def attentions(model):
    return [module for module in model.modules() if isinstance(module, LslaAttention)]


def check_fused(model, fused, images, tolerance=1e-4):
    onnx.checker.check_model(fused, full_check=True)
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.abs(run(fused, images.numpy()) - expected).max() <= tolerance * max(1.0, np.abs(expected).max())
    for index, module in enumerate(attentions(model)):
        for name in WEIGHTS:
            recovered = weight(fused, f"lsla_attention_{index}.{name}")
            np.testing.assert_array_equal(recovered, getattr(module, name).detach().numpy(), err_msg=name)


@pytest.mark.parametrize("simplify", SIMPLIFIERS)
def test_every_attention_becomes_one_node(tiny, tiny_onnx, simplify):
    source = simplify(read_onnx(tiny_onnx))
    before = source.SerializeToString(deterministic=True)
    fused, report = fuse(source)
    assert source.SerializeToString(deterministic=True) == before
    assert report.fused == (
        FusedAttention("lsla_attention_0", 2, 4, (8, 8)),
        FusedAttention("lsla_attention_1", 4, 2, (4, 4)),
    )
    assert report.refusals == ()
    assert (report.nodes_before, report.nodes_after) == (len(source.graph.node), len(fused.graph.node))
    assert 0 < report.max_error < 1e-5
    check_fused(tiny, fused, torch.randn(3, 3, 32, 32))


def test_nothing_of_the_attention_is_left_outside(tiny_onnx):
    fused, _ = fuse(read_onnx(tiny_onnx))
    kinds = [node.op_type for node in fused.graph.node]
    assert "Softmax" not in kinds
    assert "Reshape" not in kinds
    assert kinds.count("Transpose") == 3  # after the stem, and on both sides of the one convolution between stages
    assert {node.op_type for node in fused.graph.node if "softplus" in node.name.lower()} == set()


def test_the_node_keeps_the_operator_contract(tiny_onnx):
    fused, _ = fuse(read_onnx(tiny_onnx))
    assert {entry.domain: entry.version for entry in fused.opset_import} == {"": 20, "edge_lsla": 1}
    assert [(function.domain, function.name) for function in fused.functions] == [("edge_lsla", "LslaAttention")]
    assert fused.ir_version >= 10
    information = {value.name: value.type.tensor_type for value in fused.graph.value_info}
    producers = {name: node for node in fused.graph.node for name in node.output}
    nodes = [node for node in fused.graph.node if is_attention(node)]
    for node, side, channels in zip(nodes, (8, 4), (32, 64)):
        for name in (node.input[0], node.input[1], node.output[0]):
            dims = [d.dim_param or d.dim_value for d in information[name].shape.dim]
            assert (dims, information[name].elem_type) == (["batch", side, side, channels], onnx.TensorProto.FLOAT)
        assert producers[node.input[0]].op_type == "LayerNormalization"
        assert producers[node.input[1]].op_type == "Add"  # the query projection stays outside
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert values["plugin_version"] == b"1"
        assert values["plugin_namespace"] == b""


def test_fusing_twice_says_so(tiny_onnx):
    fused, _ = fuse(read_onnx(tiny_onnx))
    with pytest.raises(GraphError, match="already fused, it has 2 LslaAttention nodes"):
        fuse(fused)


def test_fusing_is_repeatable(tiny_onnx):
    first, second = (fuse(read_onnx(tiny_onnx))[0].SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


CHANGES = {
    "heads of 32, window 7": {"head_width": 32, "image_size": 56, "windows": (7, 7)},
    "constant scale": {"dynamic_scale": False},
    "no outer bias": {"outer_bias": False},
    "neither": {"dynamic_scale": False, "inner_bias": False, "outer_bias": False},
}


@pytest.mark.parametrize("change", CHANGES)
def test_variants_of_the_model(change, tmp_path):
    config = dataclasses.replace(TINY, **CHANGES[change])
    model = build(config)
    export_onnx(model, config.image_size, tmp_path / "m.onnx")
    fused, report = fuse(read_onnx(tmp_path / "m.onnx"))
    assert len(report.fused) == 2
    check_fused(model, fused, torch.randn(2, 3, config.image_size, config.image_size))


def test_a_frozen_batch_is_fused_too(tiny):
    source = dynamo(tiny, torch.randn(2, 3, 32, 32))
    for value in (source.graph.input[0], source.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    del source.graph.value_info[:]  # they name the batch that is free no more
    frozen = onnx.shape_inference.infer_shapes(source)
    fused, report = fuse(frozen)
    assert len(report.fused) == 2
    check_fused(tiny, fused, torch.randn(2, 3, 32, 32))


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "vit_lsla_t.onnx"
    model = build(VIT_LSLA_T)
    export_onnx(model, 224, path)
    return model, path


@pytest.mark.parametrize("simplify", SIMPLIFIERS)
def test_vit_lsla_t(big, simplify):
    model, path = big
    fused, report = fuse(simplify(read_onnx(path)))
    maps = [(entry.num_heads, entry.window, entry.feature_map[0]) for entry in report.fused]
    assert maps == [(3, 14, 56)] * 2 + [(6, 14, 28)] * 2 + [(12, 14, 14)] * 6 + [(24, 7, 7)] * 2
    assert report.refusals == ()
    assert report.nodes_after == (164 if simplify is plain else report.nodes_after) < report.nodes_before / 2
    check_fused(model, fused, torch.randn(1, 3, 224, 224))


def test_vit_lsla_t_at_level_residual(big, record_property):
    model, path = big
    fused, report = fuse(read_onnx(path), level="residual")
    assert [entry.op for entry in report.fused] == [RESIDUAL_NAME] * 12
    assert report.refusals == ()
    assert report.nodes_after == 164 - 12 * 4  # LayerNorm, MatMul, Add, attention and Add are one
    record_property("largest_proof", report.max_error)  # 8e-7
    record_property("whole_graph", report.graph_error)  # 0: ONNX Runtime computes the same operators in the same order
    assert max(report.max_error, report.graph_error) <= 1e-4
    check_fused(model, fused, torch.randn(1, 3, 224, 224))
