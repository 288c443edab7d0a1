"""The residual level: LayerNorm, query projection, attention and Add become one node, or stay with the reason."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from other_attentions import Branch, Einsum
from surgery_parts import SIMPLIFIERS, TINY, build, dynamo, onnxslim, plain, run, torchscript, weight

from edge_lsla.errors import AccuracyError, GraphError, UsageError
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.vit_lsla import Block, VitLsla
from edge_lsla.operator import NAME, RESIDUAL_ATTRIBUTES, RESIDUAL_NAME
from edge_lsla.surgery.function import drop_function
from edge_lsla.surgery.fuse import FusedAttention, fuse
from edge_lsla.surgery.onnx_file import read_onnx
from edge_lsla.surgery.rewrite import write_residuals

NODES = (
    FusedAttention("lsla_attention_0", 2, 4, (8, 8), RESIDUAL_NAME),
    FusedAttention("lsla_attention_1", 4, 2, (4, 4), RESIDUAL_NAME),
)


@pytest.fixture(scope="module")
def normed() -> VitLsla:
    """The tiny model with norms and query biases that are not one and zero."""
    model = build(TINY)
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "query" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def normed_onnx(normed, tmp_path_factory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("normed") / "m.onnx"
    export_onnx(normed, 32, path)
    return read_onnx(path)


def check_merged(model, fused, report, images, tolerance=1e-5):
    assert report.fused == NODES
    assert report.refusals == ()
    assert report.max_error <= tolerance
    assert report.graph_error <= tolerance
    onnx.checker.check_model(fused, full_check=True)
    kinds = [node.op_type for node in fused.graph.node]
    assert kinds.count(RESIDUAL_NAME) == 2
    assert NAME not in kinds
    assert {function.name for function in fused.functions} == {RESIDUAL_NAME}
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.abs(run(fused, images.numpy()) - expected).max() <= tolerance * max(1.0, np.abs(expected).max())
    for index, block in enumerate(module for module in model.modules() if isinstance(module, Block)):
        query = block.attention.query
        for name, value in (
            ("norm_weight", block.norm1.weight),
            ("norm_bias", block.norm1.bias),
            ("query_weight", query.weight.T),
            ("query_bias", query.bias),
            ("inner_bias", block.attention.inner_bias),
        ):
            found = weight(fused, f"lsla_attention_{index}.{name}")
            np.testing.assert_array_equal(found, value.detach().numpy(), err_msg=name)


@pytest.mark.parametrize("simplify", SIMPLIFIERS)
def test_every_branch_becomes_one_node(normed, normed_onnx, simplify):
    source = simplify(normed_onnx)
    before = source.SerializeToString(deterministic=True)
    fused, report = fuse(source, level="residual")
    assert source.SerializeToString(deterministic=True) == before
    assert (report.nodes_before, report.nodes_after) == (len(source.graph.node), len(fused.graph.node))
    check_merged(normed, fused, report, torch.randn(3, 3, 32, 32))


@pytest.mark.parametrize("simplify", SIMPLIFIERS)
@pytest.mark.parametrize("opset", [15, 16, 17])
def test_layer_norm_in_small_operators(normed, opset, simplify):
    """Before opset 17 there is no LayerNormalization: weights are recovered bit for bit, and so is epsilon."""
    source = simplify(torchscript(normed, torch.randn(2, 3, 32, 32), opset))
    kinds = {node.op_type for node in source.graph.node}
    assert ("LayerNormalization" in kinds, "Pow" in kinds) == (opset == 17, opset < 17)
    fused, report = fuse(source, level="residual")
    check_merged(normed, fused, report, torch.randn(3, 3, 32, 32))
    nodes = [node for node in fused.graph.node if node.op_type == RESIDUAL_NAME]
    epsilons = [attribute.f for node in nodes for attribute in node.attribute if attribute.name == "epsilon"]
    assert epsilons == [np.float32(1e-5)] * 2


def test_half_precision(normed):
    half, images = copy.deepcopy(normed).half(), torch.randn(2, 3, 32, 32)
    fused, report = fuse(torchscript(half, images.half()), level="residual")
    assert report.fused == NODES
    assert report.max_error <= 2e-3  # n and the query are rounded to float16 between nodes, and not in the operator
    assert report.graph_error <= 2e-3
    node = next(node for node in fused.graph.node if node.op_type == RESIDUAL_NAME)
    types = {tensor.name: tensor.data_type for tensor in fused.graph.initializer}
    assert {types[name] for name in node.input if name in types} == {onnx.TensorProto.FLOAT16}
    with torch.no_grad():
        expected = normed(images).numpy()
    found = run(fused, images.half().numpy()).astype(np.float32)
    assert np.abs(found - expected).max() <= 2e-2 * max(1.0, np.abs(expected).max())


def test_a_fused_graph_goes_on(normed_onnx):
    direct, _ = fuse(normed_onnx, level="residual")
    attention, _ = fuse(normed_onnx)
    for source in (attention, drop_function(attention)):  # TensorRT's form has no functions
        merged, report = fuse(source, level="residual")
        assert report.fused == NODES
        assert report.nodes_before == len(source.graph.node)
        assert merged.SerializeToString(deterministic=True) == direct.SerializeToString(deterministic=True)
    with pytest.raises(GraphError, match="already fused, it has 2 LslaResidualAttention nodes"):
        fuse(direct, level="residual")
    with pytest.raises(GraphError, match="already fused, it has 2 LslaResidualAttention nodes"):
        fuse(direct)


def test_the_node_keeps_the_operator_contract(normed_onnx):
    fused, _ = fuse(normed_onnx, level="residual")
    information = {value.name: value.type.tensor_type for value in fused.graph.value_info}
    nodes = [node for node in fused.graph.node if node.op_type == RESIDUAL_NAME]
    for node, side, channels in zip(nodes, (8, 4), (32, 64)):
        dims = [d.dim_param or d.dim_value for d in information[node.output[0]].shape.dim]
        assert (dims, information[node.output[0]].elem_type) == (
            ["batch", side, side, channels],
            onnx.TensorProto.FLOAT,
        )
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert set(values) == set(RESIDUAL_ATTRIBUTES)
        assert values["epsilon"] == np.float32(1e-5)
        assert (values["plugin_version"], values["plugin_namespace"]) == (b"1", b"")


def test_only_the_channels_asked_for(normed, normed_onnx):
    fused, report = fuse(normed_onnx, level="residual", channels=(32, 96))
    assert [entry.op for entry in report.fused] == [RESIDUAL_NAME, NAME]
    assert [refusal.where for refusal in report.refusals] == ["lsla_attention_1"]
    assert report.refusals[0].reason == "64 channels are not among those to merge: 32, 96"
    assert {function.name for function in fused.functions} == {RESIDUAL_NAME, NAME}
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = normed(images).numpy()
    np.testing.assert_allclose(run(fused, images.numpy()), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    # the rest can be merged later
    later, report = fuse(fused, level="residual")
    assert report.fused == NODES
    assert {function.name for function in later.functions} == {RESIDUAL_NAME}


def test_a_frozen_batch_is_merged_too(normed):
    source = torchscript(normed, torch.randn(2, 3, 32, 32))
    for value in (source.graph.input[0], source.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    del source.graph.value_info[:]
    fused, report = fuse(onnx.shape_inference.infer_shapes(source), level="residual")
    check_merged(normed, fused, report, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("simplify", SIMPLIFIERS)
def test_a_branch_on_rows_of_tokens(simplify):
    """[B, L, C] everywhere: the node gets a Reshape on each side."""
    torch.manual_seed(0)
    model, images = Einsum(2, 16, 4).eval(), torch.randn(2, 32, 4, 4)
    fused, report = fuse(simplify(torchscript(model, images)), level="residual")
    assert report.fused == (FusedAttention("lsla_attention_0", 2, 4, (4, 4), RESIDUAL_NAME),)
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(run(fused, images.numpy()), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def branch(change: str, exporter=torchscript, simplify=plain):
    torch.manual_seed(0)
    model, images = Branch(change).eval(), torch.randn(2, 32, 4, 6)
    source = simplify(exporter(model, images))
    fused, report = fuse(source, level="residual")
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(run(fused, images.numpy()), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    return model, fused, report


@pytest.mark.parametrize(
    ("exporter", "simplify"), [(torchscript, plain), (torchscript, onnxslim), (dynamo, plain)], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("change", ["", "rows", "no bias", "changed query"])
def test_ways_to_write_the_projection(change, exporter, simplify):
    model, fused, report = branch(change, exporter, simplify)
    assert report.fused == (FusedAttention("lsla_attention_0", 2, 2, (4, 6), RESIDUAL_NAME),)
    assert {"MatMul", "Gemm", "LayerNormalization"}.isdisjoint(node.op_type for node in fused.graph.node)
    # the attention of `Windows` leaves 1 / sqrt(d) out, so that the query gets it as a factor
    factor, shift = (0.5 / 3, model.other.bias / 3) if change == "changed query" else (1.0, 0.0)
    q = model.windows.q
    bias = torch.zeros(32) if q.bias is None else q.bias
    for name, value in (("query_weight", q.weight.T * factor * 4), ("query_bias", (bias * factor - shift) * 4)):
        found = weight(fused, f"lsla_attention_0.{name}")
        np.testing.assert_allclose(found, value.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weight(fused, "lsla_attention_0.norm_weight"), model.norm.weight.detach().numpy())
    assert next(a.f for n in fused.graph.node for a in n.attribute if a.name == "epsilon") == np.float32(2e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("norm", "the attention's input is made by Transpose, not by a LayerNorm of what is added"),
        ("query of another tensor", "the query is projected from another tensor than the attention's input: "),
        ("query by two", "the query is made by Mul, not by a product with a constant matrix"),
        ("scaled result", "the attention's result goes to Mul, not to a residual Add"),
        ("another tensor", "the attention's input is made by"),
        ("post-norm", "what is added is the attention's own input, not the tensor before the LayerNorm"),
        ("n read elsewhere", " is also read by Tanh "),
        ("query read elsewhere", " is also read by Tanh "),
        ("y read elsewhere", "the attention's result is read 2 times, not by one Add"),
    ],
)
def test_what_does_not_fit_stays_an_attention_with_the_reason(change, reason):
    _, fused, report = branch(change)
    assert [entry.op for entry in report.fused] == [NAME]
    assert [refusal.where for refusal in report.refusals] == ["lsla_attention_0"]
    assert reason in report.refusals[0].reason
    assert {function.name for function in fused.functions} == {NAME}


def test_an_inner_tensor_that_is_an_output_stays(normed_onnx):
    source = copy.deepcopy(normed_onnx)
    node = next(node for node in source.graph.node if node.op_type == "MatMul")
    source.graph.output.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    _, report = fuse(source, level="residual")
    assert [entry.op for entry in report.fused] == [NAME, RESIDUAL_NAME]
    assert report.refusals[0].reason == f"{node.output[0]} is an output of the graph"


def test_asking_an_inner_tensor_for_its_shape_changes_nothing(normed_onnx):
    source = copy.deepcopy(normed_onnx)
    n = next(node for node in source.graph.node if node.op_type == "MatMul").input[0]
    source.graph.node.append(helper.make_node("Shape", [n], ["size"]))
    source.graph.output.append(helper.make_tensor_value_info("size", onnx.TensorProto.INT64, [4]))
    fused, report = fuse(source, level="residual")
    assert report.fused == NODES
    assert n not in {name for node in fused.graph.node for name in node.output}


def test_the_whole_graph_comparison_covers_it(normed_onnx, monkeypatch):
    def shifted(source, residuals):
        moved = [dataclasses.replace(entry, norm_bias=entry.norm_bias + np.float32(0.05)) for entry in residuals]
        return write_residuals(source, moved)

    monkeypatch.setattr("edge_lsla.surgery.fuse.write_residuals", shifted)
    with pytest.raises(AccuracyError, match="fusion moved an output by"):
        fuse(normed_onnx, level="residual")


def test_statistics_in_another_type_stay(normed_onnx):
    source = copy.deepcopy(normed_onnx)
    norms = [node for node in source.graph.node if node.op_type == "LayerNormalization"]
    next(a for a in norms[1].attribute if a.name == "stash_type").i = onnx.TensorProto.DOUBLE
    _, report = fuse(source, level="residual")
    assert report.refusals[0].reason == "the statistics of the LayerNorm are not float32"


def test_a_wrong_formula_is_refused_by_numbers(normed_onnx):
    """Structure alone does not see a variance that is not one."""
    source = torchscript(build(TINY), torch.randn(2, 3, 32, 32), 15)
    powers = {node.input[1] for node in source.graph.node if node.op_type == "Pow"}
    for node in source.graph.node:
        if node.op_type == "Constant" and node.output[0] in powers:
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(4, np.float32)))
    _, report = fuse(source, level="residual")
    assert [entry.op for entry in report.fused] == [NAME, NAME]
    assert all("differs from the operator's formula by" in refusal.reason for refusal in report.refusals)


def test_an_unknown_level(normed_onnx):
    with pytest.raises(UsageError, match="unknown level 'block'"):
        fuse(normed_onnx, level="block")
