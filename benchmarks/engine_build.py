"""Builds of vit_lsla_t with TensorRT for RTX, no GPU: time, peak memory and plan size by precision and targets."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.machine import keep
from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.build.tensorrt.builder import build_engine, describe_runtime
from edge_lsla.build.tensorrt.memory import forecast_bytes
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.config import VIT_LSLA_T
from edge_lsla.model.vit_lsla import VitLsla
from edge_lsla.surgery.fuse import fuse
from edge_lsla.surgery.half import to_half

ALL = ("sm86", "sm89", "sm120")
ONE = ((1, 1, 4),)
# Precision, targets of one plan, profiles, optimisation level.
BUILDS = (
    *((precision, ALL, ONE, 3) for precision in ("fp32", "fp16", "int8", "int8-fp16")),
    *((precision, (target,), ONE, 3) for precision in ("fp16", "int8") for target in ALL),
    ("fp16", ALL, ((1, 1, 1), (8, 8, 8)), 3),
    ("fp16", ALL, ONE, 0),
    ("fp16", ALL, ONE, 5),
)


def graphs(folder: Path) -> dict[str, bytes]:
    """vit_lsla_t with random weights: build time and size depend on shapes and types only."""
    torch.manual_seed(0)
    export_onnx(VitLsla(VIT_LSLA_T).eval(), VIT_LSLA_T.image_size, folder / "t.onnx")
    fused, _ = fuse(onnx.load(folder / "t.onnx"))
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32)
    int8, _ = insert_qdq(fused, collect_ranges(fused, [images], CalibrationSettings()), QdqSettings("tensorrt"))
    models = {"fp32": fused, "fp16": to_half(fused)[0], "int8": int8, "int8-fp16": to_half(int8)[0]}
    return {precision: model.SerializeToString() for precision, model in models.items()}


def main() -> None:
    runtimes = sorted((Path(sys.prefix) / "runtimes").glob("tensorrt-rtx-*"))
    if runtimes:  # as `make runtimes` leaves it; otherwise it is installed, or `describe_runtime` says what to do
        os.environ["PYTHONPATH"] = str(runtimes[-1])
    figures: dict[str, Any] = {"tensorrt_rtx": describe_runtime("tensorrt-rtx").version}
    with tempfile.TemporaryDirectory() as folder:
        models = graphs(Path(folder))
    for precision, targets, profiles, level in BUILDS:
        settings = BuildSettings("tensorrt-rtx", targets, profiles, optimisation_level=level)
        facts = build_engine(models[precision], settings).facts
        name = f"{precision} for {'+'.join(targets)}, {len(profiles)} profile(s), level {level}"
        figures[name] = {
            "parse_seconds": facts.parse_seconds,
            "build_seconds": facts.build_seconds,
            "peak_mb": round(facts.peak_bytes / 1e6, 1),
            "forecast_mb": round(forecast_bytes(settings, len(models[precision])) / 1e6, 1),
            "plan_mb": round(facts.plan_bytes / 1e6, 2),
            "onnx_mb": round(len(models[precision]) / 1e6, 2),
            "activation_mb": None if facts.activation_bytes is None else round(facts.activation_bytes / 1e6, 1),
            "computing": {kind: len(names) for kind, names in facts.computing.items()},
        }
    keep("engine_build", figures)


if __name__ == "__main__":
    main()
