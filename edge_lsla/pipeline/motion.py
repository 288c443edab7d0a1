"""What moves before a camera that stands still: OpenCV's background model (MOG2), in time rather than in frames.

The model is asked about every frame and taught a few times a second. Where a named individual is, it is taught what
lay there before, so that an insect that sits down does not become ground (see `MotionSettings.settle_seconds`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import UsageError
from edge_lsla.events import Box

LEARN_SECONDS = 0.2  # between lessons
WARM_UP_FRAMES = 4  # at least, however slow the camera is
LARGEST_GAIN = 1.6  # by which light may have changed and still be evened out
LEAST_GAIN = 1 / 255  # a change of light that is no grey level anywhere
GHOST_RATIO = 1.5  # edges of the ground as strong as these times those of the frame: what was there has gone


@dataclass(frozen=True)
class MotionSettings:
    """What counts as moving.

    Attributes:
        history_seconds: how long the ground is remembered; what stands still and has no name becomes ground after about
            a tenth of it.
        settle_seconds: a named individual that has not moved for so long becomes ground as well, and its track ends.
        warm_up_seconds: after the start, and after a full-frame change, nothing is found for so long.
        sensitivity: deviations from the ground, in its standard deviations, that count as different.
        full_frame_share: where more of the frame than this is different, the light or the camera changed: nothing is
            found, and the ground is learned anew.
        work_width_px: width to which a frame is reduced first; what is below two pixels there is not seen.
        merge_px: moving parts at most so far from each other, in the reduced frame, are one.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    history_seconds: float = 120.0
    settle_seconds: float = 600.0
    warm_up_seconds: float = 1.0
    sensitivity: float = 4.0
    full_frame_share: float = 0.4
    work_width_px: int = 320
    merge_px: int = 2

    def __post_init__(self) -> None:
        for name, low, high in (
            ("history_seconds", 1.0, 86_400.0),
            ("settle_seconds", 0.0, 86_400.0),
            ("warm_up_seconds", 0.0, 60.0),
            ("sensitivity", 1.0, 20.0),
            ("full_frame_share", 0.05, 1.0),
            ("work_width_px", 32, 4096),
            ("merge_px", 0, 100),
        ):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"a number from {low:g} to {high:g} is needed", name, "correct it")


