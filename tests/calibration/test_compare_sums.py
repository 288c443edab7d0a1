"""Sums of differences against the plain formula, and what is not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.differences import Sums, finite, not_finite, sqnr_db


def test_sums_over_batches_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((8, 3, 5), dtype=np.float32)
    second = first + 1e-3 * rng.standard_normal((8, 3, 5), dtype=np.float32)
    sums = Sums()
    for part in range(0, 8, 3):
        sums.add(first[part : part + 3], second[part : part + 3])
    exact = second.astype(np.float64) - first
    assert sums.rel_l2 == pytest.approx(np.linalg.norm(exact) / np.linalg.norm(first.astype(np.float64)), rel=1e-12)
    assert sums.max_abs == np.abs(exact).max()
    assert sqnr_db(sums.rel_l2) == pytest.approx(60, abs=1)
    assert sums.not_finite == [0, 0]


@pytest.mark.parametrize(
    ("first", "second", "rel_l2", "counts"),
    [
        ([1.0, np.inf], [1.0, np.inf], 0.0, [1, 1]),
        ([1.0, np.nan], [1.0, np.nan], 0.0, [1, 1]),
        ([1.0, np.inf], [1.0, -np.inf], math.inf, [1, 1]),
        ([1.0, 2.0], [1.0, np.nan], math.inf, [0, 1]),
        ([-np.inf, 3.0], [-np.inf, 6.0], 1.0, [1, 1]),  # the mask's infinities agree, the rest counts
        ([0.0, 0.0], [0.0, 1.0], math.inf, [0, 0]),
        ([0.0], [0.0], 0.0, [0, 0]),
        ([], [], 0.0, [0, 0]),
    ],
)
def test_infinities_that_agree_are_no_difference(
    first: list[float], second: list[float], rel_l2: float, counts: list[int]
) -> None:
    sums = Sums()
    sums.add(np.array(first, np.float32), np.array(second, np.float32))
    assert sums.rel_l2 == rel_l2
    assert sums.not_finite == counts


def test_large_numbers_are_finite() -> None:
    assert not_finite(np.full(4, 3e38, np.float32)) == 0  # their sum is not
    assert not_finite(np.array([1, np.nan, np.inf, -np.inf], np.float32)) == 3


def test_json_gets_null_for_what_it_cannot_hold() -> None:
    assert finite((1, math.inf, "a", None)) == [1, None, "a", None]
    assert (sqnr_db(0.0), sqnr_db(math.inf), sqnr_db(0.1)) == (math.inf, -math.inf, pytest.approx(20))
