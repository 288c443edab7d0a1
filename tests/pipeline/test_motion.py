import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_lsla.errors import UsageError
from edge_lsla.events import Box
from edge_lsla.pipeline.motion import Motion, MotionSettings
from edge_lsla.pipeline.regions import share_inside

SIZE = (320, 240)


def ground(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(90, 160, (SIZE[1], SIZE[0], 3), np.uint8)


def with_spot(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    changed = pixels.copy()
    changed[box.top : box.bottom, box.left : box.right] = (20, 20, 30)
    return changed


def look(motion: Motion, pixels: NDArray[np.uint8], now: float, kept: tuple[Box, ...] = ()) -> tuple[Box, ...] | None:
    """Ask about a frame, and learn from it."""
    found = motion.boxes(pixels, now)
    motion.learn(kept)
    return found


def learned(settings: MotionSettings | None = None, pixels: NDArray[np.uint8] | None = None) -> Motion:
    """A model that has seen two seconds of still ground."""
    motion = Motion(settings or MotionSettings())
    for number in range(20):
        look(motion, ground() if pixels is None else pixels, number / 10)
    return motion


def test_nothing_is_said_before_the_ground_is_known() -> None:
    motion = Motion(MotionSettings(warm_up_seconds=1.0))
    answers = [look(motion, ground(), number / 10) for number in range(15)]
    assert answers[:10] == [None] * 10
    assert answers[12:] == [(), (), ()]
    slow = Motion(MotionSettings(warm_up_seconds=1.0))
    assert [look(slow, ground(), 10.0 * number) for number in range(5)] == [None] * 4 + [()]  # at least four frames


def test_what_moves_is_found_where_it_is_largest_first() -> None:
    motion = learned()
    small, large = Box(40, 60, 60, 80), Box(200, 100, 240, 150)
    found = look(motion, with_spot(with_spot(ground(), small), large), 2.0)
    assert found is not None
    assert len(found) == 2
    for box, truth in zip(found, (large, small)):
        assert share_inside(truth, box) > 0.95
        assert share_inside(box, truth) > 0.8


def test_boxes_are_in_the_pixels_of_a_large_frame() -> None:
    large = np.kron(ground(), np.ones((4, 4, 1), np.uint8))
    motion = learned(pixels=large)
    truth = Box(900, 600, 1000, 720)
    found = look(motion, with_spot(large, truth), 2.0)
    assert found is not None
    assert share_inside(truth, found[0]) > 0.95
    assert share_inside(found[0], truth) > 0.8


def test_a_frame_that_changes_as_a_whole_is_counted_and_learned_anew() -> None:
    motion = learned()
    other = ground(1) // 3
    assert look(motion, other, 2.0) is None
    assert motion.full_frame_changes == 1
    answers = [look(motion, other, 2.0 + number / 10) for number in range(1, 20)]
    assert answers[:8] == [None] * 8
    assert answers[-5:] == [()] * 5
    assert motion.full_frame_changes == 1
    assert look(motion, with_spot(other, Box(100, 100, 130, 130)), 4.0)


def test_light_that_changes_slowly_is_no_motion() -> None:
    motion = learned()
    for number in range(100):
        dimmed = (ground() * (1 - 0.3 * number / 100)).astype(np.uint8)
        assert look(motion, dimmed, 2 + number / 10) == ()
    assert motion.full_frame_changes == 0
    assert look(motion, with_spot(dimmed, Box(100, 100, 130, 130)), 12.1)


def test_another_size_starts_anew() -> None:
    motion = learned()
    smaller = ground()[:120, :160]
    assert look(motion, np.ascontiguousarray(smaller), 2.0) is None
    assert motion.full_frame_changes == 0


@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_what_stands_still_becomes_ground_in_time_not_in_frames(rate: float) -> None:
    settings = MotionSettings(history_seconds=60.0)
    spot = with_spot(ground(), Box(100, 100, 130, 130))
    motion = learned(settings)
    seen = [bool(look(motion, spot, 2 + number / rate)) for number in range(int(20 * rate))]
    lasting = sum(seen) / rate
    assert seen == sorted(seen, reverse=True)
    assert 4 <= lasting <= 9  # about a tenth of the history
    # And what is kept does not.
    motion = learned(settings)
    kept = (Box(98, 98, 132, 132),)
    assert all(look(motion, spot, 2 + number / rate, kept) for number in range(int(20 * rate)))


def test_a_ghost_is_told_from_an_insect() -> None:
    place = Box(100, 100, 130, 130)
    smooth = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    came, went = learned(pixels=smooth), learned(pixels=with_spot(smooth, place))
    assert look(came, with_spot(smooth, place), 2.0)
    assert not came.is_ghost(place)
    assert look(went, smooth, 2.0)
    assert went.is_ghost(place)


@pytest.mark.parametrize(
    "field", [{"history_seconds": 0}, {"full_frame_share": 0}, {"work_width_px": 8}, {"sensitivity": 0.5}]
)
def test_settings_name_the_field(field: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        MotionSettings(**field)  # type: ignore[arg-type]


def test_a_trembling_camera_moves_nothing() -> None:
    rng = np.random.default_rng(4)
    coarse = np.kron(rng.integers(60, 200, (32, 42, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    motion = Motion(MotionSettings())
    answers = []
    for number, shift in enumerate(itertools.islice(itertools.cycle([0, 1, 0, 1, 1, 0]), 60)):
        answers.append(
            look(motion, np.ascontiguousarray(coarse[shift : shift + 240, shift : shift + 320]), number / 10)
        )
    large = [box for answer in answers[20:] for box in answer or () if max(box.width, box.height) >= 12]
    assert not large
