"""The verb `benchmark`: how fast a bundle's precisions are on this device, side by side."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla.console import say
from edge_lsla.errors import UsageError
from edge_lsla.timing import times_ms
from edge_lsla.verbs.engine import words
from edge_lsla.verbs.opening import Backend, Rebuild, Threads, opened

if TYPE_CHECKING:
    from edge_lsla.runner.model import Model


def benchmark(
    engine: Annotated[Optional[Path], typer.Argument(help="A bundle; default: the demo bundle.")] = None,
    precision: Annotated[Optional[str], typer.Option(help="Some, with commas; default: all of the bundle's.")] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1",
    repeats: Annotated[int, typer.Option(min=10, help="Inferences measured of each.")] = 100,
    backend: Backend = "auto",
    threads: Threads = None,
    rebuild: Rebuild = True,
) -> dict[str, Any]:
    """Measure latency and throughput of each precision, in turn so that all meet the same load.

    The time is that of one call, from the preprocessed images to the logits, by the caller's clock.
    """
    import numpy as np

    from edge_lsla.runner.latency import Percentiles
    from edge_lsla.tables import latencies

    sizes = _sizes(batch)
    with contextlib.ExitStack() as stack:

        def start(one: str | None, on: str) -> Model:
            return stack.enter_context(opened(engine, on, one, threads, rebuild=rebuild, batch=max(sizes)))

        asked = words(precision) or (None,)
        models = [start(asked[0], backend)]
        first = models[0].artifact
        held = [one.precision for one in models[0].manifest.artifacts if one.backend == first.backend]
        rest = asked[1:] if precision else [one for one in dict.fromkeys(held) if one != first.precision]
        models += [start(one, first.backend) for one in rest]
        side = models[0].preprocessing.image_size
        rows = []
        for size in sizes:
            images = np.random.default_rng(0).standard_normal((size, 3, side, side), np.float32)
            runs = {model.artifact.precision: functools.partial(model.logits, images) for model in models}
            for name, times in times_ms(runs, repeats).items():
                found = Percentiles.of(times)
                rows.append(
                    {
                        "precision": name,
                        "batch": size,
                        "median_ms": found.median,
                        "p90_ms": found.p90,
                        "p99_ms": found.p99,
                        "images_per_second": round(1000 * size / found.median, 1),
                    }
                )
        device = models[0].describe()
    say().print(latencies(rows, f"{device['backend']} {device['version']} on {device['device']}, {repeats} repeats"))
    return {"device": device, "repeats": repeats, "results": rows}


def _sizes(text: str) -> list[int]:
    sizes = [int(word) if word.isdecimal() else 0 for word in words(text)]
    if not sizes or min(sizes) < 1 or max(sizes) > 4096:
        raise UsageError("batch sizes are numbers from 1 to 4096", f"--batch {text}", "write them like 1,8")
    return sizes
