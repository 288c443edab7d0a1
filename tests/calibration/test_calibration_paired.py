"""Paired differences: against published formulas, by simulation, and at the ends."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import pytest

from calibration.paired import Paired, difference, images_needed, student_t
from edge_lsla.errors import UsageError


def answers(images: int, to_wrong: int, to_right: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.ones(images, bool), np.ones(images, bool)
    second[:to_wrong] = False
    first[to_wrong : to_wrong + to_right] = False
    return first, second


def test_flips_and_drop_are_counted() -> None:
    found = difference(*answers(200, 7, 3))
    assert (found.images, found.clusters, found.flips_to_wrong, found.flips_to_right) == (200, 200, 7, 3)
    assert found.drop == pytest.approx(2.0)
    assert found.low < found.drop < found.high
    turned = difference(*reversed(answers(200, 7, 3)))
    assert (turned.drop, turned.low, turned.high) == pytest.approx((-found.drop, -found.high, -found.low))


def test_independent_pictures_give_the_interval_of_bonett_and_price() -> None:
    images, lost, gained = 5000, 60, 20
    p12, p21 = (lost + 1) / (images + 2), (gained + 1) / (images + 2)
    half = NormalDist().inv_cdf(0.975) * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (images + 2))
    found = difference(*answers(images, lost, gained))
    # Student's t with 4999 degrees of freedom and n/(n - 1) widen it by less than 0.1 %
    assert (found.low, found.high) == pytest.approx((100 * (p12 - p21 - half), 100 * (p12 - p21 + half)), rel=2e-3)


@pytest.mark.parametrize("images", [1, 2, 10, 100, 3000])
def test_no_flip_is_never_certainty(images: int) -> None:
    found = difference(*answers(images, 0, 0))
    assert found.drop == 0
    assert found.high == -found.low
    assert found.high > 100 * 2.7 / (images + 2)  # the rule of three, less what two sides and two flips change
    assert images < 100 or found.high < 100 * 3.1 / images


def test_one_cluster_says_nothing() -> None:
    found = difference(*answers(300, 2, 0), ["the same"] * 300)
    assert (found.clusters, found.low, found.high) == (1, -100, 100)


def test_flips_within_one_artwork_count_for_less() -> None:
    first, second = answers(300, 10, 0)
    apart = difference(first, second, [i % 30 for i in range(300)])  # ten artworks flip once
    together = difference(first, second, [i // 10 for i in range(300)])  # all pictures of one artwork flip
    assert together.clusters == apart.clusters == 30
    assert together.drop == apart.drop
    assert together.high - together.low > 2 * (apart.high - apart.low)
    assert together.design_effect > 5


@pytest.mark.parametrize(
    ("clusters", "size", "rate", "likeness"),
    [(28, 15, 0.03, 0.1), (28, 15, 0.01, 0.0), (60, 5, 0.02, 0.2), (280, 1, 0.01, 0.0), (15, 20, 0.05, 0.1)],
)
def test_interval_holds_the_truth(clusters: int, size: int, rate: float, likeness: float) -> None:
    """500 experiments with flips alike within clusters (beta-binomial), 70 % of them to wrong."""
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(500):
        share = rng.beta(*(np.array([rate, 1 - rate]) * (1 / likeness - 1)), clusters) if likeness else rate
        flips = rng.random((size, clusters)) < share
        wrong = rng.random((size, clusters)) < 0.7
        found = difference(
            ~(flips & ~wrong).T.ravel(), ~(flips & wrong).T.ravel(), [i // size for i in range(flips.size)]
        )
        held += found.low <= 100 * rate * 0.4 <= found.high
    # 95 % wanted; 500 experiments leave +-1.9 %, and few flips with many ties make it more
    assert held / 500 >= 0.93


def test_images_needed_is_the_number_that_does() -> None:
    for budget in (0.2, 0.5, 2.0):
        enough = images_needed(budget)
        assert enough is not None
        assert difference(*answers(enough, 0, 0)).high <= budget < difference(*answers(enough - 1, 0, 0)).high
        assert 250 / budget < enough < 300 / budget  # the rule of three
    assert images_needed(0.5, drop=0.5) is None
    few, many = images_needed(0.5, drop=0.1, flips=1), images_needed(0.5, drop=0.1, flips=1, design_effect=2)
    assert few is not None
    assert many is not None
    assert 1.8 < many / few < 2.1
    for budget in (0, -1, math.nan, math.inf):
        with pytest.raises(UsageError, match="budget"):
            images_needed(budget)


def test_too_few_pictures_are_said_with_how_many_would_do() -> None:
    found = difference(*answers(280, 0, 0), [i // 4 for i in range(280)])
    said = found.too_few(0.5)
    assert said is not None
    assert "280 pictures of 70 sources are too few to be sure, about 560 like these would do" in said
    assert found.too_few(2.0) is None
    hopeless = difference(*answers(280, 3, 0)).too_few(0.5)
    assert hopeless is not None
    assert "more pictures would not help" in hopeless


def test_passport_entry_is_json() -> None:
    found = json.loads(json.dumps(difference(*answers(280, 3, 1), list(range(280))).to_dict()))
    assert found["interval"][0] < found["drop"] == 0.714 < found["interval"][1]


def test_wrong_input_is_refused() -> None:
    for first, second in ((np.ones(3, bool), np.ones(4, bool)), (np.ones(0, bool), np.ones(0, bool))):
        with pytest.raises(UsageError, match="pictures"):
            difference(first, second)
    with pytest.raises(UsageError, match="2 clusters"):
        difference(np.ones(3, bool), np.ones(3, bool), ["a", "b"])


@pytest.mark.parametrize(
    ("degrees", "table"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (27, 2.052), (1e9, 1.960)]
)
def test_student_t_matches_the_tables(degrees: float, table: float) -> None:
    assert student_t(degrees) == pytest.approx(table, rel=8e-3 if degrees < 5 else 2e-3)


def test_paired_is_a_value() -> None:
    assert difference(*answers(9, 1, 0)) == difference(*answers(9, 1, 0))
    assert isinstance(difference(*answers(9, 1, 0)), Paired)
