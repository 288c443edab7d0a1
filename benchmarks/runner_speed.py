"""The onnxruntime runner beside PyTorch eager: vit_lsla_t, batch 1, the same threads, in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import keep
from benchmarks.models import build_t
from edge_lsla import load
from edge_lsla.timing import medians_ms

ROUNDS, WARM_UP = 40, 5
DATA = Path(__file__).parents[1] / "demo" / "calibration"


def main() -> None:
    threads = torch.get_num_threads()
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        module, bundle = build_t(Path(folder), "fp32,int8", DATA)
        tensor = torch.from_numpy(image)
        with (
            load(bundle, precision="fp32", threads=threads) as fp32,
            load(bundle, precision="int8", threads=threads) as int8,
        ):

            def eager() -> object:
                with torch.inference_mode():
                    return module(tensor)

            runs: dict[str, Callable[[], object]] = {
                "pytorch_eager_ms": eager,
                "onnxruntime_fp32_ms": lambda: fp32.logits(image),
                "onnxruntime_int8_ms": lambda: int8.logits(image),
            }
            medians = {name: round(value, 2) for name, value in medians_ms(runs, ROUNDS, WARM_UP).items()}
    eager_ms = medians["pytorch_eager_ms"]
    ratios = {
        "fp32_times_eager": round(eager_ms / medians["onnxruntime_fp32_ms"], 2),
        "int8_times_eager": round(eager_ms / medians["onnxruntime_int8_ms"], 2),
    }
    keep("runner_speed", {"threads": threads, "rounds": ROUNDS, **medians, **ratios})


if __name__ == "__main__":
    main()
