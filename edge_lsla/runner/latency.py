"""How long one execution takes, by the GPU's clock and by the caller's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Percentiles:
    """Of a series of times, milliseconds."""

    least: float
    median: float
    p90: float
    p99: float
    most: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Percentiles:
        """Summarise at least one time."""
        return cls(*(round(float(value), 4) for value in np.percentile(milliseconds, (0, 50, 90, 99, 100))))


@dataclass(frozen=True)
class Latency:
    """What was measured.

    Attributes:
        batch: images in one execution.
        repeats: executions measured, after the warm-up.
        graph: whether a CUDA graph was launched, or each operation by itself.
        device: between CUDA events on the stream: copy in, engine, copy out.
        host: of a synchronised clock in the caller: the same and what the processor adds, from array to array.
    """

    batch: int
    repeats: int
    graph: bool
    device: Percentiles
    host: Percentiles

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return dataclasses.asdict(self)
