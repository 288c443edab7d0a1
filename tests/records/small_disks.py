"""What a store does on a disk of a few megabytes; run as a program in a mount namespace of its own, on tmpfs.

    unshare -rm python small_disks.py SCENARIO FOLDER

Prints one JSON object; `test_store_full_disk.py` says what it must hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record_parts import JPEG, ROOMY, arrived, crops

from edge_lsla.errors import EdgeLslaError
from edge_lsla.records.reader import Reader
from edge_lsla.records.settings import RecordSettings
from edge_lsla.records.store import Store, StoreFullError


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """Take all of the disk's space but for some bytes."""
    path = folder / "others"
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    if leave:
        os.truncate(path, path.stat().st_size - leave)
    return path


def refused(action: Callable[[], object]) -> str:
    try:
        action()
    except EdgeLslaError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def full_while_running(folder: Path) -> dict[str, Any]:
    with Store(folder, ROOMY) as store:
        before = [arrived() for _ in range(5)]
        store.record_many([(event, JPEG) for event in before])
        others = fill(folder)
        while True:  # the log has some room left from before
            batch = [arrived() for _ in range(20)]
            try:
                store.record_many([(event, None) for event in batch])
                before += batch
            except StoreFullError as error:
                said = str(error)
                break
        lost = arrived()
        again = refused(lambda: store.record(lost, JPEG))
        events, found = store.state.events, len(crops(folder))
        readable = len(store.recent(10_000))
        others.unlink()
        store.record(lost, JPEG)
        whole = store.crop(lost.id) == JPEG
        before.append(lost)
    with Reader(folder) as reader:
        problems = reader.examine()
        kept = {row["id"] for row in reader.events() if row["kind"] == "arrived"}
    found_all = kept == {event.id for event in before}
    return {
        "said": said,
        "again": again,
        "events": events,
        "readable": readable,
        "crops": found,
        "whole": whole,
        "problems": problems,
        "kept": found_all,
        "recorded": len(before),
    }


def room_for_the_row_only(folder: Path) -> dict[str, Any]:
    with Store(folder, ROOMY) as store:
        store.record(arrived(), JPEG)
        fill(folder, leave=200_000)
        store.record(arrived(), bytes(400_000))
        row = store.recent(1)[0]
        return {
            "crop": row["crop"],
            "details": row["details"],
            "state": store.state.problems,
            "crops": len(crops(folder)),
        }


def full_at_opening(folder: Path) -> dict[str, Any]:
    with Store(folder, ROOMY) as store:
        store.record(arrived(), JPEG)
    fill(folder)
    with Store(folder, RecordSettings(keep_free_mb=2)) as store:
        opened = store.state.events
        done = store.retain()
        store.record(arrived(), None)
        events = store.state.events
    for leftover in ("events.reserve", "events.db"):
        (folder / leftover).unlink(missing_ok=True)
    fill(folder)
    return {"opened": opened, "crops": done.crops, "events": events, "refused": refused(lambda: Store(folder))}


def retention_on_a_full_disk(folder: Path) -> dict[str, Any]:
    with Store(folder, RecordSettings(keep_free_mb=0.5)) as store:
        store.register("broker")
        store.record_many([(arrived(), bytes(100_000)) for _ in range(20)])
        store.delivered("broker", 10)
        fill(folder)
        done = store.retain()
        store.record(arrived(), JPEG)
        return {
            "crops": done.crops,
            "undelivered": done.undelivered_crops,
            "lacking": done.lacking,
            "free": store.state.free_bytes,
        }


def read_only(folder: Path) -> dict[str, Any]:
    with Store(folder, ROOMY) as store:
        store.record(arrived(), JPEG)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with Reader(folder) as reader:
        return {
            "refused": refused(lambda: Store(folder)),
            "read": len(list(reader.events())),
            "problems": reader.examine(),
        }


SCENARIOS = {each.__name__: each for each in (full_while_running, room_for_the_row_only, full_at_opening,
                                              retention_on_a_full_disk, read_only)}  # fmt: skip

if __name__ == "__main__":
    place = Path(sys.argv[2])
    mount(place, "size=4m")
    print(json.dumps(SCENARIOS[sys.argv[1]](place)))
