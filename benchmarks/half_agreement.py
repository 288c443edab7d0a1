"""How far half precision moves the demo model, judged in true half precision on every held-out picture, and how close
each layer comes to the end of half's range; the split form of `vit_lsla_t` beside PyTorch."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.machine import keep
from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.data.folders import load_split
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.checkpoint import open_checkpoint
from edge_lsla.model.config import VIT_LSLA_T
from edge_lsla.model.vit_lsla import LslaAttention, VitLsla
from edge_lsla.preprocessing import Preprocessing, to_tensor
from edge_lsla.surgery.fuse import fuse, fuse_quantised
from edge_lsla.surgery.half import to_half
from edge_lsla.surgery.half_measure import HalfMeasure, choose_half, measure_half
from edge_lsla.surgery.split import split_attention
from edge_lsla.surgery.topology import session

DEMO = Path(__file__).parents[1] / "demo"
BATCH = 12


def pictures(split: str, settings: Preprocessing) -> list[np.ndarray]:
    pixels = [to_tensor(path, settings) for path in load_split(DEMO, split).paths]
    return [np.stack(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]


def exported(model: torch.nn.Module, side: int, folder: Path) -> onnx.ModelProto:
    export_onnx(model, side, folder / "model.onnx")
    return onnx.load(folder / "model.onnx")


def agreement(measure: HalfMeasure) -> dict[str, Any]:
    return {
        "pictures": measure.images,
        "top1_agreement": round(measure.top1_agreement, 5),
        "max_relative_difference_of_a_logit": float(f"{measure.max_difference:.3g}"),
        "largest_activation_over_65504": float(f"{measure.largest.ratio:.3g}"),
        "in_layer": measure.largest.layer,
    }


def lively_t() -> VitLsla:
    """`vit_lsla_t` with random tables and scales that show in the logits."""
    torch.manual_seed(3)
    model = VitLsla(VIT_LSLA_T).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LslaAttention):
                for table in (module.scale_weight, module.scale_bias, module.inner_bias, module.outer_bias):
                    table.normal_(std=0.2)
    return model


def split_beside_torch(model: torch.nn.Module, split: onnx.ModelProto, images: np.ndarray) -> float:
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    found = session(split).run(None, {"images": images})[0]
    return float(f"{np.abs(found - expected).max() / max(1.0, np.abs(expected).max()):.3g}")


def main() -> None:
    demo = open_checkpoint(DEMO / "vit_lsla_demo.safetensors")
    settings = demo.description.preprocessing
    calibration, heldout = pictures("calibration", settings), pictures("heldout", settings)
    with tempfile.TemporaryDirectory() as name:
        fused = fuse(exported(demo.model, demo.image_size, Path(name)))[0]
        big = lively_t()
        big_fused = fuse(exported(big, 224, Path(name)))[0]
    half, report, _ = choose_half(fused, calibration)
    start = time.perf_counter()
    measure = measure_half(fused, half, heldout)
    seconds = time.perf_counter() - start
    split = split_attention(half)
    ranges = collect_ranges(fused, calibration, CalibrationSettings())
    int8 = insert_qdq(fused, ranges, QdqSettings("tensorrt"))[0]
    int8_attention = fuse_quantised(insert_qdq(fused, ranges, QdqSettings("tensorrt", attention="int8"))[0])[0]
    noise = np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32)
    big_half = to_half(big_fused)[0]
    figures = {
        "fp16": agreement(measure),
        "kept_in_fp32": [f"{entry.where}: {entry.reason}" for entry in report.kept],
        "fp16_split": agreement(measure_half(fused, split, heldout)),
        "int8_fp16_beside_int8_fp32": agreement(measure_half(int8, to_half(int8)[0], heldout)),
        "int8_attention_fp16_beside_int8_fp32": agreement(
            measure_half(int8_attention, to_half(int8_attention)[0], heldout)
        ),
        "split_beside_pytorch_demo": split_beside_torch(demo.model, split_attention(fused), heldout[0]),
        "split_beside_pytorch_vit_lsla_t": split_beside_torch(big, split_attention(big_fused), noise),
        "vit_lsla_t_fp16": agreement(measure_half(big_fused, big_half, [noise])),
        "seconds_for_the_first": round(seconds, 1),
        "activation_over_65504": {layer: float(f"{ratio:.3g}") for layer, ratio in measure.layers.items()},
    }
    keep("half_agreement", figures)
    if measure.top1_agreement < 0.995:
        raise SystemExit("half precision agrees with float32 on fewer than 99.5 % of the pictures")


if __name__ == "__main__":
    main()
