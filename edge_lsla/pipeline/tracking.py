"""Individuals: detections of one insect over many frames, named by their vote, counted once.

Association is ByteTrack's, of the library `trackers`, on buffered boxes; what an individual is, and when it has arrived
and left, is decided here, in seconds, because a field camera's frame rate varies.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import UsageError
from edge_lsla.events import Box
from edge_lsla.pipeline.individuals import UNKNOWN, Detection, Individual, Track

REFERENCE_RATE = 30.0  # frames a second for which the library's motion model is tuned
LEAST_LOOKS = 3  # frames that must miss an individual before it has left, however slow the camera is
EXPECTED_SECONDS = 1.0  # how long a place is foretold for an individual that is not seen


@dataclass(frozen=True)
class TrackSettings:
    """What makes detections an individual.

    Attributes:
        confirm_frames: sightings until an individual has arrived; fewer are noise.
        lost_seconds: without a sighting, until it has left.
        break_seconds: a longer break between two frames ends every track: nobody watched.
        reach: how far an insect may get between two frames beyond where it was heading, in its own sizes.
        max_tracks: individuals followed at once; more are not counted.
        crop_side_px: longest side of the kept view of an individual.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    confirm_frames: int = 4
    lost_seconds: float = 2.0
    break_seconds: float = 30.0
    reach: float = 0.6
    max_tracks: int = 64
    crop_side_px: int = 320

    def __post_init__(self) -> None:
        for name, low, high in (
            ("confirm_frames", 2, 1000),
            ("lost_seconds", 0.1, 3600.0),
            ("break_seconds", 1.0, 86_400.0),
            ("reach", 0.0, 5.0),
            ("max_tracks", 1, 4096),
            ("crop_side_px", 16, 4096),
        ):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"a number from {low:g} to {high:g} is needed", name, "correct it")


@dataclass(frozen=True)
class Tracked:
    """What a frame changed.

    Attributes:
        ids: for each detection the individual's id, None where it has not arrived.
        arrived: individuals that are certain since this frame; each is here once.
        left: individuals that are no longer there; each arrived before.
        live: individuals that have arrived and not left.
    """

    ids: tuple[str | None, ...]
    arrived: tuple[Track, ...]
    left: tuple[Track, ...]
    live: tuple[Track, ...]


