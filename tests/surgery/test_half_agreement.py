"""The shipped demo model on its own pictures: plugin-free, and in true half precision; benchmarks take all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from surgery_parts import run

from edge_lsla.data.folders import load_split
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.checkpoint import Checkpoint, open_checkpoint
from edge_lsla.preprocessing import to_tensor
from edge_lsla.surgery.fuse import fuse
from edge_lsla.surgery.half_measure import choose_half, measure_half
from edge_lsla.surgery.split import split_attention

DEMO = Path(__file__).parents[2] / "demo"
EVERY = 10  # 42 of 420 pictures, three of each class


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return open_checkpoint(DEMO / "vit_lsla_demo.safetensors")


@pytest.fixture(scope="module")
def fused(demo: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("demo") / "demo.onnx"
    export_onnx(demo.model, demo.image_size, path)
    return fuse(onnx.load(path))[0]


@pytest.fixture(scope="module")
def batches(demo: Checkpoint) -> list[np.ndarray]:
    paths = load_split(DEMO, "heldout").paths[::EVERY]
    pixels = np.stack([to_tensor(path, demo.description.preprocessing) for path in paths])
    return np.array_split(pixels, 3)


def test_split_attention_equals_pytorch(demo, fused, batches):
    images = batches[0]
    with torch.no_grad():
        expected = demo.model(torch.from_numpy(images)).numpy()
    found = run(split_attention(fused), images)
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_half_agrees_with_float(fused, batches, record_property):
    half, report, measure = choose_half(fused, batches)
    assert measure.images == 42
    assert report.kept == ()
    assert set(report.precision.values()) == {"fp16"}
    assert measure.top1_agreement >= 0.995  # so all of them
    assert measure.max_difference <= 5e-3
    record_property("largest activation / 65504", f"{measure.largest.layer}: {measure.largest.ratio:.2e}")
    assert measure.largest.ratio < 0.01  # no layer of this model comes near the end

    split = measure_half(fused, split_attention(half), batches[:1])
    assert split.nonfinite == ()
    assert split.top1_agreement == 1.0
    assert split.max_difference <= 5e-3
