"""Bundles to measure with: speed does not depend on the weights, so random ones serve."""

from __future__ import annotations

from pathlib import Path

import torch

import cli
from edge_lsla.model.checkpoint import save_checkpoint
from edge_lsla.model.config import VIT_LSLA_T
from edge_lsla.model.vit_lsla import VitLsla
from edge_lsla.preprocessing import Preprocessing


def build_t(folder: Path, precision: str = "fp32", data: Path | None = None) -> tuple[VitLsla, Path]:
    """Return `vit_lsla_t` with random weights, and a bundle of it."""
    torch.manual_seed(0)
    model = VitLsla(VIT_LSLA_T).eval()
    labels = tuple(f"class {index}" for index in range(VIT_LSLA_T.classes))
    checkpoint, bundle = folder / "t.safetensors", folder / "t.lsla"
    save_checkpoint(checkpoint, model.state_dict(), VIT_LSLA_T, labels, Preprocessing(VIT_LSLA_T.image_size))
    arguments = ["build-engine", str(checkpoint), "-o", str(bundle), "--precision", precision]
    cli.app([*arguments, *(["--data", str(data)] if data else [])], standalone_mode=False)
    return model, bundle
