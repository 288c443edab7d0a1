"""What is known of one individual: what its frames said of it, where it is, and its best view."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_lsla.events import Box, new_id
from edge_lsla.pipeline.regions import centre
from edge_lsla.predictions import Prediction

UNKNOWN = "unknown"  # the label of what the model is not sure of
JUDGE_SECONDS = 0.2  # between two views of an individual that are compared
VELOCITY_SECONDS = 0.3  # over which an individual's speed is taken
STIRRED = 0.5  # sizes by which an individual must move to have moved
BETTER = 1.1  # times better, from which on a view replaces the best so far
SHARP = 100.0  # variance of the Laplacian at which a view counts as half sharp


@dataclass(frozen=True)
class Detection:
    """What one region of one frame shows.

    Attributes:
        box: the region, pixels, without padding.
        label: the likeliest class, or "unknown" where it is below the least confidence.
        confidence: probability of the likeliest class, also where that was refused.
        predictions: likeliest first.
        track: id of the individual; None where it has not arrived.
    """

    box: Box
    label: str
    confidence: float
    predictions: tuple[Prediction, ...]
    track: str | None = None


@dataclass(frozen=True, eq=False)
class Track:
    """An individual as far as it is known.

    Attributes:
        id: unique for ever.
        label: the class that its frames voted for, weighted by confidence; "unknown" where most of them abstained.
        confidence: mean probability of that class over the frames that named one, 0 to 1; of "unknown" that of each
            frame's likeliest class.
        box: where it was last seen, pixels.
        first, last: times of the first and last frame that showed it, on the clock of `Frame.time`.
        seconds: between them, by a clock that does not jump.
        frames: that showed it.
        crop: its best view, uint8 [h, w, 3].
        ending: None while it is there; "gone"; or "settled", when it became ground without moving.
    """

    id: str
    label: str
    confidence: float
    box: Box
    first: float
    last: float
    seconds: float
    frames: int
    crop: NDArray[np.uint8]
    ending: str | None = None


@dataclass
class Individual:
    """What is kept of an individual: as much after a day as after a second; see `Track` for the fields that it has.

    Attributes:
        begun, seen: first and last sighting on a clock that does not jump.
        clock: last sighting on the tracker's clock.
        anchor, still_since: where and since when it has not moved.
        travelled: whether it has moved since it appeared.
        velocity: pixels a second.
        named, abstained: frames that named a class, and that did not.
        votes: by class, summed confidence.
        refused: summed confidence of the frames that abstained.
        judged: when a view was last compared with the best one, once it had arrived.
    """

    first: float
    begun: float
    frames: int
    id: str = field(default_factory=new_id)
    last: float = 0.0
    seen: float = 0.0
    clock: float = 0.0
    box: Box = field(default_factory=lambda: Box(0, 0, 1, 1))
    anchor: Box | None = None
    still_since: float = 0.0
    travelled: bool = False
    velocity: tuple[float, float] = (0.0, 0.0)
    arrived: bool = False
    named: int = 0
    abstained: int = 0
    votes: dict[str, float] = field(default_factory=dict)
    refused: float = 0.0
    crop: NDArray[np.uint8] | None = None
    crop_label: str = ""
    crop_score: float = 0.0
    judged: float = -math.inf

    def see(self, detection: Detection, time: float, now: float, clock: float) -> None:
        """Take a sighting."""
        step = now - self.seen
        if self.anchor is not None and step > 0:
            weight = 1 - math.exp(-step / VELOCITY_SECONDS)
            (x, y), (before_x, before_y) = centre(detection.box), centre(self.box)
            speed = ((x - before_x) / step, (y - before_y) / step)
            self.velocity = (
                self.velocity[0] + weight * (speed[0] - self.velocity[0]),
                self.velocity[1] + weight * (speed[1] - self.velocity[1]),
            )
        self.box, self.last, self.seen, self.clock = detection.box, time, now, clock
        self.frames += 1
        if self.anchor is None or _distance(detection.box, self.anchor) > STIRRED:
            self.travelled = self.anchor is not None
            self.anchor, self.still_since = detection.box, now
        if detection.label == UNKNOWN:
            self.abstained += 1
            self.refused += detection.confidence
        else:
            self.named += 1
            self.votes[detection.label] = self.votes.get(detection.label, 0.0) + detection.confidence

    @property
    def label(self) -> str:
        """What its frames voted for."""
        if self.abstained > self.named or not self.votes:
            return UNKNOWN
        return max(self.votes, key=lambda label: (self.votes[label], label))

    @property
    def confidence(self) -> float:
        """How sure they were of it, 0 to 1."""
        label = self.label
        share = self.refused / max(1, self.abstained) if label == UNKNOWN else self.votes[label] / self.named
        return min(1.0, share)

    def foretold(self, now: float) -> tuple[float, float]:
        """Return where its middle should be by now, also outside the frame."""
        (x, y), ahead = centre(self.box), now - self.seen
        return x + self.velocity[0] * ahead, y + self.velocity[1] * ahead

    def expected(self, now: float) -> Box:
        """Return its box by now, cut at the frame's left and upper edge."""
        x, y = self.foretold(now)
        left, top = max(0, round(x - self.box.width / 2)), max(0, round(y - self.box.height / 2))
        return Box(left, top, left + self.box.width, top + self.box.height)

    def snapshot(self, ending: str | None = None) -> Track:
        """Return it as it is now."""
        assert self.crop is not None  # every sighting offers one
        return Track(
            self.id, self.label, self.confidence, self.box, self.first, self.last, self.seen - self.begun, self.frames,
            self.crop, ending,
        )  # fmt: skip

    def keep_best(self, detection: Detection, view: Callable[[Box], NDArray[np.uint8]], side: int) -> None:
        """Keep the view of a sighting, reduced to `side` pixels, where it is the surest and sharpest of its class."""
        label = self.label
        if self.crop is not None and (detection.label != label or self.seen < self.judged + JUDGE_SECONDS):
            return
        fits = self.crop_label == label
        if fits and detection.confidence <= self.crop_score:  # sharpness is at most 1: it cannot be better
            return
        self.judged = self.seen if self.arrived else self.judged
        pixels = _bounded(view(detection.box), side)
        score = detection.confidence * _sharpness(pixels)
        if self.crop is None or not fits or score > BETTER * self.crop_score:
            self.crop, self.crop_label, self.crop_score = pixels, detection.label, score


def _distance(first: Box, second: Box) -> float:
    """Return how far two boxes' middles are apart, in sizes of the second."""
    (x, y), (other_x, other_y) = centre(first), centre(second)
    return math.hypot(x - other_x, y - other_y) / max(second.width, second.height)


def _sharpness(pixels: NDArray[np.uint8]) -> float:
    """Return how sharp a picture is, 0 to 1."""
    import cv2

    variance = float(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())
    return variance / (variance + SHARP)


def _bounded(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a copy that is at most so large."""
    import cv2

    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return np.array(pixels)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smaller: NDArray[np.uint8] = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return smaller