class Tracker:
    """Follows the individuals before one camera; called from one thread at a time.

    Args:
        settings: see `TrackSettings`.
        by_label: a detection's label says which individual it is: a run of the same label, where the whole frame is one
            region. "unknown" then is nobody.

    Attributes:
        left_out: individuals that were not followed, because `max_tracks` were.
    """

    def __init__(self, settings: TrackSettings, *, by_label: bool = False) -> None:
        self._settings = settings
        self._individuals: dict[int | str, Individual] = {}
        self._library = None if by_label else _library(settings)
        self._time = self._now = self._clock = 0.0
        self._begun = False
        self.left_out = 0

    def update(
        self,
        detections: Sequence[Detection],
        time: float,
        now: float,
        view: Callable[[Box], NDArray[np.uint8]],
        *,
        size: tuple[int, int] | None = None,
        doubtful: Callable[[Box], bool] = lambda box: False,
        still_there: Callable[[Track], bool] = lambda track: False,
    ) -> Tracked:
        """Take the detections of the next frame.

        Args:
            detections: of one frame.
            time: the frame's, for people.
            now: seconds on a clock that never goes back.
            view: the picture of a box, uint8 [h, w, 3]; copied where it is kept.
            size: width and height of the frame, pixels; who walked out of it has left at once.
            doubtful: whether something that has not moved since it appeared is no individual.
            still_there: whether a lost individual looks as if it were still in its place.
        """
        step = max(0.0, now - self._now) if self._begun else 0.0
        ended = self.finish() if step > self._settings.break_seconds else ()
        # A slow camera must miss an individual a few times: what it does not look at does not leave.
        self._clock += max(1e-6, min(step, self._settings.lost_seconds / LEAST_LOOKS))
        keys, alive = self._associate(detections)
        arrived: list[Track] = []
        ids: list[str | None] = []
        for detection, key in zip(detections, keys):
            one = None if key is None else self._known(key, time, now)
            if one is None:
                ids.append(None)
                continue
            one.see(detection, time, now, self._clock)
            one.keep_best(detection, view, self._settings.crop_side_px)
            if not one.arrived and one.frames >= self._settings.confirm_frames:
                one.arrived = one.travelled or not doubtful(one.box)
                arrived += [one.snapshot()] if one.arrived else []
            ids.append(one.id if one.arrived else None)
        left: list[Track] = list(ended)
        if size is not None:
            alive -= self._walked_out(now, size)
        for key in [key for key in self._individuals if key not in alive]:
            one = self._individuals.pop(key)
            if one.arrived:
                left.append(one.snapshot("settled" if still_there(one.snapshot()) else "gone"))
        self._time, self._now, self._begun = time, now, True
        return Tracked(tuple(ids), tuple(arrived), tuple(left), self.live())

    def live(self) -> tuple[Track, ...]:
        """Return the individuals that have arrived and not left."""
        return tuple(one.snapshot() for one in self._individuals.values() if one.arrived)

    def expected(self, now: float) -> tuple[Box, ...]:
        """Return where those that have arrived should be at a moment, pixels."""
        recent = (one for one in self._individuals.values() if one.arrived and now - one.seen <= EXPECTED_SECONDS)
        return tuple(one.expected(now) for one in recent)

    def restless(self, now: float, seconds: float) -> tuple[Box, ...]:
        """Return where named individuals are that have moved within so many seconds, pixels."""
        named = (one for one in self._individuals.values() if one.arrived and one.label != UNKNOWN)
        return tuple(one.box for one in named if now - one.still_since < seconds)

    def finish(self) -> tuple[Track, ...]:
        """Let everybody leave, as of when they were last seen, because nobody watches any more."""
        left = tuple(one.snapshot("gone") for one in self._individuals.values() if one.arrived)
        self._individuals.clear()
        if self._library is not None:
            self._library.reset()
            self._clock = 0.0
        return left

    def _associate(self, detections: Sequence[Detection]) -> tuple[list[int | str | None], set[int | str]]:
        """Return the key of each detection's individual, and the keys of all that are not lost."""
        if self._library is None:
            labels: list[int | str | None] = [None if one.label == UNKNOWN else one.label for one in detections]
            lost = self._clock - self._settings.lost_seconds
            recent = {key for key, one in self._individuals.items() if one.clock >= lost}
            return labels, recent | {key for key in labels if key is not None}
        import supervision

        boxes = np.array([one.box.to_list() for one in detections], np.float64).reshape(-1, 4)
        given = supervision.Detections(boxes, data={"place": np.arange(len(detections))})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._library.update(given, timestamp=self._clock)
        alive = {one.tracker_id for one in self._library.tracks if one.tracker_id != -1}
        keys: list[int | str | None] = [None] * len(detections)
        for place, key in zip(found.data.get("place", ()), found.tracker_id):
            keys[int(place)] = int(key) if key >= 0 else None
        return keys, alive

    def _walked_out(self, now: float, size: tuple[int, int]) -> set[int | str]:
        """Forget, and return the keys of, those who are not seen and would be outside the frame by now."""
        out: set[int | str] = set()
        for key, one in self._individuals.items():
            x, y = one.foretold(now)
            if one.seen < now and not (0 <= x < size[0] and 0 <= y < size[1]):
                out.add(key)
        if out and self._library is not None:
            # Else the next one to come in there, a second later, would be taken for the one that went.
            self._library.tracks = [one for one in self._library.tracks if one.tracker_id not in out]
        return out

    def _known(self, key: int | str, time: float, now: float) -> Individual | None:
        if key not in self._individuals:
            if len(self._individuals) >= self._settings.max_tracks:
                self.left_out += 1
                return None
            # The library names what it sees in two frames on end: the first of them was the one before this.
            if self._library is not None and self._begun:
                self._individuals[key] = Individual(self._time, self._now, frames=1)
            else:
                self._individuals[key] = Individual(time, now, frames=0)
        return self._individuals[key]


def _library(settings: TrackSettings) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library's own dependencies deprecate is not ours
        from trackers import BIoU, ByteTrackTracker

        return ByteTrackTracker(
            lost_track_buffer=max(1, round(settings.lost_seconds * REFERENCE_RATE)),
            frame_rate=REFERENCE_RATE,
            minimum_consecutive_frames=2,
            minimum_iou_threshold=0.05,
            iou=BIoU(buffer_ratio=settings.reach),
        )
