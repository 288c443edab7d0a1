"""Finding insects in a camera's frames: regions, what they show, and the individuals that they are.

The caller classifies between `crops` and `conclude`, so that crops of several cameras can share a batch:

    boxes = finding.regions(frame)
    predictions = model(finding.crops(frame, boxes)) if boxes else ()
    found = finding.conclude(frame, boxes, predictions)
    finding.learn(frame)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import UsageError
from edge_lsla.events import Box
from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.individuals import UNKNOWN, Detection, Track
from edge_lsla.pipeline.motion import Motion, MotionSettings
from edge_lsla.pipeline.regions import cut, fit_to_expected, square_around, union
from edge_lsla.pipeline.tiles import GridSettings, merge_tiles, tiles
from edge_lsla.pipeline.tracking import Tracker, TrackSettings
from edge_lsla.predictions import Prediction

REGIONS = ("full", "grid", "motion")
THUMBNAIL = 16  # pixels a side of the view by which a lost individual is sought in its place
ALIKE = 12.0  # mean difference of two such views, of 255, below which they show the same


@dataclass(frozen=True)
class FindingSettings:
    """Where in a frame to look, and when to be sure.

    Attributes:
        regions: "motion" (what moves before a camera that stands still), "grid" (overlapping tiles, for still things)
            or "full" (the whole frame, for one large insect).
        min_side_px: moving regions whose longer side is below this are noise.
        max_regions: classified in one frame; the largest are taken.
        padding: of the square that is cut around a moving region, on each side, as a share of its longer side.
        min_confidence: below it a region is "unknown"; None takes the bundle's calibrated threshold.
        motion, grid, track: see these.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    regions: str = "motion"
    min_side_px: int = 12
    max_regions: int = 32
    padding: float = 0.15
    min_confidence: float | None = None
    motion: MotionSettings = field(default_factory=MotionSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    track: TrackSettings = field(default_factory=TrackSettings)

    def __post_init__(self) -> None:
        if self.regions not in REGIONS:
            raise UsageError(f"unknown regions {self.regions!r}", "regions", f"use {', '.join(REGIONS)}")
        for name, low, high in (("min_side_px", 1, 4096), ("max_regions", 1, 4096), ("padding", 0.0, 2.0)):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"a number from {low:g} to {high:g} is needed", name, "correct it")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError("a confidence is from 0 to 1", "min_confidence", "correct it")


@dataclass(frozen=True)
class Found:
    """What a frame shows and what it changed.

    Attributes:
        detections: what each region shows; with "grid" only named tiles, neighbours of one label as one.
        arrived: individuals that are certain since this frame; each individual is here once.
        left: individuals that are no longer there; each arrived before.
        live: individuals that have arrived and not left.
    """

    detections: tuple[Detection, ...] = ()
    arrived: tuple[Track, ...] = ()
    left: tuple[Track, ...] = ()
    live: tuple[Track, ...] = ()


