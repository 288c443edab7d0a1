"""A traced model shows the tensors that the exported file names, with the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edge_lsla.errors import GraphError, UsageError
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.export.tracing import TracedModel
from edge_lsla.model.config import VitLslaConfig
from edge_lsla.model.vit_lsla import VitLsla

TINY = VitLslaConfig("tiny", classes=5, image_size=32, widths=(32, 64), depths=(1, 1), windows=(4, 4), mlp_ratio=2.0)


@pytest.fixture(scope="module")
def model() -> VitLsla:
    torch.manual_seed(3)
    return VitLsla(TINY).eval()


@pytest.fixture(scope="module")
def traced(model: VitLsla) -> TracedModel:
    return TracedModel("tiny", model, 32)


def images(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).standard_normal((count, 3, 32, 32), dtype=np.float32)


@pytest.mark.parametrize("count", [1, 3])
def test_every_tensor_has_the_value_that_the_exported_file_gives_it(
    model: VitLsla, traced: TracedModel, count: int, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    export_onnx(model, 32, path)
    graph = onnx.load(path)
    made = {tensor for node in graph.graph.node for tensor in node.output}
    shared = [name for name in traced.made if name in made and name != "logits"]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in shared)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"images": images(count)})))
    found = dict(traced.tensors(images(count)))

    # Every weighted layer, attention's parts and the residual sums; only helpers such as `clone` are not in the file.
    assert len(shared) > 0.75 * len(traced.made)
    assert {"conv2d", "layer_norm", "linear", "softmax", "gelu"} <= set(shared)
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * max(1.0, np.abs(value).max()), err_msg=name)


def test_logits_are_the_models_own(model: VitLsla, traced: TracedModel) -> None:
    found = dict(traced.tensors(images(2), ["logits"]))
    assert list(found) == ["logits"]
    with torch.no_grad():
        np.testing.assert_array_equal(found["logits"], model(torch.from_numpy(images(2))).numpy())


def test_it_knows_where_each_tensor_comes_from(traced: TracedModel) -> None:
    assert next(iter(traced.made)) == "images"
    query = traced.made["linear"]
    assert (query.op, query.module, query.inputs) == ("linear", "stages.0.0.attention.query", ("layer_norm_1",))
    assert traced.made["permute"].moves
    assert not query.moves
    assert list(traced.made)[-1] == "logits"
    # Bias tables and shapes do not depend on the images.
    assert not any(name.startswith("index") for name in traced.made)


def test_tensors_arrive_one_by_one_in_order_and_leave_gradients_alone(traced: TracedModel) -> None:
    names = []
    for name, _ in traced.tensors(images(1)):
        assert torch.is_grad_enabled()
        names.append(name)
    assert names == list(traced.made)


def test_images_of_another_size_are_refused(traced: TracedModel) -> None:
    with pytest.raises(UsageError, match=r"float32 \[1, 3, 16, 16\]: tiny; they must be float32 \[N, 3, 32, 32\]"):
        next(traced.tensors(np.zeros((1, 3, 16, 16), np.float32)))


class Deciding(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3)) if float(pixels.sum()) > 0 else pixels.sum((2, 3))


def test_a_model_that_torch_cannot_trace_is_refused() -> None:
    with pytest.raises(GraphError, match="torch cannot express the model in ONNX with a free batch size: Deciding"):
        TracedModel("deciding", Deciding(), 8)
