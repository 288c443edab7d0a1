"""What sinks expect of an observation: the shape of `edge_lsla.pipeline.watch.Observation`, without importing it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.predictions import Prediction


class ObservedFrame(Protocol):
    """A frame, its pixels uint8 [H, W, 3] in RGB order, its time in seconds (since the epoch where it is live)."""

    @property
    def pixels(self) -> NDArray[np.uint8]: ...  # noqa: D102

    @property
    def time(self) -> float: ...  # noqa: D102

    @property
    def sequence(self) -> int: ...  # noqa: D102

    @property
    def source(self) -> str: ...  # noqa: D102

    @property
    def live(self) -> bool: ...  # noqa: D102


class Observed(Protocol):
    """What was seen in one frame: see `Observation` for the fields."""

    @property
    def frame(self) -> ObservedFrame: ...  # noqa: D102

    @property
    def predictions(self) -> tuple[Prediction, ...]: ...  # noqa: D102

    @property
    def label(self) -> str: ...  # noqa: D102

    @property
    def latency_ms(self) -> float: ...  # noqa: D102

    @property
    def fps(self) -> float: ...  # noqa: D102

    @property
    def dropped(self) -> int: ...  # noqa: D102


def status(observation: Observed) -> str:
    """Return the frame rate, the latency and the dropped frames as one short line."""
    line = f"{observation.fps:.1f} fps  ·  {observation.latency_ms:.1f} ms"
    return f"{line}  ·  {observation.dropped} dropped" if observation.dropped else line
