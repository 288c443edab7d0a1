"""Generated backgrounds: sticky trap card, leaf and soil."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.float32]

BACKGROUND_KINDS = ("card", "leaf", "soil")


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Pixels:
    """Smooth noise of about unit deviation, [size, size] float32, with `cells` bumps along a side."""
    coarse = rng.standard_normal((cells + 1, cells + 1), np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), np.float32)


def background(kind: str, rng: np.random.Generator, size: int) -> Pixels:
    """Draws one background; [size, size, 3] float32, about 0 to 255."""
    return {"card": _card, "leaf": _leaf, "soil": _soil}[kind](rng, size)


def _axes(size: int, angle: float) -> tuple[Pixels, Pixels]:
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * axis[None, :] + sin * axis[:, None], cos * axis[:, None] - sin * axis[None, :]


def _card(rng: np.random.Generator, size: int) -> Pixels:
    base = np.array([238, 208, 45] if rng.random() < 0.65 else [55, 120, 200], np.float32)
    if rng.random() < 0.12:
        base = np.array([235, 235, 228], np.float32)  # the white card of a delta trap
    base = base + rng.normal(0, 12, 3).astype(np.float32)
    light = 1 + 0.05 * smooth_noise(rng, size, 3)
    if rng.random() < 0.7:
        along, across = _axes(size, rng.normal(0, 0.15))
        pitch, width = rng.uniform(0.12, 0.4), rng.uniform(0.006, 0.014)
        phase = rng.uniform(0, 1, 2)
        lines = ((along / pitch + phase[0]) % 1 < width / pitch) | ((across / pitch + phase[1]) % 1 < width / pitch)
        light = light * (1 - lines * np.float32(rng.uniform(0.15, 0.45)))
    speckle = smooth_noise(rng, size, max(4, size // 3))
    glue = np.clip(speckle - np.float32(2.1), 0, 1) * rng.uniform(0, 110)
    dirt = np.clip(-speckle - np.float32(2.3), 0, 1) * rng.uniform(0, 1.2)
    return np.asarray((base * (light * (1 - dirt))[..., None]) + glue[..., None], np.float32)


def _leaf(rng: np.random.Generator, size: int) -> Pixels:
    base = np.array([rng.uniform(45, 120), rng.uniform(105, 175), rng.uniform(30, 75)], np.float32)
    along, across = _axes(size, rng.uniform(0, 2 * np.pi))
    light = 1 + 0.12 * smooth_noise(rng, size, 3) + 0.04 * smooth_noise(rng, size, 16)
    light = light + along * np.float32(rng.uniform(-0.5, 0.5))
    offset = np.float32(rng.uniform(-0.35, 0.35))
    width = np.float32(rng.uniform(0.008, 0.02))
    middle = np.exp(-(((across - offset) / width) ** 2))
    pitch, slant = rng.uniform(0.12, 0.25), rng.uniform(0.5, 1.0)
    wave = ((along - np.float32(slant) * np.abs(across - offset)) / np.float32(pitch)) % 1 - np.float32(0.5)
    side = np.exp(-((wave * np.float32(pitch) / (width * np.float32(0.45))) ** 2))
    veins = np.maximum(middle, side * np.float32(0.6)) * np.float32(rng.uniform(0.1, 0.4))
    picture = base * light[..., None] + veins[..., None] * np.array([110, 120, 70], np.float32)
    if rng.random() < 0.35:  # out-of-focus lights behind the leaf
        for _ in range(int(rng.integers(2, 6))):
            x, y = rng.uniform(-0.5, 0.5, 2)
            radius = rng.uniform(0.05, 0.16)
            distance = np.sqrt((along - np.float32(x)) ** 2 + (across - np.float32(y)) ** 2)
            disc = np.clip((np.float32(radius) - distance) * 25, 0, 1) * np.float32(rng.uniform(0.1, 0.35))
            picture += (np.array([225, 240, 170], np.float32) - picture) * disc[..., None]
    return np.asarray(picture, np.float32)


def _soil(rng: np.random.Generator, size: int) -> Pixels:
    base = np.array([125, 95, 68], np.float32) * np.float32(rng.uniform(0.55, 1.45))
    base = base + rng.normal(0, 9, 3).astype(np.float32)
    grain = 0.09 * smooth_noise(rng, size, 4) + 0.09 * smooth_noise(rng, size, 14)
    grain = grain + 0.09 * smooth_noise(rng, size, size // 3)
    picture = base * (1 + grain)[..., None]
    axis = np.arange(size, dtype=np.float32)
    for _ in range(int(rng.integers(0, 9))):
        x, y = rng.uniform(0, size, 2)
        rx, ry = rng.uniform(0.015, 0.06, 2) * size
        left, right = max(0, int(x - rx)), min(size, int(x + rx) + 2)
        top, bottom = max(0, int(y - ry)), min(size, int(y + ry) + 2)
        dx, dy = (axis[None, left:right] - x) / rx, (axis[top:bottom, None] - y) / ry
        mask = np.clip((1 - dx * dx - dy * dy) * 2, 0, 1)[..., None]
        shade = np.float32(rng.uniform(0.6, 1.7)) * (1 - 0.25 * (dx + dy))[..., None]
        grey = np.array([118, 108, 98], np.float32) * shade
        picture[top:bottom, left:right] += (grey - picture[top:bottom, left:right]) * mask
    return np.asarray(picture, np.float32)
