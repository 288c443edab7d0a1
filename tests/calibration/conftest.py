"""A tiny trained-looking ViT-LSLA as ONNX, unfused and fused, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.config import VitLslaConfig
from edge_lsla.model.vit_lsla import VitLsla
from edge_lsla.surgery.fuse import fuse

TINY = VitLslaConfig(
    name="tiny", classes=5, image_size=32, widths=(32, 64), depths=(1, 1), windows=(4, 4), mlp_ratio=2.0
)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The unfused export; weights as wide as trained ones, so that activations are neither dead nor linear."""
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(5)  # the small ones are added to what they begin with
    model = VitLsla(TINY).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    path: Path = tmp_path_factory.mktemp("calibration") / "tiny.onnx"
    export_onnx(model, TINY.image_size, path)
    return onnx.load(path)


@pytest.fixture(scope="session")
def fused(plain: onnx.ModelProto) -> onnx.ModelProto:
    return fuse(plain)[0]


@pytest.fixture(scope="session", params=["plain", "fused"])
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    found: onnx.ModelProto = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((12, 3, 32, 32), dtype=np.float32)
