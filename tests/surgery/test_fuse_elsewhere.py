"""Attentions written and exported by others are found by structure; those that only look alike are refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from other_attentions import Einsum, Windows
from surgery_parts import SIMPLIFIERS, dynamo, onnxslim, plain, run, torchscript
from torch import nn

from edge_lsla.errors import GraphError
from edge_lsla.operator import reference, relative_index
from edge_lsla.surgery.fuse import FusedAttention, fuse


def check_same(model: nn.Module, source: onnx.ModelProto, images: torch.Tensor, expected: FusedAttention) -> None:
    fused, report = fuse(source)
    assert report.fused == (expected,)
    with torch.no_grad():
        logits = model(images).numpy()
    assert np.abs(run(fused, images.numpy()) - logits).max() <= 1e-5 * max(1.0, np.abs(logits).max())


@pytest.mark.parametrize("simplify", SIMPLIFIERS)
@pytest.mark.parametrize("exporter", [dynamo, torchscript])
def test_einsum_on_rows_of_tokens(exporter, simplify):
    torch.manual_seed(0)
    model = Einsum(2, 16, 4).eval()
    images = torch.randn(2, 32, 4, 4)
    check_same(model, simplify(exporter(model, images)), images, FusedAttention("lsla_attention_0", 2, 4, (4, 4)))


@pytest.mark.parametrize("simplify", SIMPLIFIERS)
@pytest.mark.parametrize("exporter", [dynamo, torchscript])
def test_two_products_and_a_map_that_is_not_square(exporter, simplify):
    torch.manual_seed(0)
    model = Windows(2, 16, 4, scale=True, inner=True, outer=True).eval()
    images = torch.randn(2, 32, 8, 12)
    check_same(model, simplify(exporter(model, images)), images, FusedAttention("lsla_attention_0", 2, 4, (8, 12)))


@pytest.mark.parametrize(
    ("scale", "inner", "outer"),
    [(False, True, True), (True, False, True), (True, True, False), (False, False, False)],
)
def test_missing_terms_become_neutral_tables(scale, inner, outer):
    torch.manual_seed(0)
    model = Windows(2, 16, 2, scale=scale, inner=inner, outer=outer).eval()
    images = torch.randn(2, 32, 4, 4)
    source = dynamo(model, images)
    check_same(model, source, images, FusedAttention("lsla_attention_0", 2, 2, (4, 4)))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in fuse(source)[0].graph.initializer}
    for label, present in (("scale_weight", scale), ("inner_bias", inner), ("outer_bias", outer)):
        assert weights[f"lsla_attention_0.{label}"].any() == present


def graph_by_hand(tables: np.ndarray) -> onnx.ModelProto:
    """Write one attention of one head of 8 channels in 2x2 windows, on a [B, 4, 6, 8] map, node by node."""
    constants = {
        "cut": np.array([0, 2, 2, 3, 2, 8]),
        "flat": np.array([-1, 1, 4, 8]),
        "uncut": np.array([-1, 2, 3, 2, 2, 8]),
        "map": np.array([-1, 4, 6, 8]),
        "w": np.random.default_rng(1).standard_normal((8, 1)).astype(np.float32) / 3,
        "b": np.array([0.3], np.float32),
        "root": np.array(8**0.5, np.float32),
        "inside": tables[0],
        "outside": tables[1],
    }
    steps = [
        ("Abs", ["in"], "x", {}),  # something that computes, so that x begins here
        ("Neg", ["in"], "q", {}),
        ("Reshape", ["x", "cut"], "n1", {}),
        ("Transpose", ["n1"], "n2", {"perm": [0, 1, 3, 2, 4, 5]}),
        ("Reshape", ["n2", "flat"], "n3", {}),
        ("Reshape", ["q", "cut"], "n4", {}),
        ("Transpose", ["n4"], "n5", {"perm": [0, 1, 3, 2, 4, 5]}),
        ("Reshape", ["n5", "flat"], "n6", {}),
        ("MatMul", ["n3", "w"], "n7", {}),
        ("Add", ["n7", "b"], "n8", {}),
        ("Softplus", ["n8"], "n9", {}),
        ("Transpose", ["n3"], "n10", {"perm": [0, 1, 3, 2]}),
        ("MatMul", ["n6", "n10"], "n11", {}),
        ("Div", ["n11", "root"], "n12", {}),
        ("Mul", ["n9", "n12"], "n13", {}),
        ("Add", ["inside", "n13"], "n14", {}),
        ("Softmax", ["n14"], "n15", {"axis": 3}),
        ("Add", ["outside", "n15"], "n16", {}),
        ("MatMul", ["n16", "n3"], "n17", {}),
        ("Reshape", ["n17", "uncut"], "n18", {}),
        ("Transpose", ["n18"], "n19", {"perm": [0, 1, 3, 2, 4, 5]}),
        ("Reshape", ["n19", "map"], "out", {}),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, 6, 8]) for name in ("in", "out")]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in steps],
        "by hand",
        [value[0]],
        [value[1]],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_graph_written_by_hand():
    tables = np.random.default_rng(2).standard_normal((2, 9, 1)).astype(np.float32)
    source = graph_by_hand(tables[:, relative_index(2)].transpose(0, 3, 1, 2))
    fused, report = fuse(source)
    assert report.fused == (FusedAttention("lsla_attention_0", 1, 2, (4, 6)),)
    assert [node.op_type for node in fused.graph.node] == ["Abs", "Neg", "LslaAttention"]
    image = np.random.default_rng(3).standard_normal((2, 4, 6, 8)).astype(np.float32)
    weights = {tensor.name.split(".")[-1]: numpy_helper.to_array(tensor) for tensor in fused.graph.initializer}
    np.testing.assert_array_equal(weights["inner_bias"], tables[0])
    np.testing.assert_array_equal(weights["outer_bias"], tables[1])
    expected = reference(np.abs(image), -image, **weights, num_heads=1, window=2)
    np.testing.assert_allclose(run(fused, image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("keys", "keys come from another tensor than values"),
        ("values", "keys come from another tensor than values"),
        ("keys and values", "the scores depend on another tensor than x and query"),
        ("inner", "what is added to the scores is not a table of relative positions"),
        ("outer", "what is added after the softmax is not a table of relative positions"),
        ("outer depends on the input", "what is added after the softmax is not a table"),
        ("scale", "its numbers differ from the operator's formula by"),
    ],
)
@pytest.mark.parametrize("simplify", [plain, onnxslim])
def test_what_only_looks_alike_is_refused_with_the_reason(change, reason, simplify):
    torch.manual_seed(0)
    model = Einsum(2, 16, 4, change).eval()
    with pytest.raises(GraphError, match=f"no light self-limited attention was found.*{reason}") as caught:
        fuse(simplify(dynamo(model, torch.randn(2, 32, 4, 4))))
    assert caught.value.exit_code == 2


class Both(nn.Module):
    """A good attention, then one with keys of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.good, self.other = Windows(2, 16, 4, scale=True, inner=True, outer=True), Einsum(2, 16, 4, "keys")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.other(image * self.good(image)[:, :, None, None])