class Finding:
    """Finds and follows the insects before one camera; called from one thread at a time, frames in order.

    Args:
        source: the camera's configured name.
        settings: see `FindingSettings`.
        threshold: the bundle's calibrated least confidence, for settings that name none.

    Attributes:
        left_out: regions that were not looked at, because a frame had more than `max_regions`.
    """

    def __init__(self, source: str, settings: FindingSettings, threshold: float = 0.0) -> None:
        self.source = source
        self.settings = settings
        self.min_confidence = threshold if settings.min_confidence is None else settings.min_confidence
        self.left_out = 0
        self._motion = Motion(settings.motion) if settings.regions == "motion" else None
        self._tracker = Tracker(settings.track, by_label=settings.regions == "full")
        self._views: dict[str, NDArray[np.int16]] = {}
        self._blind_since: float | None = None
        self._blind_seconds = 0.0

    @property
    def full_frame_changes(self) -> int:
        """How often most of the frame changed at once, so that nothing could be found in it ("motion")."""
        return self._motion.full_frame_changes if self._motion else 0

    def regions(self, frame: Frame) -> tuple[Box, ...]:
        """Return where to look in a frame, pixels; empty where nothing moves."""
        height, width = frame.pixels.shape[:2]
        if self.settings.regions == "full":
            return (Box(0, 0, width, height),)
        if self.settings.regions == "grid":
            return self._most(tiles((width, height), self.settings.grid))
        assert self._motion is not None
        now = _clock(frame)
        moving = self._motion.boxes(frame.pixels, now)
        if moving is None:
            self._blind_since = now if self._blind_since is None else self._blind_since
            return ()
        if self._blind_since is not None:  # nobody leaves while nothing can be seen
            self._blind_seconds += now - self._blind_since
            self._blind_since = None
        large = [box for box in moving if max(box.width, box.height) >= self.settings.min_side_px]
        expected = self._tracker.expected(now - self._blind_seconds)
        return self._most(fit_to_expected(large, expected))

    def crops(self, frame: Frame, boxes: Sequence[Box]) -> list[NDArray[np.uint8]]:
        """Return what to classify, uint8 [h, w, 3] each: squares around moving regions, else the boxes themselves."""
        return [self._view(frame, box) for box in boxes]

    def conclude(self, frame: Frame, boxes: Sequence[Box], predictions: Sequence[tuple[Prediction, ...]]) -> Found:
        """Take what a frame's regions show.

        Args:
            frame: the one that `regions` was last asked about.
            boxes: as `regions` gave them.
            predictions: of each box's crop, likeliest first.
        """
        if len(boxes) != len(predictions):
            raise ValueError(f"{len(predictions)} predictions for {len(boxes)} regions")
        if self._blind_since is not None:
            return Found(live=self._tracker.live())
        detections = [self._named(box, ranked) for box, ranked in zip(boxes, predictions)]
        if self.settings.regions == "grid":
            detections = _merged([one for one in detections if one.label != UNKNOWN])
        tracked = self._tracker.update(
            detections,
            frame.time,
            _clock(frame) - self._blind_seconds,
            lambda box: self._view(frame, box),
            size=(frame.pixels.shape[1], frame.pixels.shape[0]),
            doubtful=self._motion.is_ghost if self._motion else lambda box: False,
            still_there=lambda track: self._still_there(frame, track),
        )
        found = tuple(dataclasses.replace(one, track=key) for one, key in zip(detections, tracked.ids))
        if self._motion is not None:
            live = {track.id for track in tracked.live}
            self._views = {key: view for key, view in self._views.items() if key in live}
            self._views |= {one.track: _thumbnail(cut(frame.pixels, one.box)) for one in found if one.track is not None}
        return Found(found, tracked.arrived, tracked.left, tracked.live)

    def learn(self, frame: Frame) -> None:
        """Let the ground be learned from the frame that was concluded last; what was found should be on its way."""
        if self._motion is not None and self._blind_since is None:
            now = _clock(frame) - self._blind_seconds
            self._motion.learn(self._tracker.restless(now, self.settings.motion.settle_seconds))

    def finish(self) -> tuple[Track, ...]:
        """Let every individual leave, as of when it was last seen: the camera is not watched any more."""
        self._views = {}
        return self._tracker.finish()

    def _named(self, box: Box, ranked: tuple[Prediction, ...]) -> Detection:
        share = ranked[0].probability if ranked else 0.0
        sure = bool(ranked) and share >= self.min_confidence
        return Detection(box, ranked[0].label if sure else UNKNOWN, share, ranked)

    def _view(self, frame: Frame, box: Box) -> NDArray[np.uint8]:
        height, width = frame.pixels.shape[:2]
        if self.settings.regions != "motion":
            return cut(frame.pixels, box)
        return cut(frame.pixels, square_around(box, self.settings.padding, (width, height)))

    def _most(self, boxes: Sequence[Box]) -> tuple[Box, ...]:
        self.left_out += max(0, len(boxes) - self.settings.max_regions)
        return tuple(boxes[: self.settings.max_regions])

    def _still_there(self, frame: Frame, track: Track) -> bool:
        before = self._views.get(track.id)
        pixels = cut(frame.pixels, track.box)
        if before is None or pixels.size == 0:
            return False
        return float(np.abs(_thumbnail(pixels) - before).mean()) < ALIKE


def _clock(frame: Frame) -> float:
    """Return seconds that never go back: a recording's own, and of a live source those of capture."""
    return frame.captured if frame.live else frame.time


def _merged(detections: Sequence[Detection]) -> list[Detection]:
    """Make one detection of neighbouring tiles that show the same."""
    merged = []
    for group in merge_tiles([one.box for one in detections], [one.label for one in detections]):
        tiles_of = [detections[place] for place in group]
        best = max(tiles_of, key=lambda one: one.confidence)
        merged.append(dataclasses.replace(best, box=union([one.box for one in tiles_of])))
    return merged


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    import cv2

    small: NDArray[np.uint8] = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return small.astype(np.int16)
