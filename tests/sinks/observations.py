"""Observations as the pipeline makes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.watch import Observation
from edge_lsla.predictions import Prediction

PREDICTIONS = (Prediction(0, "lady_beetle", 0.94), Prediction(1, "ant", 0.03), Prediction(2, "Käfer", 0.01))


def observation(number: int = 0, size: tuple[int, int] = (160, 96), **other: Any) -> Observation:
    """Return one whose frame, `size` wide and high, is 4·number bright, a twenty-fifth of a second after the last."""
    pixels = np.full((size[1], size[0], 3), (4 * number) % 256, np.uint8)
    frame = Frame(pixels, other.get("time", number / 25), number, "test", other.get("live", False))
    predictions = other.get("predictions", PREDICTIONS)
    label = other.get("label", predictions[0].label if predictions else "unknown")
    return Observation(frame, predictions, label, 12.34, 24.8, other.get("dropped", 0))
