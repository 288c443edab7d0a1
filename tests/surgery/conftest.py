"""A tiny ViT-LSLA and its export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from surgery_parts import TINY, build

from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.vit_lsla import VitLsla


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Threads that wait for each other cost minutes on a busy machine, and these models need none."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> VitLsla:
    return build(TINY)


@pytest.fixture(scope="session")
def tiny_onnx(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    export_onnx(tiny, 32, path)
    return path
