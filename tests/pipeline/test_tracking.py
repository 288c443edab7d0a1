import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_lsla.errors import UsageError
from edge_lsla.events import Box
from edge_lsla.pipeline.individuals import UNKNOWN, Detection, Individual
from edge_lsla.pipeline.tracking import Tracked, Tracker, TrackSettings
from edge_lsla.predictions import Prediction

FRAME = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)


def view(box: Box) -> NDArray[np.uint8]:
    return FRAME[box.top : box.bottom, box.left : box.right]


def seen(x: int, label: str = "ant", share: float = 0.9, y: int = 200) -> Detection:
    return Detection(Box(x, y, x + 30, y + 30), label, share, (Prediction(0, "ant", share),))


def walk(tracker: Tracker, steps: list[list[Detection]], rate: float = 10, start: float = 0.0) -> Iterator[Tracked]:
    for number, detections in enumerate(steps):
        now = start + number / rate
        yield tracker.update(detections, 1e9 + now, now, view)


@pytest.mark.parametrize("rate", [30.0, 10.0, 2.0, 0.2])
def test_an_individual_arrives_and_leaves_once_at_any_rate(rate: float) -> None:
    tracker = Tracker(TrackSettings(confirm_frames=4, lost_seconds=2.0))
    present = [[seen(100 + 5 * number)] for number in range(20)]
    absent: list[list[Detection]] = [[] for _ in range(max(6, int(3 * rate)))]
    changes = list(walk(tracker, present + absent, rate))
    arrived = [place for place, one in enumerate(changes) for _ in one.arrived]
    assert arrived == [3]  # the fourth sighting
    (left,) = [track for one in changes for track in one.left]
    first = changes[3].arrived[0]
    assert left.id == first.id
    assert (left.frames, left.label, left.ending) == (20, "ant", "gone")
    assert left.first == pytest.approx(1e9, abs=1e-3)
    assert left.last == pytest.approx(1e9 + 19 / rate, abs=1e-3)
    assert left.seconds == pytest.approx(19 / rate)
    assert len(changes[10].live) == 1
    assert changes[10].ids == (first.id,)
    assert changes[2].ids == (None,)
    assert changes[-1].live == ()
    # Whoever is looked for seldom is missed a few times before it has left; else it has left after two seconds.
    gone = next(place for place, one in enumerate(changes) if one.left) - 19
    assert gone >= 3
    if rate >= 10:
        assert 2.0 <= gone / rate <= 2.3


