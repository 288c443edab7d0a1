"""A frame as overlapping square tiles, and neighbouring tiles that show the same as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_lsla.errors import UsageError
from edge_lsla.events import Box
from edge_lsla.pipeline.regions import grouped

MOST = 64  # tiles along a side


@dataclass(frozen=True)
class GridSettings:
    """How a frame is divided into square tiles.

    Attributes:
        columns, rows: least number of tiles across and down; more are taken where squares would not cover the frame.
        overlap: part of a tile's side that it shares with its neighbour, so that an insect on an edge is whole in one.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    columns: int = 4
    rows: int = 3
    overlap: float = 0.25

    def __post_init__(self) -> None:
        for name in ("columns", "rows"):
            if not 1 <= getattr(self, name) <= MOST:
                raise UsageError(f"a grid has 1 to {MOST} tiles a side", name, "correct it")
        if not 0 <= self.overlap <= 0.75:
            raise UsageError("tiles overlap by 0 to 0.75 of their side", "overlap", "correct it")


def tiles(size: tuple[int, int], settings: GridSettings) -> tuple[Box, ...]:
    """Return square tiles that cover a frame of this width and height, row by row, evenly spaced."""
    width, height = size
    step = 1 - settings.overlap
    wanted = max(width / (1 + (settings.columns - 1) * step), height / (1 + (settings.rows - 1) * step))
    side = min(math.ceil(wanted), width, height)
    return tuple(
        Box(left, top, left + side, top + side)
        for top in _starts(height, side, settings.rows, step)
        for left in _starts(width, side, settings.columns, step)
    )


def merge_tiles(boxes: Sequence[Box], labels: Sequence[str]) -> list[list[int]]:
    """Return the places of tiles that touch or overlap and show the same label, group by group."""
    groups: list[list[int]] = []
    for label in dict.fromkeys(labels):
        places = [place for place, one in enumerate(labels) if one == label]
        groups += [[places[i] for i in group] for group in grouped([boxes[place] for place in places], 0)]
    return sorted(groups)


def _starts(length: int, side: int, least: int, step: float) -> list[int]:
    # Rounding up the side may leave the wished number a pixel short of the wished overlap, which does no harm.
    number = max(least, math.ceil(round((length - side) / max(1.0, side * step), 3)) + 1)
    if number == 1 or length == side:
        return [0] if length == side else [(length - side) // 2]
    return [round(index * (length - side) / (number - 1)) for index in range(number)]
