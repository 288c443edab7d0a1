"""Boxes in a frame: what is near, what belongs together, and the square crop that a classifier sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_lsla.events import Box

CLEARLY_LARGER = 1.3  # times a box's area, from which on a region holds more than that box
SPLIT = 0.25  # of an individual's shorter side, at most between parts of one
MOSTLY = 0.6  # share of a box inside another, from which on it is a part of it


def square_around(box: Box, padding: float, size: tuple[int, int]) -> Box:
    """Return a square around a box, moved into the frame where it would stick out, and clipped where it is larger.

    Args:
        box: pixels.
        padding: added on each side, as a share of the box's longer side.
        size: width and height of the frame, pixels.
    """
    width, height = size
    side = max(1, round(max(box.width, box.height) * (1 + 2 * padding)))
    left = _inside((box.left + box.right - side) // 2, min(side, width), width)
    top = _inside((box.top + box.bottom - side) // 2, min(side, height), height)
    return Box(left, top, min(left + side, width), min(top + side, height))


def cut(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Return the pixels inside a box, uint8 [h, w, 3]; they are the frame's own, not a copy."""
    return pixels[box.top : box.bottom, box.left : box.right]


def union(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around all of these; at least one is needed."""
    return Box(
        min(one.left for one in boxes),
        min(one.top for one in boxes),
        max(one.right for one in boxes),
        max(one.bottom for one in boxes),
    )


def centre(box: Box) -> tuple[float, float]:
    """Return the middle of a box, pixels."""
    return (box.left + box.right) / 2, (box.top + box.bottom) / 2


def share_inside(inner: Box, outer: Box) -> float:
    """Return the part of one box's area that lies in another, 0 to 1."""
    width = min(inner.right, outer.right) - max(inner.left, outer.left)
    height = min(inner.bottom, outer.bottom) - max(inner.top, outer.top)
    return max(0, width) * max(0, height) / (inner.width * inner.height)


def grouped(boxes: Sequence[Box], gap: int) -> list[list[int]]:
    """Return the places of boxes that lie at most `gap` pixels from one another, directly or through others."""
    groups: list[list[int]] = []
    for place, box in enumerate(boxes):
        near = [group for group in groups if any(_near(box, boxes[other], gap) for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append(sorted([place, *(one for group in near for one in group)]))
    return sorted(groups)


def fit_to_expected(blobs: Sequence[Box], expected: Sequence[Box]) -> list[Box]:
    """Divide what moves by what is known to be there.

    Two insects that touch make one blob, and an insect whose middle looks like the ground makes two.

    Args:
        blobs: what moves, pixels.
        expected: where the known individuals should be by now, and how large they are.

    Returns:
        Blobs of which those inside one expected box are joined, and those that hold several are divided.
    """
    joined: list[Box] = []
    rest = list(blobs)
    for place in expected:
        parts = [blob for blob in rest if share_inside(blob, place) >= MOSTLY]
        gap = round(SPLIT * min(place.width, place.height))
        for group in grouped(parts, gap):
            if len(group) > 1:
                members = [parts[index] for index in group]
                rest = [blob for blob in rest if blob not in members]
                joined.append(union(members))
    found: list[Box] = []
    for blob in [*rest, *joined]:
        known = [place for place in expected if _holds(blob, centre(place))]
        largest = max((place.width * place.height for place in known), default=0)
        if len(known) < 2 or blob.width * blob.height < CLEARLY_LARGER * largest:
            found.append(blob)  # one individual, or one right before the other: there is nothing to see of it
        else:
            found += [part for part in (_clipped(place, blob) for place in known) if part is not None]
    return found


def _inside(start: int, length: int, room: int) -> int:
    return max(0, min(start, room - length))


def _near(first: Box, second: Box, gap: int) -> bool:
    across = max(first.left, second.left) - min(first.right, second.right)
    down = max(first.top, second.top) - min(first.bottom, second.bottom)
    return max(across, down) <= gap


def _holds(box: Box, point: tuple[float, float]) -> bool:
    return box.left <= point[0] < box.right and box.top <= point[1] < box.bottom


def _clipped(box: Box, limits: Box) -> Box | None:
    left, top = max(box.left, limits.left), max(box.top, limits.top)
    right, bottom = min(box.right, limits.right), min(box.bottom, limits.bottom)
    return Box(left, top, right, bottom) if left < right and top < bottom else None
