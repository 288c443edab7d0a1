"""The last proof of every surgery: the whole graph before and after, on the same random input."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto

from edge_lsla.errors import AccuracyError
from edge_lsla.surgery.topology import random_inputs, session

TOLERANCE = {np.dtype(np.float16): 1e-2}  # ORT rounds to float16 between fewer operators once fused
TOLERANCE_FLOAT = 1e-4
TOLERANCE_INT8 = 5e-2  # a value between two steps of int8 may be rounded to the other one


def allowed_difference(dtype: np.dtype[Any]) -> float:
    """Return how far a tensor may move, relative to max(1, its largest value)."""
    return TOLERANCE.get(dtype, TOLERANCE_FLOAT)


def compare(source: ModelProto, fused: ModelProto, tolerance: float | None = None) -> float:
    """Run both graphs on the same random input and return by how much an output moved, relative to max(1, max|y|).

    Args:
        source, fused: before and after.
        tolerance: how far an output may move; `allowed_difference` of its type if None.

    Raises:
        AccuracyError: an output moved by more than rounding explains.
    """
    feed = random_inputs(source, batch=2, seed=3)
    before, after = (session(model).run(None, feed) for model in (source, fused))
    worst = 0.0
    for value, old, new in zip(source.graph.output, before, after):
        difference = float(np.abs(old.astype(np.float64) - new.astype(np.float64)).max())
        relative = difference / max(1.0, float(np.abs(old).max()))
        allowed = allowed_difference(old.dtype) if tolerance is None else tolerance
        if not relative <= allowed:  # written so that nan is refused too
            raise AccuracyError(
                f"fusion moved an output by {relative:.3g} of its largest value, {allowed:g} is allowed",
                value.name,
                "nothing was written; the graph may be too sensitive to rounding",
            )
        worst = max(worst, relative)
    return worst
