"""Histograms of activations in bounded memory, the same however the values were batched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SMALLEST_EXPONENT = -100  # activations below 2**-100 count as zero
BLOCK = 1 << 16  # values taken at once: what is made of them stays in the processor's second-level cache


@dataclass(frozen=True)
class Histogram:
    """How often values fell into bins of equal width.

    Attributes:
        counts: int64 [bins], from the lowest bin to the highest.
        low, high: where the first bin begins and the last one ends: -2**e and 2**e, so zero is an edge.
        minimum, maximum: of the values themselves.
    """

    counts: NDArray[np.int64]
    low: float
    high: float
    minimum: float
    maximum: float

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """Borders of the bins, float64 [bins + 1]."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)


class RunningHistogram:
    """A histogram that takes values as they come; its range is a power of two and doubles by merging pairs of bins.

    The number of bins is fixed, whatever the first values were, and the result depends on the values only (as far as
    they are at least 2**-130 of the largest).

    Args:
        bins: a power of two, at least 4.
    """

    def __init__(self, bins: int) -> None:
        self._counts = np.zeros(bins, np.int64)
        self._exponent = SMALLEST_EXPONENT
        self._low, self._high = math.inf, -math.inf

    def add(self, values: NDArray[np.float32], low: float, high: float) -> None:
        """Count finite values, float32 of any shape, whose minimum and maximum are `low` and `high`."""
        self._low, self._high = min(self._low, low), max(self._high, high)
        half = len(self._counts) // 2
        peak = max(-low, high)
        exponent = math.frexp(peak)[1] if peak else SMALLEST_EXPONENT  # every |value| < 2**exponent, strictly
        if not self._counts.any():
            self._exponent = max(exponent, SMALLEST_EXPONENT)
        while self._exponent < exponent:
            folded = np.zeros_like(self._counts)
            folded[half // 2 : half + half // 2] = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts, self._exponent = folded, self._exponent + 1
        # Multiplying by a power of two is exact in floating point, so the bin of a value does not depend on the batch.
        scale = np.float32(half * 2.0**-self._exponent)
        flat = values.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            scaled = flat[start : start + BLOCK] * scale
            np.floor(scaled, out=scaled)
            scaled += half
            self._counts += np.bincount(scaled.astype(np.intp), minlength=2 * half)

    def finish(self) -> Histogram:
        """Return what was counted."""
        limit = 2.0**self._exponent
        return Histogram(self._counts, -limit, limit, self._low, self._high)
