"""A tiny ViT-LSLA and its export."""

from __future__ import annotations

from pathlib import Path

import pytest
from surgery_parts import TINY, build

from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.vit_lsla import VitLsla


@pytest.fixture(scope="session")
def tiny() -> VitLsla:
    return build(TINY)


@pytest.fixture(scope="session")
def tiny_onnx(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    export_onnx(tiny, 32, path)
    return path
