"""How quick the event store is: recording with a crop, and reading when it holds a million events.

    python -m benchmarks.store_speed [EVENTS]

Recording depends on the disk, so a bare write with fsync of the same size is measured beside it. While the million is
written nothing is synced, which is faster and changes nothing in the file.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_lsla.events import Box, Event, new_id
from edge_lsla.records import schema
from edge_lsla.records.settings import RecordSettings
from edge_lsla.records.store import Store

CROP_BYTES = 8192
RECORDED = 500
AT_ONCE = 1000
REPEATS = 7
DAY = 86_400.0
LABELS = ("ant", "bee", "moth", "fly", "unknown")
KEEP_ALL = RecordSettings(max_mb=1e9, keep_free_mb=0, max_days=None)


def recording(folder: Path) -> dict[str, object]:
    """Measure `record` with a crop of 8 kB."""
    crop, recorded, bare = os.urandom(CROP_BYTES), [], []
    with Store(folder, KEEP_ALL) as store:
        for number in range(RECORDED):
            event = Event("arrived", time.time(), "trap", new_id(), "ant", 0.8)
            begin = time.perf_counter()
            store.record(event, crop)
            middle = time.perf_counter()
            with (folder / f"bare-{number}").open("wb", buffering=0) as file:
                file.write(crop)
                os.fsync(file.fileno())
            recorded.append(1000 * (middle - begin))
            bare.append(1000 * (time.perf_counter() - middle))
    return {
        f"{name}_p{percent}_ms": round(float(np.percentile(times, percent)), 2)
        for name, times in (("record", recorded), ("bare_fsync", bare))
        for percent in (50, 99)
    }


def fill(folder: Path, events: int, now: float) -> None:
    """Record a year of individuals, two events each, without crops."""
    step = 365 * DAY / (events // 2)
    with Store(folder, KEEP_ALL) as store:
        store.register("broker")
        for begin in range(0, events // 2, AT_ONCE):
            batch: list[tuple[Event, bytes | None]] = []
            for index in range(begin, begin + AT_ONCE):
                when, track, label = now - 365 * DAY + index * step, new_id(), LABELS[index % len(LABELS)]
                about = ("trap", track, label, 0.8, Box(1, 2, 31, 42), "e" * 64, "synchronised")
                batch.append((Event("arrived", when, *about), None))
                batch.append((Event("left", when + 20, *about, {"seconds": 20.0, "frames": 600}), None))
            store.record_many(batch)


def reading(folder: Path, now: float) -> dict[str, object]:
    """Measure what the status page and the sinks ask."""
    begin = time.perf_counter()
    with Store(folder, KEEP_ALL) as store:
        figures: dict[str, object] = {"open_seconds": round(time.perf_counter() - begin, 1)}
        asked: dict[str, Callable[[], object]] = {
            "counts_day_by_hour": lambda: store.counts(now - DAY, now, 3600),
            "counts_month_by_day": lambda: store.counts(now - 30 * DAY, now, DAY),
            "counts_year_by_day": lambda: store.counts(now - 365 * DAY, now, DAY),
            "recent_50": lambda: store.recent(50),
            "backlog": lambda: store.backlog("broker"),
            "pending_200": lambda: store.pending("broker", 200),
            "state": lambda: store.state,
        }
        for name, ask in asked.items():
            times = []
            for _ in range(REPEATS):
                begin = time.perf_counter()
                ask()
                times.append(1000 * (time.perf_counter() - begin))
            figures[f"{name}_ms"] = round(float(np.median(times)), 2)
        figures["events"], figures["megabytes"] = store.state.events, round(store.state.bytes / 1e6)
    return figures


def main() -> None:
    from benchmarks.machine import keep

    events, now = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, time.time()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        figures = recording(Path(other))
        synchronous, schema.SYNCHRONOUS = schema.SYNCHRONOUS, "OFF"
        fill(Path(folder), events, now)
        schema.SYNCHRONOUS = synchronous
        keep("store_speed", figures | reading(Path(folder), now))


if __name__ == "__main__":
    main()
