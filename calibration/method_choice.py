"""Which method's ranges keep a model's logits best: each is tried on a few calibration pictures.

What is best differs between models and between backends: on the demo model the methods lie 6 dB apart, and on
`vit_lsla_t` those that cut off the largest values lose to the plain minimum and maximum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.qdq import insert_qdq
from calibration.ranges import Measured
from calibration.ranges_file import Chosen, Ranges
from calibration.settings import METHODS, QdqSettings
from calibration.trial_images import TrialImages, sqnr_db

CLOSE = 0.1  # dB; of methods nearer to the best than that the simplest is taken
MOST_DB = 200.0  # beyond what float32 can tell; stands for equal logits in files, which hold no infinity


def choose_ranges(
    model: onnx.ModelProto,
    measured: Measured,
    settings: QdqSettings,
    batches: Iterable[NDArray[np.float32]],
    images: int = 64,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Ranges:
    """Return the ranges of the method whose Q/DQ graph has the best logits, and in `chosen` what each method gave.

    Best is the largest ratio of the float logits' power to that of their change, over all images. Graphs for TensorRT
    are computed as they are written, those for ONNX Runtime as it computes them on this machine. Methods that give the
    same ranges are tried once. Memory holds the images and one graph more.

    Args:
        model: float32, the one that was measured. It is not changed.
        measured: by `collect`, with any method.
        settings: whose Q/DQ is tried.
        batches: calibration images, float32 [n, 3, H, W], spread over the classes; read until there are enough.
        images: how many are taken. batch_size: how many run at once, where the graph does not fix it.
        progress: called with (methods done, of) after each method.

    Raises:
        DatasetError: no images, or one holds NaN or infinity.
        GraphError, RangesError, UsageError: see `insert_qdq`.
    """
    trial = TrialImages(model, batches, images, batch_size)
    logits = model.graph.output[0].name
    wanted = trial.logits(model, logits)
    found = {name: measured.by(name, symmetric=settings.backend == "tensorrt") for name in METHODS}
    tried: dict[str, float] = {}
    for done, (name, ranges) in enumerate(found.items(), 1):
        same = next((other for other in tried if found[other].ranges == ranges.ranges), None)
        if same is None:
            graph, _ = insert_qdq(model, ranges, settings)
            tried[name] = rounded_db(sqnr_db(wanted, trial.logits(graph, logits, settings.backend != "tensorrt")))
        else:
            tried[name] = tried[same]
        if progress is not None:
            progress(done, len(found))
    best = max(tried.values())
    method = next(name for name, db in tried.items() if db >= best - CLOSE)
    return dataclasses.replace(found[method], chosen=Chosen(settings.backend, trial.count, tried))


def rounded_db(value: float) -> float:
    """Return decibels to two places, within +-200, as a file keeps them."""
    return round(max(-MOST_DB, min(value, MOST_DB)), 2)
