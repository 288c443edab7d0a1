"""How far two tensors lie apart, summed over many images without keeping them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TensorError:
    """The difference of one tensor between two models, over all images; the first model's counts as the signal.

    Attributes:
        name: the tensor. layer: name of the node that makes it. op: its operator, in the second model.
        module: the PyTorch module that it belongs to, "" where that is not known.
        max_abs: largest |second - first|.
        rel_l2: |second - first| / |first|, L2 norms; infinite where a value is NaN or infinite on one side only.
        sqnr_db: -20 log10(rel_l2): the signal over its error; infinite where the two are equal.
        rise: by how much rel_l2 lies above that of the worst tensor it is made from; below zero where it fell.
        not_finite: values that are NaN or infinite, in the first and in the second.
    """

    name: str
    layer: str
    op: str
    module: str
    max_abs: float
    rel_l2: float
    sqnr_db: float
    rise: float
    not_finite: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values; a number that is not finite is null."""
        return {name: finite(value) for name, value in vars(self).items()}


def finite(value: Any) -> Any:
    """Return None for a float that JSON cannot hold, lists for tuples, all else as it is."""
    if isinstance(value, tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class Sums:
    """What is kept of a pair of tensors."""

    signal: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0
    not_finite: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, first: NDArray[Any], second: NDArray[Any]) -> None:
        """Count one batch of both tensors, of equal shape; sums are in float64."""
        signal, other = (np.asarray(value, np.float64).reshape(-1) for value in (first, second))
        with np.errstate(invalid="ignore"):  # infinity less infinity
            noise = other - signal
        if not math.isfinite(noise.sum()):
            noise[(signal == other) | (np.isnan(signal) & np.isnan(other))] = 0.0
            noise[np.isnan(noise)] = np.inf  # NaN on one side only
            for side, values in enumerate((signal, other)):
                self.not_finite[side] += not_finite(values)
            signal = signal[np.isfinite(signal)]
        self.signal += _squares(signal)
        self.noise += _squares(noise)
        if noise.size:
            self.max_abs = max(self.max_abs, float(noise.max()), -float(noise.min()))

    @property
    def rel_l2(self) -> float:
        """|second - first| / |first| in L2 norms; infinite where only the first is zero."""
        if self.noise == 0:
            return 0.0
        return math.sqrt(self.noise / self.signal) if self.signal and math.isfinite(self.noise) else math.inf


def sqnr_db(rel_l2: float) -> float:
    """Return the signal to quantisation noise ratio in dB of a relative L2 error."""
    if rel_l2 == 0:
        return math.inf
    return -20 * math.log10(rel_l2) if math.isfinite(rel_l2) else -math.inf


def not_finite(values: NDArray[Any]) -> int:
    """Count NaN and infinity; one pass where there are none."""
    with np.errstate(all="ignore"):  # a sum of large values may overflow, or meet opposite infinities
        total = values.sum()
    return 0 if np.isfinite(total) else int(values.size - np.isfinite(values).sum())


def _squares(values: NDArray[np.float64]) -> float:
    # Not BLAS: its threads spin, and cost more than they bring on tensors of this size.
    return float(np.einsum("i,i->", values, values))
