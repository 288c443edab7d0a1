from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edge_lsla.abstention import (
    LEAST_HELD_OUT,
    apply_threshold,
    choose_threshold,
    held_out_abstention,
    judged,
)
from edge_lsla.errors import UsageError
from edge_lsla.predictions import Prediction
from edge_lsla.preprocessing import Preprocessing

LABELS = ("ant", "bee", "lady beetle")


def graded(number: int = 1000) -> tuple[list[float], list[bool]]:
    """Answers whose chance of being right is their probability."""
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.3, 1.0, number)
    return probabilities.tolist(), (rng.random(number) < probabilities).tolist()


def test_the_smallest_threshold_that_is_right_often_enough() -> None:
    probabilities = [0.2] * 30 + [0.6] * 30 + [0.9] * 40
    rights = [False] * 30 + [True] * 27 + [False] * 3 + [True] * 40
    found = choose_threshold(probabilities, rights, 0.95)
    assert found is not None
    # 67 of the 70 from 0.6 on are right: 95.7 %.
    assert (found.threshold, found.accepted, found.images, found.coverage) == (0.6, 70, 100, 0.7)
    assert found.right == pytest.approx(67 / 70)
    assert found.to_dict()["interval"][0] < 0.95
    surer = choose_threshold(probabilities, rights, 0.9, sure=True)
    assert surer is not None
    assert (surer.threshold, surer.right) == (0.9, 1.0)  # 40 of 40: 91.2 to 100 %
    assert choose_threshold(probabilities, rights, 0.95, sure=True) is None
    whole = choose_threshold(probabilities, rights, 0.5)
    assert whole is not None
    assert (whole.threshold, whole.coverage) == (0.2, 1.0)


def test_more_right_answers_cost_coverage() -> None:
    founds = [choose_threshold(*graded(), asked) for asked in (0.7, 0.8, 0.9)]
    assert all(founds)
    coverages = [found.coverage for found in founds if found]
    thresholds = [found.threshold for found in founds if found]
    assert coverages == sorted(coverages, reverse=True)
    assert thresholds == sorted(thresholds)
    for found, asked in zip(founds, (0.7, 0.8, 0.9)):
        assert found is not None
        assert found.right >= asked
        # What is written, with its four decimals, is what was judged.
        assert apply_threshold(round(found.threshold, 4), *graded()) == found


def test_where_no_threshold_will_do() -> None:
    assert choose_threshold([0.9] * 100, [False] * 100) is None
    assert choose_threshold([0.9] * 10, [True] * 10) is None  # ten say nothing
    with pytest.raises(UsageError, match="asked"):
        choose_threshold([0.9], [True], 1.5)
    with pytest.raises(UsageError, match="pictures"):
        apply_threshold(0.5, [], [])


def test_pictures_of_nothing_known_are_wrong_whatever_they_are_called() -> None:
    answers = [(Prediction(0, "ant", 0.9),), (), (Prediction(1, "bee", 0.8),)]
    probabilities, rights = judged(answers, [0, 0, 2], [(Prediction(0, "ant", 0.7),), ()])
    assert (probabilities, rights) == ([0.9, 0.8, 0.7], [True, False, False])


def brightest(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """A classifier of red, green and blue."""
    return np.asarray(4 * images.mean(axis=(2, 3)), np.float32)


def test_a_bundles_threshold_comes_from_pictures_held_out(tmp_path: Path, pictures: Path) -> None:
    preprocessing = Preprocessing(32)
    assert held_out_abstention(brightest, LABELS, preprocessing, pictures) is None  # twelve are too few
    assert held_out_abstention(brightest, LABELS, preprocessing, pictures / "test") is None  # not divided
    assert held_out_abstention(brightest, ("a", "b", "c"), preprocessing, pictures) is None
    assert held_out_abstention(brightest, LABELS, preprocessing, tmp_path / "no") is None
    for index, label in enumerate(LABELS):
        folder = tmp_path / "val" / label.replace(" ", "_")
        folder.mkdir(parents=True)
        for number in range(LEAST_HELD_OUT // 3 + 1):
            pixels = np.random.default_rng([index, number]).integers(0, 90, (32, 32, 3))
            pixels[:, :, index] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "val" / "ant" / "broken.jpg").write_text("no picture")
    found = held_out_abstention(brightest, LABELS, preprocessing, tmp_path)
    assert found is not None
    assert (found.right, found.images) == (1.0, 3 * (LEAST_HELD_OUT // 3 + 1))
    assert set(found.recorded()) == {"threshold", "right", "coverage", "images"}
