"""A live source without a camera: a moving test picture, given pictures under a drifting view, or walking insects."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edge_lsla.errors import UsageError
from edge_lsla.pipeline.frames import Frame, Source
from edge_lsla.pipeline.scene import Scene, SceneSettings, crossing
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.preprocessing import open_picture

SIZE = (640, 480)
RATE = 25.0
SCENE_SECONDS = 20.0  # after which the same insects walk again
PICTURE_SECONDS = 3.0  # how long each of the given pictures stays
FADE_SECONDS = 0.4
LARGEST_SIDE = 4096
DRIFT = 0.08  # part of the view's side by which it moves and zooms


class SyntheticSource(Source):
    """Frames at a steady rate whose pixels depend on nothing but the settings and the sequence number.

    A consumer that is late gets the next frame at once, with the time at which it was due: like a camera, the source
    does not wait for anybody.

    Attributes:
        scene: the insects that walk, with the truth of where they are; None where none were asked for. Its time is the
            frame's since the first one, modulo `SCENE_SECONDS`.

    Raises:
        ImageError: one of the given pictures cannot be read.
        UsageError: the size asked for is too large, or insects are to walk and no pictures are given.
    """

    name = "synthetic"
    live = True

    def __init__(self, settings: SourceSettings) -> None:
        self.size = settings.size or SIZE
        if max(self.size) > LARGEST_SIDE:
            raise UsageError(f"the synthetic source draws at most {LARGEST_SIDE} pixels a side", "size", "ask for less")
        self.rate = settings.rate or RATE
        self._frames = settings.frames
        self._sequence = 0
        self._begin: float | None = None
        self._epoch = 0.0
        self._closed = threading.Event()
        self.scene: Scene | None = None
        self._pictures: list[Image.Image] = []
        if settings.insects:
            walkers = crossing(settings.pictures, settings.insects, self.size, SCENE_SECONDS)
            self.scene = Scene(walkers, SceneSettings(self.size))
        else:
            self._pictures = [_cover(open_picture(p), self.size) for p in settings.pictures]
        self._ground = _ground(self.size)

    def __next__(self) -> Frame:
        if self._closed.is_set() or self._sequence == self._frames:
            raise StopIteration
        if self._begin is None:
            self._begin, self._epoch = time.monotonic(), time.time()
        due = self._sequence / self.rate
        wait = self._begin + due - time.monotonic()
        if wait > 0 and self._closed.wait(wait):
            raise StopIteration
        if self.scene is not None:
            pixels = self.scene.draw(due % SCENE_SECONDS)
        else:
            pixels = self._drift(due) if self._pictures else self._draw(due)
        frame = Frame(pixels, self._epoch + due, self._sequence, self.name, live=True)
        self._sequence += 1
        return frame

    def close(self) -> None:
        """End the iteration, also for a thread that waits for the next frame."""
        self._closed.set()

    def _draw(self, seconds: float) -> NDArray[np.uint8]:
        width, height = self.size
        image = Image.fromarray(np.roll(self._ground, round(seconds * width / 8), axis=1))
        pen = ImageDraw.Draw(image)
        unit = min(width, height) / 10
        angle = seconds * 0.7
        x, y = width / 2 + math.cos(angle) * width * 0.3, height / 2 + math.sin(2 * angle) * height * 0.25
        for leg in (-1, 0, 1):  # a beetle on a leaf, roughly
            swing = math.sin(seconds * 9 + leg * 2) * unit * 0.15
            top = (x + leg * unit * 0.6 + swing, y - unit * 1.1)
            pen.line([top, (x + leg * unit * 0.6 - swing, y + unit * 1.1)], (30, 26, 24), max(1, round(unit / 8)))
        pen.ellipse([x - unit * 1.2, y - unit * 0.8, x + unit * 1.2, y + unit * 0.8], (196, 52, 38))
        pen.ellipse([x + unit * 0.7, y - unit * 0.5, x + unit * 1.6, y + unit * 0.5], (30, 26, 24))
        pen.line([(x - unit * 1.2, y), (x + unit * 0.8, y)], (30, 26, 24), max(1, round(unit / 10)))
        for dx, dy in ((-0.6, -0.4), (-0.6, 0.4), (0.2, -0.4), (0.2, 0.4)):
            cx, cy, r = x + dx * unit, y + dy * unit, unit * 0.18
            pen.ellipse([cx - r, cy - r, cx + r, cy + r], (30, 26, 24))
        return np.array(image)

    def _drift(self, seconds: float) -> NDArray[np.uint8]:
        number, within = divmod(seconds, PICTURE_SECONDS)
        view = self._view(int(number), within)
        left = PICTURE_SECONDS - within
        if left < FADE_SECONDS and len(self._pictures) > 1:
            view = Image.blend(view, self._view(int(number) + 1, within - PICTURE_SECONDS), 1 - left / FADE_SECONDS)
        return np.array(view)

    def _view(self, number: int, seconds: float) -> Image.Image:
        picture = self._pictures[number % len(self._pictures)]
        phase = seconds / PICTURE_SECONDS + number  # goes on smoothly through a fade
        margin_x, margin_y = picture.width * DRIFT / 2, picture.height * DRIFT / 2
        x, y = margin_x * math.sin(phase * 1.9), margin_y * math.cos(phase * 1.3)
        box = (margin_x + x, margin_y + y, picture.width - margin_x + x, picture.height - margin_y + y)
        return picture.resize(self.size, Image.Resampling.BILINEAR, box=box)


def _cover(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Show a picture whole in the middle of a frame, on a blurred and darkened copy of itself."""
    width, height = size
    tiny = picture.resize((8, 8), Image.Resampling.BOX)
    ground = tiny.resize(size, Image.Resampling.BICUBIC).point(lambda value: value * 0.6)
    scale = min(width / picture.width, height / picture.height)
    fitted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    ground.paste(
        picture.resize(fitted, Image.Resampling.BICUBIC), ((width - fitted[0]) // 2, (height - fitted[1]) // 2)
    )
    return ground


def _ground(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a leaf-green background, uint8 [H, W, 3], that joins on to itself at its left and right edge."""
    width, height = size
    x = np.arange(width, dtype=np.float32) / width * 2 * math.pi
    y = np.arange(height, dtype=np.float32)[:, None] / height
    wave = 0.5 + 0.25 * np.sin(3 * x + 2 * y) + 0.25 * np.sin(7 * x - 9 * y)
    channels = [60 + 50 * wave * y, 110 + 70 * wave, 50 + 40 * wave * (1 - y)]
    return np.clip(np.stack([np.broadcast_to(c, (height, width)) for c in channels], axis=-1), 0, 255).astype(np.uint8)
