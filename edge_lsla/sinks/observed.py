"""What sinks expect of an observation: the shape of `edge_lsla.pipeline.watch.Observation`, without importing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.events import Box
from edge_lsla.predictions import Prediction


class ObservedFrame(Protocol):
    """A frame, its pixels uint8 [H, W, 3] in RGB order, its time in seconds (since the epoch where it is live)."""

    @property
    def pixels(self) -> NDArray[np.uint8]: ...

    @property
    def time(self) -> float: ...

    @property
    def sequence(self) -> int: ...

    @property
    def source(self) -> str: ...

    @property
    def live(self) -> bool: ...


class ObservedRegion(Protocol):
    """What a region shows: its box in pixels, its label and confidence, and its individual's id where it has one."""

    @property
    def box(self) -> Box: ...

    @property
    def label(self) -> str: ...

    @property
    def confidence(self) -> float: ...

    @property
    def track(self) -> str | None: ...


class ObservedTrack(Protocol):
    """An individual: its id, and what its frames voted for."""

    @property
    def id(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def confidence(self) -> float: ...

    @property
    def box(self) -> Box: ...


class Observed(Protocol):
    """What was seen in one frame: see `Observation` for the fields."""

    @property
    def frame(self) -> ObservedFrame: ...

    @property
    def predictions(self) -> tuple[Prediction, ...]: ...

    @property
    def label(self) -> str: ...

    @property
    def latency_ms(self) -> float: ...

    @property
    def fps(self) -> float: ...

    @property
    def dropped(self) -> int: ...

    @property
    def detections(self) -> Sequence[ObservedRegion]: ...

    @property
    def tracks(self) -> Sequence[ObservedTrack]: ...


def marks(observation: Observed) -> list[tuple[Box, str, float]]:
    """Return box, label and confidence of each region; of an individual, what all of its frames say of it."""
    tracks = {track.id: track for track in observation.tracks}
    return [
        (one.box, named.label, named.confidence)
        for one in observation.detections
        for named in (tracks.get(one.track or "", one),)
    ]


def status(observation: Observed) -> str:
    """Return the frame rate, the latency and the dropped frames as one short line."""
    line = f"{observation.fps:.1f} fps  ·  {observation.latency_ms:.1f} ms"
    return f"{line}  ·  {observation.dropped} dropped" if observation.dropped else line
