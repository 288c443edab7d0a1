"""Scales, zero points and integer weights, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMALLEST_SCALE = 2.0**-24  # the smallest float16 above zero: a smaller scale would become 0 in a float16 network
DEAD_SCALE = 1.0  # of a tensor or channel that is all zeros: any scale gives zeros back


def symmetric_int8(low: float, high: float) -> tuple[np.float32, np.int8]:
    """Return (scale, zero point 0) for int8 over [-max(|low|, |high|), the same]."""
    peak = max(abs(low), abs(high))
    return _scale(peak / 127), np.int8(0)


def asymmetric_uint8(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Return (scale, zero point) for uint8 over [low, high] stretched to hold 0, so that 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = _scale((high - low) / 255)
    return scale, np.uint8(np.clip(np.rint(-low / float(scale)), 0, 255))


def quantise_weight(weight: NDArray[np.float32], axis: int, bits: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise a weight symmetrically, a scale for each index along `axis`.

    Returns:
        (integers int8, of the weight's shape, in +-(2**(bits-1) - 1); scales float32 [channels]). A channel of zeros
        has scale 1. |weight - integers * scale| <= scale / 2.
    """
    levels = 2 ** (bits - 1) - 1
    others = tuple(i for i in range(weight.ndim) if i != axis)
    peaks = np.abs(weight.astype(np.float64)).max(axis=others)
    scales = np.where(peaks == 0, DEAD_SCALE, np.maximum(peaks / levels, SMALLEST_SCALE)).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = -1
    integers = np.clip(np.rint(weight / scales.astype(np.float64).reshape(shape)), -levels, levels)
    return integers.astype(np.int8), scales


def _scale(step: float) -> np.float32:
    scale: np.float32 = np.float32(DEAD_SCALE if step == 0 else max(step, SMALLEST_SCALE))
    return scale
