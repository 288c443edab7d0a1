import time

import numpy as np
import pytest
from observations import PREDICTIONS, observation

from edge_lsla.predictions import Prediction
from edge_lsla.sinks.annotate import annotate, annotated, contact_sheet


@pytest.mark.parametrize(
    "size", [(96, 96), (1, 1), (64, 3), (480, 120), (3000, 20), (270, 480), (640, 480), (1920, 1080), (3840, 2160)]
)
@pytest.mark.parametrize("note", [None, "24.8 fps  ·  12.3 ms  ·  4 dropped"])
def test_every_size_is_drawn_on(size: tuple[int, int], note: str | None) -> None:
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    drawn = annotate(pixels, PREDICTIONS, note=note)
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] == max(480, size[0])
    assert drawn.shape[0] == (size[1] if size[0] >= 480 else round(size[1] * 480 / size[0]))
    assert (pixels == 90).all()
    changed = (drawn != 90).any(axis=-1)
    assert changed.any()
    if min(drawn.shape[:2]) >= 240:
        assert changed.mean() < 0.35  # the picture is still to be seen
        assert not changed[: drawn.shape[0] // 2].any()  # and its upper half is free
        assert drawn.max() > 240  # white on dark


def test_nothing_to_say_leaves_the_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    np.testing.assert_array_equal(annotate(pixels, ()), pixels)
    assert (annotate(pixels, (), note="5 fps") != pixels).any()


def test_the_bar_grows_with_the_confidence() -> None:
    pixels = np.zeros((480, 480, 3), np.uint8)

    def green(share: float) -> int:
        drawn = annotate(pixels, [Prediction(0, "", share)])
        return int(((drawn[..., 1] > 180) & (drawn[..., 0] < 120)).sum())

    assert green(0.75) < green(0.9) < green(1.0)
    assert green(0.3) == 0  # another colour where the model is not sure


def test_unknown_is_shown_instead_of_the_likeliest_class() -> None:
    pixels = np.zeros((480, 480, 3), np.uint8)
    sure = annotate(pixels, PREDICTIONS)
    unknown = annotate(pixels, PREDICTIONS, label="unknown")
    assert (sure != unknown).any()
    assert not ((unknown[..., 1] > 180) & (unknown[..., 0] < 120)).any()  # no green


def test_long_labels_stay_inside_the_panel() -> None:
    pixels = np.zeros((480, 480, 3), np.uint8)
    drawn = annotate(pixels, [Prediction(n, "a_very_long_name_of_a_beetle " * 9, 0.3) for n in range(3)])
    assert not drawn[:, 360:].any()


def test_an_observation_is_drawn_once() -> None:
    one = observation(3, live=True, dropped=2)
    assert annotated(one) is annotated(one)
    assert annotated(observation(3)) is not annotated(one)


def test_drawing_keeps_up_with_a_camera() -> None:
    pixels = np.zeros((720, 1280, 3), np.uint8)
    annotate(pixels, PREDICTIONS, note="note")
    begin = time.perf_counter()
    for _ in range(10):
        annotate(pixels, PREDICTIONS, note="note")
    assert (time.perf_counter() - begin) / 10 < 0.06  # some 6 ms; the rest is for a busy machine


def test_contact_sheet() -> None:
    pictures = [
        (np.full((50, 70, 3), 200, np.uint8), "bee 90 %", True),
        (np.full((70, 50, 3), 200, np.uint8), "ant 40 %\nis a bee", False),
        (np.full((300, 300, 3), 200, np.uint8), "fly", None),
    ]
    sheet = contact_sheet(pictures, columns=2, side=200)
    assert sheet.dtype == np.uint8
    gap = 22
    assert sheet.shape[1] == 2 * (200 + gap) + gap
    y = gap + 100
    left, right = sheet[y, gap + 1].astype(int), sheet[y, gap + 200 + gap + 1].astype(int)
    assert left[1] > left[0] + 50
    assert right[0] > right[1] + 50
    assert contact_sheet([], columns=3).size > 0
