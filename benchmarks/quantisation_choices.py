"""What scale migration and bias correction are worth, what INT8 in LayerNorm, softmax and attention costs, and what
becomes of models with outlier channels: the demo model, min-max ranges, judged on pictures it never saw."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.machine import keep
from calibration.activations import Activations
from calibration.bias_correction import correct_biases
from calibration.choices import CHOICES, Choices
from calibration.migration import MigrationReport, migrate_scales
from calibration.points import find_layers, find_norms
from calibration.qdq import insert_qdq
from calibration.ranges import Measured, collect
from calibration.settings import BACKENDS, CalibrationSettings, QdqSettings
from edge_lsla.data.folders import load_split
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.checkpoint import open_checkpoint
from edge_lsla.preprocessing import Preprocessing, to_tensor
from edge_lsla.surgery.fuse import fuse

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "calibration"))
from hard_model import make_hard  # noqa: E402  # the same models as in the tests

BATCH = 10
STRENGTHS = {"0.25": 0.25, "0.5": 0.5, "0.75": 0.75, "best": None}
HARD = {"layernorm": 100.0, "attention": 300.0, "gelu": 60.0}
BEHIND = {"attention": "key and value", "gelu": "GELU"}  # why migration leaves the layers that suffer

Pictures = tuple[np.ndarray, np.ndarray]


def pictures(data: Path, split: str, settings: Preprocessing) -> Pictures:
    found = load_split(data, split)
    return np.stack([to_tensor(path, settings) for path in found.paths]), np.array(found.labels)


def logits(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = Activations(model, [])
    parts = [session.run(images[start : start + BATCH])["logits"] for start in range(0, len(images), BATCH)]
    return np.concatenate(parts).astype(np.float64)


def measure(model: onnx.ModelProto, images: np.ndarray) -> Measured:
    """Ranges of what every choice needs: those of `collect`, and the LayerNorms' inputs."""
    measured = collect(model, [images], CalibrationSettings())
    names = [norm.x for norm in find_norms(model) if norm.x not in measured.ranges.ranges]
    session = Activations(model, names)
    values = [session.run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    more = {n: (float(min(v[n].min() for v in values)), float(max(v[n].max() for v in values))) for n in names}
    return dataclasses.replace(
        measured, ranges=dataclasses.replace(measured.ranges, ranges={**measured.ranges.ranges, **more})
    )


class Judge:
    """Compares quantised graphs with one float graph, on each set of pictures."""

    def __init__(self, model: onnx.ModelProto, calibration: np.ndarray, sets: dict[str, Pictures]) -> None:
        self.model, self.calibration, self.sets = model, calibration, sets
        self.expected = {name: logits(model, images) for name, (images, _) in sets.items()}
        self.measured = measure(model, calibration)

    def top1(self) -> dict[str, float]:
        return {name: top1(self.expected[name], labels) for name, (_, labels) in self.sets.items()}

    def judge(self, quantised: onnx.ModelProto) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, (images, labels) in self.sets.items():
            found, expected = logits(quantised, images), self.expected[name]
            noise = np.square(found - expected).sum()
            row[name] = {
                "sqnr_db": round(float(10 * np.log10(np.square(expected).sum() / noise)), 2),
                "top1": top1(found, labels),
                "agreement": round(100 * float((found.argmax(1) == expected.argmax(1)).mean()), 2),
            }
        return row

    def migrated(self, strength: float | None) -> tuple[onnx.ModelProto, Measured, MigrationReport]:
        model, report = migrate_scales(self.model, self.measured.peaks, strength)
        return model, measure(model, self.calibration), report


def top1(scores: np.ndarray, labels: np.ndarray) -> float:
    return round(100 * float((scores.argmax(1) == labels).mean()), 2)


def improvements(judge: Judge, backend: str, strengths: dict[str, float | None]) -> dict[str, Any]:
    """Plain INT8, with migration, with bias correction, with both."""
    rows: dict[str, Any] = {}
    settings = QdqSettings(backend)
    for name, strength in {"none": 0.0, **strengths}.items():
        model, measured = judge.model, judge.measured
        if name != "none":
            model, measured, _ = judge.migrated(strength)
        quantised, _ = insert_qdq(model, measured.ranges, settings)
        rows["plain" if name == "none" else f"migration {name}"] = judge.judge(quantised)
        if name in ("none", "0.5", "best"):
            start = time.perf_counter()
            corrected, report = correct_biases(model, quantised, [judge.calibration])
            row = {**judge.judge(corrected), "seconds": round(time.perf_counter() - start, 1), "images": report.images}
            rows["bias correction" if name == "none" else f"migration {name} + bias correction"] = row
    return rows


def chosen(judge: Judge, backend: str) -> dict[str, Any]:
    sets = {"+".join(names): names for names in (*((name,) for name in CHOICES), CHOICES)}
    return {
        f"INT8 {label}": judge.judge(
            insert_qdq(judge.model, judge.measured.ranges, QdqSettings(backend), Choices(names))[0]
        )
        for label, names in sets.items()
    }


def hard(judge: Judge, place: str, backend: str) -> dict[str, Any]:
    """An outlier model: plain, improved, and with the layers that migration cannot help kept in float."""
    rows = improvements(judge, backend, {"0.5": 0.5})
    if place in BEHIND:
        model, measured, report = judge.migrated(0.5)
        keep_float = tuple(entry.layer for entry in report.left if BEHIND[place] in entry.reason)
        if place == "gelu" and backend == "onnxruntime":
            keep_float += before_gelu(model)
        mixed, _ = insert_qdq(model, measured.ranges, QdqSettings(backend, keep_float=keep_float))
        share = len(keep_float) / len(find_layers(model))
        rows[f"migration 0.5, {len(keep_float)} layers ({share:.0%}) kept in float"] = judge.judge(mixed)
    return rows


def before_gelu(model: onnx.ModelProto) -> tuple[str, ...]:
    """Convolutions that a GELU reads: ONNX Runtime's form quantises what they make, outliers and all."""
    read = {node.input[0] for node in model.graph.node if node.op_type == "Gelu"}
    return tuple(layer.name for layer in find_layers(model) if layer.op == "Conv" and layer.output in read)


def show(title: str, rows: dict[str, Any]) -> None:
    print(f"\n{title}")
    for label, row in rows.items():
        cells = [f"{name} {v['sqnr_db']:6.2f} dB {v['top1']:6.2f} % {v['agreement']:6.2f} %" for name, v in row.items()
                 if isinstance(v, dict)]  # fmt: skip
        print(f"  {label:45s} " + " | ".join(cells))


def main() -> None:
    demo = open_checkpoint(ROOT / "demo" / "vit_lsla_demo.safetensors")
    settings = demo.description.preprocessing
    calibration, _ = pictures(ROOT / "demo", "calibration", settings)
    sets = {"heldout": pictures(ROOT / "demo", "heldout", settings)}
    if (ROOT / "output" / "demo-data" / "val").is_dir():
        sets["val"] = pictures(ROOT / "output" / "demo-data", "val", settings)
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(demo.model, demo.image_size, Path(folder) / "model.onnx")
        fused = fuse(onnx.load(Path(folder) / "model.onnx"))[0]
    judge = Judge(fused, calibration, sets)
    figures: dict[str, Any] = {
        "pictures": {"calibration": len(calibration), **{name: len(labels) for name, (_, labels) in sets.items()}},
        "float_top1": judge.top1(),
    }
    _, _, report = judge.migrated(None)
    figures["migration_best"] = {entry.norm: [entry.strength, round(entry.gain_db, 1)] for entry in report.migrated}
    figures["not_migrated"] = {entry.layer: entry.reason for entry in report.left}
    for backend in BACKENDS:
        figures[backend] = {**improvements(judge, backend, STRENGTHS), **chosen(judge, backend)}
    for place, factor in HARD.items():
        hard_judge = Judge(make_hard(fused, 4, factor, place), calibration, sets)
        for backend in BACKENDS:
            figures[f"hard {place} x{factor:g}, {backend}"] = hard(hard_judge, place, backend)
    keep("quantisation_choices", figures)
    for title, rows in figures.items():
        if title in BACKENDS or title.startswith("hard"):
            show(title, rows)


if __name__ == "__main__":
    main()