def test_a_good_one_is_fused_and_the_other_reported():
    torch.manual_seed(0)
    model, images = Both().eval(), torch.randn(2, 32, 4, 4)
    source = dynamo(model, images)
    fused, report = fuse(source)
    assert len(report.fused) == 1
    assert [refusal.reason for refusal in report.refusals] == ["keys come from another tensor than values"]
    assert report.refusals[0].where in {node.name for node in fused.graph.node}
    np.testing.assert_allclose(run(fused, images.numpy()), run(source, images.numpy()), rtol=0, atol=1e-5)


def test_windows_that_are_not_square_are_refused():
    class Rows(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.layer_norm(image.permute(0, 2, 3, 1), (8,))
            rows = x.reshape(-1, 1, 6, 8)  # a window is one row of the map
            return ((rows * 2).exp() @ rows.transpose(-1, -2)).softmax(-1) @ rows

    with pytest.raises(GraphError, match="window partition is not recognised"):
        fuse(dynamo(Rows(), torch.randn(2, 8, 4, 6)))


def test_a_graph_without_attention_says_so():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5), nn.Softmax(-1))
    model(torch.randn(1, 3, 8, 8))
    with pytest.raises(GraphError, match="it has no softmax that leads to a matrix product"):
        fuse(dynamo(model, torch.randn(2, 3, 8, 8)))


def test_an_old_opset_is_refused():
    graph = graph_by_hand(np.zeros((2, 1, 4, 4), np.float32))
    graph.opset_import[0].version = 13
    with pytest.raises(GraphError, match="opset is too old: 13"):
        fuse(graph)
