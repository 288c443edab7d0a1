"""Events and stores that tests of the records share."""

from __future__ import annotations

import os
from pathlib import Path

from edge_lsla.events import Box, Effort, Event, new_id
from edge_lsla.records.settings import RecordSettings
from edge_lsla.records.store import Store

NOON = 1_780_000_000.0  # 2026-05-28T20:26:40Z
JPEG = b"\xff\xd8" + bytes(range(256)) * 16 + b"\xff\xd9"
ROOMY = RecordSettings(max_mb=1e6, keep_free_mb=0, max_days=None)


def arrived(time: float = NOON, label: str = "ant", source: str = "trap-1", track: str | None = None) -> Event:
    return Event("arrived", time, source, track or new_id(), label, 0.75, Box(1, 2, 31, 42), "e" * 64, "synchronised")


def left(before: Event, seconds: float = 5.0, label: str | None = None) -> Event:
    return Event(
        *("left", before.time + seconds, before.source, before.track, label or before.label, 0.9, before.box),
        *("e" * 64, "synchronised", {"seconds": seconds, "frames": 9}),
    )


def visits(
    store: Store, number: int, step: float = 60.0, crop: bytes | None = JPEG, begin: float = NOON
) -> list[Event]:
    """Record individuals that arrive and leave; return their arrivals."""
    come = [arrived(begin + step * index) for index in range(number)]
    store.record_many([pair for event in come for pair in ((event, crop), (left(event), None))])
    return come


def watched(began: float, ended: float, source: str = "trap-1") -> Effort:
    return Effort(source, began, ended, ended - began, int(30 * (ended - began)), 7, "e" * 64, "synchronised")


def crops(folder: Path) -> set[str]:
    """Return the names of all crops on the disk."""
    return {path.stem for path in folder.glob("crops/*/*/*/*.jpg")}


def overwrite(path: Path, offset: int, length: int) -> None:
    """Damage a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(length))
