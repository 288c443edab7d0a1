"""From what was seen of an activation to the range that it is quantised over: one function a method."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from calibration.histograms import Histogram
from calibration.quantise import asymmetric_uint8, symmetric_int8
from calibration.settings import CalibrationSettings

LEVELS = 128  # of |x| in int8, over which the divergence is taken
EMPTY = 1e-4  # values in a level that has none: ending in a gap is bad, not infinitely so
STRIDE = 4  # bins between two thresholds that are tried: a quarter of a percent of the largest, well below a level
SHRINKS = 2.0 ** (-np.arange(65) / 8)  # ends that are tried, of the farthest value: 9 % apart, down to 1/256 of it


class MovingRange:
    """The moving average of the extremes of groups of images.

    As in Jacob et al. 2018 (arXiv 1712.05877), section 3.1: average += step * (seen - average); until 1 / step groups
    were seen it is their plain mean, so that the first group, which the average starts from, has no more weight than
    another.
    """

    def __init__(self, step: float) -> None:
        self._step, self._groups = step, 0
        self.range = (0.0, 0.0)

    def add(self, low: float, high: float) -> None:
        """Take in the minimum and maximum of one group."""
        self._groups += 1
        weight = max(self._step, 1 / self._groups)
        self.range = (self.range[0] + weight * (low - self.range[0]), self.range[1] + weight * (high - self.range[1]))


def range_of(histogram: Histogram, settings: CalibrationSettings) -> tuple[float, float]:
    """Return (low, high) by the method of the settings, "moving" aside; never wider than the values themselves."""
    if settings.method == "percentile":
        return percentile_range(histogram, settings.percentile)
    if settings.method == "entropy":
        return entropy_range(histogram)
    if settings.method == "mse":
        return mse_range(histogram, settings.symmetric)
    return histogram.minimum, histogram.maximum


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Return the range that holds `percentile` percent of the values, as many cut off on either side.

    Its ends are those of whole bins, so that it never holds less.
    """
    below = np.cumsum(histogram.counts)
    cut = (100 - percentile) / 200 * below[-1]
    edges = histogram.edges
    first = np.searchsorted(below, cut, side="right")  # the first bin that is not cut off as a whole
    last = np.searchsorted(below, below[-1] - cut, side="left")
    return _within(histogram, edges[first], edges[last + 1])


def entropy_range(histogram: Histogram) -> tuple[float, float]:
    """Return the range whose 8-bit form loses the least information about |x|.

    Szymon Migacz, "8-bit Inference with TensorRT", GPU Technology Conference 2017: for each threshold T, P is the
    histogram of |x| up to T with everything above added to its last bin, and Q the same without that, merged into 128
    levels and spread evenly over those bins of each level that are not empty. T has the smallest Kullback-Leibler
    divergence of Q from P; where several have it, the largest T. The bin at zero is made as full as the one beside it,
    as NVIDIA's pytorch-quantization does: a ReLU's zeros are exact in any range, and would outweigh all else.
    """
    if histogram.minimum == histogram.maximum == 0:
        return 0.0, 0.0
    half = len(histogram.counts) // 2
    counts = (histogram.counts[half:] + histogram.counts[:half][::-1]).astype(np.float64)
    counts[0] = counts[1]
    top = max(LEVELS, int(np.flatnonzero(counts)[-1]) + 1)
    total = counts.sum()
    best, threshold = np.inf, top
    for bins in range(top, LEVELS - 1, -STRIDE):
        p = counts[:bins].copy()
        p[-1] += counts[bins:].sum()
        divergence = _divergence(p / total, counts[:bins])
        if divergence < best:
            best, threshold = divergence, bins
    limit = threshold * histogram.high / half
    return _within(histogram, -limit, limit)


def _divergence(p: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Return KL(P || Q) with Q made of `counts` in 128 levels; infinite where they are all zero."""
    if not counts.any():
        return float("inf")
    starts = np.arange(LEVELS) * len(counts) // LEVELS
    filled = p > 0
    in_level = np.add.reduceat(counts, starts)
    bins_filled = np.add.reduceat(filled.astype(np.float64), starts)
    spread = np.maximum(in_level, EMPTY) / np.maximum(bins_filled, 1)
    q = np.repeat(spread, np.diff(starts, append=len(counts)))[filled]
    return float(np.sum(p[filled] * np.log(p[filled] / q * counts.sum())))


def mse_range(histogram: Histogram, symmetric: bool) -> tuple[float, float]:
    """Return the range with the smallest mean squared error of quantisation to 8 bits.

    The error is that of `squared_error`. Tried are ranges whose ends are the minimum and maximum times
    2**(-k/8): both ends alike for `symmetric`, otherwise one end after the other until neither moves.

    Args:
        symmetric: int8 with zero point 0 (TensorRT); otherwise uint8 with a zero point (ONNX Runtime).
    """
    low, high = histogram.minimum, histogram.maximum

    def best(tried: Iterable[tuple[float, float]]) -> tuple[float, float]:
        return min(tried, key=lambda pair: squared_error(histogram, pair[0], pair[1], symmetric))

    if symmetric:
        peak = max(-low, high)
        return best(_within(histogram, -peak * shrink, peak * shrink) for shrink in SHRINKS)
    lows = low * SHRINKS if low < 0 else [low]
    highs = high * SHRINKS if high > 0 else [high]
    while True:
        before = low, high
        low, high = best((low, float(end)) for end in highs)
        low, high = best((float(end), high) for end in lows)
        if (low, high) == before:  # each step lowers the error or keeps the range, so this comes
            return low, high


def squared_error(histogram: Histogram, low: float, high: float, symmetric: bool) -> float:
    """Return the mean of (x - Q(x))² over a histogram, with Q the backend's 8-bit form of the range [low, high].

    Values are taken as spread evenly in their bin, and the square is integrated exactly: in units of the scale, with
    r = Q(u), the antiderivative of (u - r)² is r / 12 + (u - r)³ / 3, both inside the range, where r = round(u), and
    outside, where r is the end.
    """
    scale, zero_point = symmetric_int8(low, high) if symmetric else asymmetric_uint8(low, high)
    step, lowest = float(scale), -128 if symmetric else -int(zero_point)
    filled = np.flatnonzero(histogram.counts)
    span = slice(int(filled[0]), int(filled[-1]) + 2)
    units = histogram.edges[span] / step
    level = np.clip(np.rint(units), lowest, lowest + 255)
    off = units - level
    integral = np.diff(level / 12 + off * off * off / 3)  # a power would take ten times as long
    counts = histogram.counts[span.start : span.stop - 1]
    width = (histogram.high - histogram.low) / len(histogram.counts)
    return float(counts @ integral * step**3 / width / counts.sum())


def _within(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """Cut a range to the values that were seen."""
    smallest, largest = histogram.minimum, histogram.maximum
    return float(min(max(low, smallest), largest)), float(max(min(high, largest), smallest))
