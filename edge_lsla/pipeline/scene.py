"""Insects that walk over a textured background, with the truth of where each is: for tests and figures of finding."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_lsla.errors import UsageError
from edge_lsla.events import Box
from edge_lsla.preprocessing import open_picture

CUT_SIDE = 128  # of a picture that an insect is cut out of, pixels
NOISE_ROOM = 64  # pixels by which the noise is larger than the frame, so that no two frames have the same
LEAST_SEEN = 0.5  # share of an insect inside the frame from which on it counts as there


@dataclass(frozen=True)
class Walker:
    """An insect and its way.

    Attributes:
        picture: its cut-out, see `cut_out`.
        label: what it is.
        side: its longer side in the frame, pixels.
        way: (seconds, x, y) of its middle, in pixels, joined by straight lines; before the first and after the last it
            is not there. Two equal places in a row let it sit.
    """

    picture: Image.Image
    label: str
    side: int
    way: tuple[tuple[float, float, float], ...]

    def place(self, seconds: float) -> tuple[float, float] | None:
        """Return where its middle is at a moment, pixels; None where it is not there."""
        times = [step[0] for step in self.way]
        if not times[0] <= seconds <= times[-1]:
            return None
        x, y = (float(np.interp(seconds, times, [step[axis] for step in self.way])) for axis in (1, 2))
        return x, y


@dataclass(frozen=True)
class Truth:
    """An insect that a frame shows: its number in the scene, its class, and its box, clipped to the frame."""

    number: int
    label: str
    box: Box


@dataclass(frozen=True)
class SceneSettings:
    """The scene around the insects.

    Attributes:
        size: width and height, pixels.
        noise: standard deviation of the camera's noise, of 255.
        shake_px: by how many pixels the camera trembles, at most.
        light: (seconds, factor) of the light, joined by straight lines.
        seed: of texture, noise and trembling.
    """

    size: tuple[int, int] = (640, 480)
    noise: float = 3.0
    shake_px: float = 0.0
    light: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    seed: int = 0


class Scene:
    """Draws frames whose pixels depend on nothing but the walkers, the settings and the time."""

    def __init__(self, walkers: Sequence[Walker], settings: SceneSettings | None = None) -> None:
        self.walkers = tuple(replace(one, picture=_scaled(one.picture, one.side)) for one in walkers)
        self.settings = settings or SceneSettings()
        rng = np.random.default_rng(self.settings.seed)
        width, height = self.settings.size
        self._margin = math.ceil(self.settings.shake_px)
        self._ground = Image.fromarray(_texture(rng, width + 2 * self._margin, height + 2 * self._margin))
        room = (height + NOISE_ROOM, width + NOISE_ROOM, 3)
        self._noise = (rng.standard_normal(room, np.float32) * self.settings.noise).round().astype(np.int16)

    def truth(self, seconds: float, least: float = LEAST_SEEN) -> tuple[Truth, ...]:
        """Return who is there: of whom at least such a share is inside the frame, without trembling."""
        width, height = self.settings.size
        there = []
        for number, one in enumerate(self.walkers):
            place = one.place(seconds)
            if place is None:
                continue
            w, h = one.picture.size
            left, top = round(place[0] - w / 2), round(place[1] - h / 2)
            right, bottom = min(width, left + w), min(height, top + h)
            left, top = max(0, left), max(0, top)
            if right > left and bottom > top and (right - left) * (bottom - top) >= least * w * h:
                there.append(Truth(number, one.label, Box(left, top, right, bottom)))
        return tuple(there)

    def draw(self, seconds: float) -> NDArray[np.uint8]:
        """Return the frame of a moment, uint8 [H, W, 3]."""
        rng = np.random.default_rng((self.settings.seed, round(seconds * 1000)))
        image = self._ground.copy()
        for one in self.walkers:
            place = one.place(seconds)
            if place is not None:
                w, h = one.picture.size
                at = (round(place[0] - w / 2) + self._margin, round(place[1] - h / 2) + self._margin)
                image.paste(one.picture, at, one.picture)
        width, height = self.settings.size
        if self._margin:
            shift = rng.uniform(-self.settings.shake_px, self.settings.shake_px, 2) + self._margin
            box = (shift[0], shift[1], shift[0] + width, shift[1] + height)
            image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        pixels = np.asarray(image, np.int16)
        times, factors = zip(*self.settings.light)
        light = float(np.interp(seconds, times, factors))
        if light != 1.0:
            pixels = (pixels * np.float32(light)).astype(np.int16)
        y, x = rng.integers(0, NOISE_ROOM, 2)
        frame: NDArray[np.uint8] = np.clip(pixels + self._noise[y : y + height, x : x + width], 0, 255).astype(np.uint8)
        return frame


def crossing(
    pictures: Sequence[Path], number: int, size: tuple[int, int], seconds: float, seed: int = 0
) -> tuple[Walker, ...]:
    """Let so many insects, taken from pictures named LABEL_NUMBER, walk across a frame, each at its own time.

    Args:
        pictures: files that `cut_out` can read; taken in turn.
        number: of insects.
        size: of the frame, pixels.
        seconds: within which all of them come and go.
        seed: of their ways.

    Raises:
        UsageError: there are no pictures to take them from.
        ImageError: a picture cannot be read.
    """
    if not pictures:
        raise UsageError("insects that walk are cut out of pictures", "pictures", "give some")
    rng = np.random.default_rng(seed)
    width, height = size
    walkers = []
    for index in range(number):
        path = pictures[index % len(pictures)]
        side = round(min(size) * float(rng.uniform(0.1, 0.16)))
        speed = width * float(rng.uniform(0.12, 0.3))  # pixels a second
        lasting = (width + 2 * side) / speed
        start = float(rng.uniform(0, max(0.0, seconds - lasting)))
        from_left = bool(rng.random() < 0.5)
        steps = np.linspace(0, 1, 6)
        heights = height * np.clip(rng.uniform(0.15, 0.85) + np.cumsum(rng.normal(0, 0.07, len(steps))), 0.1, 0.9)
        way = tuple(
            (start + float(s) * lasting, -side + float(s if from_left else 1 - s) * (width + 2 * side), float(y))
            for s, y in zip(steps, heights)
        )
        label = path.stem.rpartition("_")[0].replace("_", " ") or path.stem
        walkers.append(Walker(cut_out(path), label, side, way))
    return tuple(walkers)


@functools.lru_cache(maxsize=64)
def cut_out(path: Path) -> Image.Image:
    """Cut the insect in the middle of a picture out of its background (OpenCV's GrabCut).

    (C. Rother, V. Kolmogorov, A. Blake, "GrabCut", SIGGRAPH 2004.)

    Returns:
        RGBA, cropped to the insect; the whole picture as a soft disc where it cannot be told from its background.

    Raises:
        ImageError: the picture cannot be read.
    """
    import cv2

    picture = open_picture(path)
    picture.thumbnail((CUT_SIDE, CUT_SIDE))
    pixels = np.asarray(picture)
    height, width = pixels.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    colours: tuple[Any, Any] = np.zeros((1, 65)), np.zeros((1, 65))  # filled by it
    cv2.setRNGSeed(1)  # the same cut-out each time
    cv2.grabCut(pixels, mask, (3, 3, width - 6, height - 6), colours[0], colours[1], 3, cv2.GC_INIT_WITH_RECT)
    insect = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    number, parts, stats, _ = cv2.connectedComponentsWithStats(insect)
    if number > 1:
        insect = (parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    if not 0.05 < insect.mean() < 0.75:
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        insect = (x * x + y * y < 1).astype(np.uint8)
    alpha = cv2.GaussianBlur(insect * np.uint8(255), (3, 3), 0)
    cut = Image.fromarray(np.dstack([pixels, alpha]))
    return cut.crop(cut.getchannel("A").point(lambda value: 255 if value > 60 else 0).getbbox())


def _scaled(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def _texture(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """Return ground with coarse and fine structure, uint8 [H, W, 3]."""
    light = np.zeros((height, width), np.float32)
    for cells, strength in ((4, 16.0), (16, 10.0), (64, 8.0), (min(width, height), 5.0)):
        coarse = rng.standard_normal((cells * height // width + 2, cells + 2)).astype(np.float32)
        grown = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        light += strength * np.asarray(grown, np.float32)
    colour = np.array([168, 158, 120], np.float32) + light[..., None] * np.array([1.0, 0.95, 0.8], np.float32)
    return np.clip(colour, 0, 255).astype(np.uint8)
