"""Latency of engines of vit_lsla_t on this machine's GPU, by precision and batch, with and without CUDA graphs.

    python -m benchmarks.engine_latency [tensorrt|tensorrt-rtx]

Engines are built here from the function body, without the plugin. Needs a GPU, TensorRT, pycuda and cuda-python.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.engine_build import graphs
from benchmarks.machine import keep
from edge_lsla.build.tensorrt.builder import build_engine
from edge_lsla.build.tensorrt.settings import BACKENDS, BuildSettings
from edge_lsla.device import describe_device
from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.runner.cuda_context import check_gpu
from edge_lsla.runner.tensorrt import TensorRtRunner

PROFILES = ((1, 1, 1), (8, 8, 8))
REPEATS = 500


def measure(plan: bytes, backend: str) -> dict[str, Any]:
    """Return latencies of the profiles' batches, and memory."""
    found: dict[str, Any] = {}
    for kind in (True, False):
        with TensorRtRunner(plan, backend, graphs=kind) as runner:
            for _, batch, _ in PROFILES:
                latency = runner.measure(batch, REPEATS)
                found[f"batch {batch}, {'graph' if latency.graph else 'no graph'}"] = latency.to_dict()
            found["description"] = runner.describe()
    return found


def main(backend: str) -> None:
    if backend not in BACKENDS:
        raise UsageError(f"no such backend {backend!r}", "benchmark", f"use {' or '.join(BACKENDS)}")
    check_gpu()
    device = describe_device()
    targets = (str(device.target),) if backend == "tensorrt-rtx" else ()
    figures: dict[str, Any] = {"backend": backend, "gpu": device.gpu, "driver": device.driver, "repeats": REPEATS}
    with tempfile.TemporaryDirectory() as folder:
        models = graphs(Path(folder))
    for precision, model in models.items():
        plan = build_engine(model, BuildSettings(backend, targets, PROFILES, optimisation_level=5)).data
        figures[precision] = measure(plan, backend)
    keep(f"engine_latency_{backend}", figures)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "tensorrt")
    except EdgeLslaError as problem:
        sys.stderr.write(f"engine_latency: {problem}\n")
        sys.exit(problem.exit_code)
