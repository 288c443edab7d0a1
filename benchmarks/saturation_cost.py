"""What saturation counters cost: the demo model and vit_lsla_t in INT8 without them, with them, and asked to count.

    python -m benchmarks.saturation_cost

On one thread, in turn, the plain graph in two sessions, which shows how far two sessions of one graph lie apart.
Where other programs take the cores away, the quickest tenth of the inferences tells more than the median.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.machine import keep
from benchmarks.models import build_t
from calibration.counters import add_counters
from edge_lsla.preprocessing import normalise
from edge_lsla.quantising import Calibrate, Quantiser
from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner, open_session
from edge_lsla.sources import read_source
from edge_lsla.timing import times_ms

ROUNDS = {"vit_lsla_demo": 400, "vit_lsla_t": 40}
WARM_UP, IMAGES = 5, 32
DEMO = Path(__file__).parents[1] / "demo"


def kernels(model: bytes, folder: Path) -> Counter[str]:
    """Count what ONNX Runtime runs."""
    path = folder / "optimised.onnx"
    open_session(model, 1, "benchmark", optimised=path)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def measure(path: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Return latencies, their ratios, and what differs in the graphs that run."""
    source = read_source(path)
    quantiser = Quantiser(source.graph, source.description, Calibrate(DEMO / "calibration", images=IMAGES))
    graph, _ = quantiser.int8("onnxruntime")
    plain, counting = graph.SerializeToString(), add_counters(graph).SerializeToString()
    size = source.description.preprocessing.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    image: NDArray[np.float32] = normalise(pixels, source.description.preprocessing)
    with (
        OnnxRuntimeRunner(plain, threads=1) as bare,
        OnnxRuntimeRunner(counting, threads=1) as counter,
        OnnxRuntimeRunner(plain, threads=1) as again,
    ):
        same = bare.run(image).tobytes() == counter.run(image).tobytes()
        runs: dict[str, Callable[[], object]] = {
            "plain": lambda: bare.run(image),
            "not_asked": lambda: counter.run(image),
            "plain_again": lambda: again.run(image),
            "asked": lambda: counter.saturation(image),
        }
        times = times_ms(runs, rounds, WARM_UP)
    quick = {name: statistics.quantiles(values, n=10)[0] for name, values in times.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    before, after = kernels(plain, folder), kernels(counting, folder)
    return {
        "median_ms": {name: round(value, 3) for name, value in medians.items()},
        "over_plain": {name: round(value / medians["plain"], 3) for name, value in medians.items()},
        "quickest_tenth_over_plain": {name: round(value / quick["plain"], 3) for name, value in quick.items()},
        "logits_bit_identical": same,
        "kernels_more": dict(after - before),
        "kernels_fewer": dict(before - after),
        "bytes_more": len(counting) - len(plain),
        "activations": len(OnnxRuntimeRunner(counting).counted),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_t(folder)
        models = {"vit_lsla_demo": DEMO / "vit_lsla_demo.safetensors", "vit_lsla_t": folder / "t.safetensors"}
        found = {model: measure(path, ROUNDS[model], folder) for model, path in models.items()}
    keep("saturation_cost", {"rounds": ROUNDS, "threads": 1, **found})


if __name__ == "__main__":
    main()
