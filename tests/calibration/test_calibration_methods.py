"""Histograms, and the ranges that each method takes from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.calibrators import entropy_range, mse_range, percentile_range, range_of, squared_error
from calibration.histograms import Histogram, RunningHistogram
from calibration.quantise import asymmetric_uint8, symmetric_int8
from calibration.settings import METHODS, CalibrationSettings

Values = NDArray[np.float32]


def histogram_of(*parts: Values, bins: int = 4096) -> Histogram:
    running = RunningHistogram(bins)
    for part in parts:
        running.add(part, float(part.min()), float(part.max()))
    return running.finish()


def true_error(values: Values, low: float, high: float, symmetric: bool) -> float:
    scale, zero_point = symmetric_int8(low, high) if symmetric else asymmetric_uint8(low, high)
    lowest = -128 if symmetric else -int(zero_point)
    quantised = np.clip(np.rint(values / np.float64(scale)), lowest, lowest + 255) * scale
    return float(np.mean((values - quantised) ** 2))


NORMAL = np.random.default_rng(0).standard_normal(200_000, dtype=np.float32)
SHAPES: dict[str, Callable[[], Values]] = {
    "normal": lambda: NORMAL,
    "heavy tails": lambda: NORMAL**3,
    "gelu": lambda: np.where(NORMAL > 0, NORMAL, np.float32(-0.17) * np.exp(-(NORMAL**2))),
    "relu": lambda: np.maximum(NORMAL, 0),
    "an outlier": lambda: np.append(NORMAL, np.float32(100)),
    "all negative": lambda: -np.abs(NORMAL) - 1,
}


# A value 2**130 times smaller than the largest would count as zero.
NUMBERS = st.floats(-(2.0**40), 2.0**40, width=32).map(lambda value: value if abs(value) > 1e-20 else 0.0)


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.data())
@settings(max_examples=60, deadline=None)
def test_histogram_depends_on_the_values_only(values: list[float], data: st.DataObject) -> None:
    array = np.array(values, np.float32)
    cut = data.draw(st.integers(0, len(array)))
    whole = histogram_of(array, bins=256)
    parts = histogram_of(*(part for part in (array[:cut], array[cut:]) if part.size), bins=256)
    np.testing.assert_array_equal(whole.counts, parts.counts)
    assert (whole.low, whole.high, whole.minimum, whole.maximum) == (
        parts.low,
        parts.high,
        parts.minimum,
        parts.maximum,
    )
    expected = np.histogram(array.astype(np.float64), whole.edges)[0]
    np.testing.assert_array_equal(whole.counts, expected)  # no value lies on the last edge, which NumPy alone includes


def test_zeros_first_do_not_coarsen_what_follows() -> None:
    zeros, tiny = np.zeros(10, np.float32), np.full(10, 1e-20, np.float32)
    assert histogram_of(zeros, tiny).high == histogram_of(tiny).high < 2e-20


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_range_is_wider_than_the_values(method: str, shape: str) -> None:
    histogram = histogram_of(SHAPES[shape]())
    low, high = range_of(histogram, CalibrationSettings(method=method))
    assert histogram.minimum <= low <= high <= histogram.maximum


@pytest.mark.parametrize("percentile", [100.0, 99.9, 90.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_percentile_holds_that_part_and_no_more_than_two_bins_too_many(shape: str, percentile: float) -> None:
    values = SHAPES[shape]()
    histogram = histogram_of(values)
    low, high = percentile_range(histogram, percentile)
    inside = np.mean((values >= low) & (values <= high))
    assert inside >= percentile / 100
    width = (histogram.high - histogram.low) / len(histogram.counts)
    sides = (values < low + width).mean(), (values > high - width).mean()
    assert all(side > (100 - percentile) / 200 for side in sides)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_squared_error_is_that_of_the_quantised_values(shape: str, symmetric: bool) -> None:
    values = SHAPES[shape]()
    histogram = histogram_of(values)
    for share in (1.0, 0.5, 0.2):
        low, high = share * histogram.minimum, share * histogram.maximum
        # Values count as spread evenly in their bin; ReLU's half of zeros is not, hence its wider tolerance.
        tolerance = 0.3 if shape == "relu" else 0.03
        expected = true_error(values, low, high, symmetric)
        assert squared_error(histogram, low, high, symmetric) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_mse_beats_every_range_of_a_coarse_search(shape: str, symmetric: bool) -> None:
    values = SHAPES[shape]()
    histogram = histogram_of(values)
    found = true_error(values, *mse_range(histogram, symmetric), symmetric)
    shares = np.linspace(0.05, 1, 12)
    tried = [(a * histogram.minimum, b * histogram.maximum) for a in shares for b in shares]
    best = min(true_error(values, low, high, symmetric) for low, high in tried)
    # Ends are tried 9 % apart, which costs little as the optimum is flat; ends one after the other may miss a little.
    assert found <= 1.1 * best


def test_mse_cuts_an_outlier_and_minmax_does_not() -> None:
    histogram = histogram_of(SHAPES["an outlier"]())
    assert mse_range(histogram, symmetric=True)[1] < 60
    assert range_of(histogram, CalibrationSettings())[1] == 100


@pytest.mark.parametrize("shape", ["normal", "relu", "an outlier"])
def test_entropy_keeps_the_body_of_the_values(shape: str) -> None:
    values = SHAPES[shape]()
    low, high = entropy_range(histogram_of(values))
    assert 2.5 < high < 10  # a ReLU's zeros do not pull it down, an outlier not up
    assert low == 0 if shape == "relu" else low < -2.5


def test_entropy_of_two_far_values_keeps_both() -> None:
    values = np.array([0.1] * 500 + [0.9] * 500, np.float32)
    assert entropy_range(histogram_of(values)) == (np.float32(0.1), np.float32(0.9))
