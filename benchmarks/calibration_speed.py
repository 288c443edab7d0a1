"""INT8 calibration beside ONNX Runtime's `quantize_static`: `vit_lsla_t`, the same pictures, each in its own process.

Both read the pictures, measure, and write a Q/DQ model with per-channel weights. ONNX Runtime's percentile and entropy
keep every activation of every image until the end, so those two are compared on few images; its moving average is
`CalibMovingAverage`. `python -m benchmarks.calibration_speed [IMAGES]`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.machine import keep
from calibration.measure import measure_data
from calibration.pictures import choose_pictures
from calibration.qdq import insert_qdq
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.preprocessing import Preprocessing, to_tensor

DATA = Path(__file__).parents[1] / "output" / "demo-data"  # `make demo-data`
SHIPPED = Path(__file__).parents[1] / "demo" / "calibration"
IMAGES = 512
THEIR_MOST = {"percentile": 32, "entropy": 32}  # images: 4.4 GB of activations, and 70 GB for 512
METHODS = {"minmax": "MinMax", "moving": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
PREPROCESSING = Preprocessing(224)


def ours(graph: Path, data: Path, images: int, method: str, output: Path) -> None:
    model = onnx.load(graph)
    found = measure_data(model, PREPROCESSING, data, images, CalibrationSettings(method=method), lambda done, of: None)
    assert found.measured.ranges.images == images, found.left_out
    onnx.save(insert_qdq(model, found.measured.ranges, QdqSettings("onnxruntime"))[0], output)


def theirs(graph: Path, data: Path, images: int, method: str, output: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.paths = iter(choose_pictures(data, images))

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            path = next(self.paths, None)
            return None if path is None else {"images": to_tensor(path, PREPROCESSING)[None]}

    quantize_static(
        graph,
        output,
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[METHODS[method]],
        extra_options={"CalibMovingAverage": True} if method == "moving" else {},
    )


def build_graph(output: Path) -> None:
    """Write the fused graph of `vit_lsla_t`; speed does not depend on the weights, so random ones serve."""
    import torch

    from edge_lsla.export.onnx_export import export_onnx
    from edge_lsla.model.config import VIT_LSLA_T
    from edge_lsla.model.vit_lsla import VitLsla
    from edge_lsla.surgery.fuse import fuse

    torch.manual_seed(0)
    export_onnx(VitLsla(VIT_LSLA_T).eval(), VIT_LSLA_T.image_size, output)
    onnx.save(fuse(onnx.load(output))[0], output)


def measure(side: str, *arguments: str) -> dict[str, float]:
    """Run one side in a process of its own: seconds, seconds of processor time, and the largest resident size, MB."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.calibration_speed", side, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if side == "theirs" else None,  # it warns for each LayerNorm
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{side} {' '.join(arguments)} failed with {process.returncode}")
    processor = usage.ru_utime + usage.ru_stime
    return {"seconds": round(seconds, 1), "processor": round(processor, 1), "peak_mb": round(usage.ru_maxrss / 1024)}


def main(images: int = IMAGES) -> None:
    data = DATA if DATA.is_dir() else SHIPPED
    images = min(images, len(choose_pictures(data, images)))
    figures: dict[str, Any] = {}
    print("method      images  seconds: ours, theirs, ratio  processor: ours, theirs, ratio  peak MB: ours, theirs")
    with tempfile.TemporaryDirectory() as folder:
        graph = f"{folder}/fused.onnx"
        measure("graph", graph)  # in a process of its own: a child begins with the peak of the one that starts it
        for method in METHODS:
            count = min(images, THEIR_MOST.get(method, images))
            arguments = (graph, str(data), str(count), method, f"{folder}/q.onnx")
            a, b = measure("ours", *arguments), measure("theirs", *arguments)
            ratio = {name: round(a[name] / b[name], 2) for name in ("seconds", "processor")}
            print(
                f"{method:10}{count:8}{a['seconds']:16}{b['seconds']:8}{ratio['seconds']:7}"
                f"{a['processor']:18}{b['processor']:8}{ratio['processor']:7}{a['peak_mb']:15}{b['peak_mb']:8}",
                flush=True,
            )
            figures[method] = {"images": count, "ours": a, "quantize_static": b, "ratio": ratio}
    keep("calibration_speed", figures)


if __name__ == "__main__":
    sides: dict[str, Callable[[Path, Path, int, str, Path], None]] = {"ours": ours, "theirs": theirs}
    match sys.argv[1:]:
        case ["graph", output]:
            build_graph(Path(output))
        case [side, graph, data, images, method, output]:
            sides[side](Path(graph), Path(data), int(images), method, Path(output))
        case arguments:
            main(*map(int, arguments))