def test_noise_of_a_few_frames_is_nobody() -> None:
    tracker = Tracker(TrackSettings(confirm_frames=4))
    # Three frames, two without, and the next elsewhere.
    blinks = [[seen((number // 5) * 170 % 510)] if number % 5 < 3 else [] for number in range(15)]
    assert not [track for one in walk(tracker, blinks) for track in one.arrived]


def test_a_short_absence_is_bridged_and_another_place_is_somebody_else() -> None:
    tracker = Tracker(TrackSettings())
    steps = [[seen(100 + 5 * n)] for n in range(10)] + [[]] * 8 + [[seen(190 + 5 * n)] for n in range(10)]
    assert sum(len(one.arrived) for one in walk(tracker, steps)) == 1
    elsewhere = [[seen(10, y=20)] for _ in range(10)]
    assert sum(len(one.arrived) for one in walk(tracker, elsewhere, start=3.0)) == 1


def test_who_walks_out_has_left_at_once() -> None:
    tracker = Tracker(TrackSettings(lost_seconds=5.0))
    out = [[seen(400 + 20 * n)] for n in range(10)]
    left_at = None
    for number, detections in enumerate([*out, *[[]] * 20]):
        changed = tracker.update(detections, number / 10, number / 10, view, size=(610, 480))
        if changed.left and left_at is None:
            left_at = number
    assert left_at is not None
    assert left_at <= 13


def test_the_label_is_a_vote_weighted_by_confidence() -> None:
    tracker = Tracker(TrackSettings())
    words = [("bee", 0.5), ("bee", 0.5), ("ant", 0.9), ("bee", 0.5), ("ant", 0.9), ("ant", 0.95), (UNKNOWN, 0.3)]
    last = list(walk(tracker, [[seen(100, *word)] for word in words]))[-1]
    (track,) = last.live
    assert track.label == "ant"
    assert 0 < track.confidence <= 0.95
    unsure = [[seen(100, UNKNOWN, 0.4)]] * 5 + [[seen(100, "ant", 0.99)]] * 2
    (track,) = list(walk(Tracker(TrackSettings()), unsure))[-1].live
    assert (track.label, track.confidence) == (UNKNOWN, pytest.approx(0.4))


def test_the_best_view_is_of_the_label_and_no_larger_than_asked() -> None:
    blurred = np.full((480, 640, 3), 128, np.uint8)
    frames = {0: blurred, 5: FRAME}
    tracker = Tracker(TrackSettings(crop_side_px=16))
    for number in range(10):
        pixels = frames[0] if number < 5 else frames[5]
        changed = tracker.update([seen(100)], number, number / 10, lambda box, p=pixels: p[200:230, 100:160])  # type: ignore[misc]
    crop = changed.live[0].crop
    assert crop.shape == (8, 16, 3)
    assert crop.std() > 5  # the sharp view, not the grey one


def test_a_break_ends_every_track() -> None:
    tracker = Tracker(TrackSettings(break_seconds=30))
    before = list(walk(tracker, [[seen(100)]] * 6))
    after = list(walk(tracker, [[seen(100)]] * 6, start=100.0))
    (left,) = after[0].left
    assert left.id == before[-1].live[0].id
    assert left.last == pytest.approx(1e9 + 0.5, abs=1e-3)
    (again,) = after[-1].live
    assert again.id != left.id


def test_finish_lets_everybody_leave() -> None:
    tracker = Tracker(TrackSettings())
    (last,) = list(walk(tracker, [[seen(100), seen(300)]] * 6))[-1:]
    assert {track.id for track in tracker.finish()} == {track.id for track in last.live}
    assert tracker.live() == tracker.finish() == ()


def test_a_clock_that_stands_still_or_jumps_for_people_does_no_harm() -> None:
    tracker = Tracker(TrackSettings())
    for number in range(10):
        day = 86_400 * (number % 3)
        changed = tracker.update([seen(100)], 1e9 + day, 5.0, view)
    assert len(changed.live) == 1


def test_memory_is_bounded() -> None:
    tracker = Tracker(TrackSettings(max_tracks=5))
    crowd = [seen(40 * n % 600, y=40 * n // 600 * 60) for n in range(20)]
    changes = list(walk(tracker, [crowd] * 10))
    assert len(changes[-1].live) == 5
    assert tracker.left_out > 0

    def weight() -> int:
        (one,) = steady._individuals.values()
        return sum(sys.getsizeof(value) for value in vars(one).values()) + sys.getsizeof(one.votes)

    steady = Tracker(TrackSettings())
    list(walk(steady, [[seen(100)]] * 20))
    first = weight()
    list(walk(steady, [[seen(100)]] * 500, start=2.0))
    # Floats and integers may take a few bytes more as they grow; nothing is kept a frame.
    assert weight() - first < 200
    assert isinstance(next(iter(steady._individuals.values())), Individual)


def test_by_label_a_run_of_the_same_label_is_one() -> None:
    tracker = Tracker(TrackSettings(confirm_frames=3, lost_seconds=1.0), by_label=True)
    labels = ["ant"] * 8 + ["bee"] + ["ant"] * 4 + [UNKNOWN] * 20 + ["ant"] * 5
    changes = list(walk(tracker, [[seen(100, label)] for label in labels]))
    arrived = [(place, track.label) for place, one in enumerate(changes) for track in one.arrived]
    assert arrived == [(2, "ant"), (35, "ant")]
    (left,) = [track for one in changes for track in one.left]
    assert (left.frames, left.ending) == (12, "gone")


@pytest.mark.parametrize(
    "field", [{"confirm_frames": 1}, {"lost_seconds": 0}, {"max_tracks": 0}, {"reach": -1}, {"crop_side_px": 1}]
)
def test_settings_name_the_field(field: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        TrackSettings(**field)  # type: ignore[arg-type]