class Motion:
    """The background model of one camera; called from one thread at a time.

    Attributes:
        full_frame_changes: how often most of the frame changed at once.
    """

    def __init__(self, settings: MotionSettings) -> None:
        import cv2  # heavy, and only this way of finding regions needs it

        self._cv2: Any = cv2
        self._settings = settings
        self._small_part = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
        self._shape: tuple[int, ...] = ()
        self.full_frame_changes = 0
        self._now = self._learned = 0.0
        self._background: NDArray[np.uint8] | None = None
        self._restart(0.0)

    def boxes(self, pixels: NDArray[np.uint8], now: float) -> tuple[Box, ...] | None:
        """Return what moves, largest first.

        Args:
            pixels: uint8 [H, W, 3].
            now: seconds on a clock that never goes back.

        Returns:
            Boxes in the frame's pixels; None while the ground is being learned, when nothing can be said.
        """
        small = self._reduced(pixels, now)
        self._now = now
        if not self._ready(small, now):
            return None
        small = self._evened(small)
        mask = self._model.apply(small, learningRate=0.0)
        different = self._cv2.countNonZero(mask) / mask.size
        if different > self._settings.full_frame_share:
            self.full_frame_changes += 1
            self._restart(now)
            self._ready(small, now)
            return None
        self._mask = self._cv2.morphologyEx(mask, self._cv2.MORPH_OPEN, self._small_part)
        self._small = small
        found = sorted(self._parts(), key=lambda box: -box.width * box.height)
        return tuple(self._enlarged(box) for box in found)

    def learn(self, kept: Sequence[Box] = ()) -> None:
        """Learn from the frame that `boxes` was last asked about, a few times a second.

        It takes as long as `boxes`, and so may wait until what was found is passed on.

        Args:
            kept: where the ground is not to be learned.
        """
        elapsed = self._now - self._learned
        if elapsed < LEARN_SECONDS:
            return
        lesson = self._small
        if kept:
            lesson = lesson.copy()
            for box in kept:
                part = self._reduced_slices(box)
                lesson[part] = self._ground()[part]
        self._model.apply(lesson, learningRate=1 - math.exp(-elapsed / self._settings.history_seconds))
        self._learned, self._background = self._now, self._model.getBackgroundImage()

    def is_ghost(self, box: Box) -> bool:
        """Say whether a place differs from the ground because something left it: its outline is in the ground.

        (R. Cucchiara et al., "Detecting moving objects, ghosts, and shadows in video streams", PAMI 25, 2003.)

        Args:
            box: of what was found in the last frame.
        """
        cv2 = self._cv2
        part = self._reduced_slices(box)
        outline = cv2.morphologyEx(self._mask[part], cv2.MORPH_GRADIENT, self._small_part) > 0
        if not outline.any():
            return False
        now, before = (_edges(cv2, image[part])[outline].mean() for image in (self._small, self._ground()))
        return bool(before > GHOST_RATIO * now)

    def _parts(self) -> list[Box]:
        """Return the boxes of what is different and not far apart, in the reduced frame."""
        x0, y0, across, down = self._cv2.boundingRect(self._mask)
        if not across:
            return []
        reach = (self._settings.merge_px + 1) // 2
        height, width = self._mask.shape
        x0, y0, x1, y1 = max(0, x0 - reach), max(0, y0 - reach), x0 + across + reach, y0 + down + reach
        grown = self._cv2.dilate(self._mask[y0:y1, x0:x1], np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
        _, _, stats, _ = self._cv2.connectedComponentsWithStats(grown, connectivity=8)
        parts = []
        for inner_x, inner_y, w, h, _ in stats[1:].tolist():
            x, y = inner_x + x0, inner_y + y0
            left, top = (x + reach if x else 0), (y + reach if y else 0)
            right = x + w - reach if x + w < width else width
            bottom = y + h - reach if y + h < height else height
            parts.append(Box(left, top, max(right, left + 1), max(bottom, top + 1)))
        return parts

    def _ready(self, small: NDArray[np.uint8], now: float) -> bool:
        """Teach the model its first frames; say whether these are over."""
        if self._frames >= WARM_UP_FRAMES and now - self._begun >= self._settings.warm_up_seconds:
            return True
        self._model.apply(small, learningRate=-1)  # as fast as the number of frames so far asks for
        self._level = np.array(self._cv2.mean(small)[:3])
        self._frames += 1
        self._learned = now
        return False

    def _restart(self, now: float) -> None:
        model = self._cv2.createBackgroundSubtractorMOG2(500, self._settings.sensitivity**2, detectShadows=False)
        self._model: Any = model
        self._frames, self._begun, self._learned, self._now = 0, now, now, now
        self._level = np.zeros(3)
        self._mask = self._small = np.zeros((0, 0), np.uint8)
        self._background = None

    def _reduced(self, pixels: NDArray[np.uint8], now: float) -> NDArray[np.uint8]:
        if pixels.shape != self._shape:
            self._shape = pixels.shape
            self._restart(now)
        height, width = pixels.shape[:2]
        scale = min(1.0, self._settings.work_width_px / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small: NDArray[np.uint8] = self._cv2.resize(pixels, size, interpolation=self._cv2.INTER_AREA)
        return small

    def _evened(self, small: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring the light of the ground to what it was: clouds and a camera's exposure are no insects."""
        still = None if self._mask.shape != small.shape[:2] else self._cv2.bitwise_not(self._mask)
        level = np.array(self._cv2.mean(small, mask=still)[:3])
        gain = self._level / np.maximum(level, 1.0)
        if (abs(gain - 1) < LEAST_GAIN).all() or not ((gain > 1 / LARGEST_GAIN) & (gain < LARGEST_GAIN)).all():
            return small
        evened: NDArray[np.uint8] = self._cv2.multiply(small, (*gain.tolist(), 0.0))
        return evened

    def _ground(self) -> NDArray[np.uint8]:
        if self._background is None:
            self._background = self._model.getBackgroundImage()
        return self._background

    def _reduced_slices(self, box: Box) -> tuple[slice, slice]:
        """Return a box's rows and columns in the reduced frame, a pixel more on each side."""
        x, y = self._scale()
        rows = slice(max(0, int(box.top / y) - 1), math.ceil(box.bottom / y) + 1)
        return rows, slice(max(0, int(box.left / x) - 1), math.ceil(box.right / x) + 1)

    def _enlarged(self, box: Box) -> Box:
        x, y = self._scale()
        return Box(int(box.left * x), int(box.top * y), math.ceil(box.right * x), math.ceil(box.bottom * y))

    def _scale(self) -> tuple[float, float]:
        return self._shape[1] / self._small.shape[1], self._shape[0] / self._small.shape[0]


def _edges(cv2: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    strength: NDArray[np.float32] = cv2.magnitude(across, down)
    return strength
