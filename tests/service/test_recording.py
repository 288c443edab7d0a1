"""The queue into the store: nothing is dropped, a full disk is waited out, a restart loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_lsla.errors import EdgeLslaError
from edge_lsla.events import Effort, Event, Gap
from edge_lsla.records.settings import RecordSettings
from edge_lsla.records.store import Store
from edge_lsla.service.recording import CROPS_HELD, Recorded, Recording
from edge_lsla.service.stages import Pulse


class FullDisk:
    """The real store, on a disk that is full while a test says so."""

    def __init__(self, store: Store) -> None:
        self.store, self.full, self.tries = store, False, threading.Semaphore(0)

    def check(self) -> None:
        if self.full:
            self.tries.release()
            raise EdgeLslaError("the disk is full", "here", "make room")

    def record_many(self, events: Sequence[tuple[Event, bytes | None]]) -> None:
        self.check()
        self.store.record_many(events)

    def add_effort(self, effort: Effort) -> None:
        self.check()
        self.store.add_effort(effort)

    def add_gap(self, gap: Gap) -> None:
        self.check()
        self.store.add_gap(gap)


def arrived(number: int) -> Event:
    return Event(
        kind="arrived", time=1.7e9 + number, source="trap", track=f"{number:032x}", label="ant", confidence=0.9
    )


def test_events_are_written_with_their_crops(tmp_path: Path) -> None:
    commits: list[int] = []
    with Store(tmp_path, RecordSettings()) as store:
        recording = Recording(store, 90, lambda: commits.append(1))
        crop = np.full((24, 32, 3), 200, np.uint8)
        captured = time.monotonic() - 0.5
        events = [arrived(number) for number in range(100)]
        for event in events:
            recording.put(Recorded(event, crop, captured, inference=0.25))
        recording.put(Gap("trap", 1.0, 2.0, "unplugged", ("reopen",), 1.0))
        recording.put(Effort("trap", 1.0, 61.0, 60.0, 1800, 3, "f" * 64))
        assert recording.waiting == 102
        assert recording.flush(30) == 0
        assert [event["id"] for event in store.recent(200)] == [event.id for event in reversed(events)]
        jpeg = store.crop(events[0].id)
    assert jpeg is not None
    assert jpeg.startswith(b"\xff\xd8")
    assert (recording.events, len(commits)) == (100, 2)  # 64 events a commit
    assert all(250 <= ms < 60_000 for ms in recording.overheads)


def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    with Store(tmp_path, RecordSettings()) as store:
        disk = FullDisk(store)
        recording, pulse = Recording(disk, 90, lambda: None), Pulse()
        disk.full = True
        events = [arrived(number) for number in range(10)]
        for event in events:
            recording.put(Recorded(event))
        thread = threading.Thread(target=recording.work, args=(pulse,), daemon=True)
        thread.start()
        assert disk.tries.acquire(timeout=20)
        recording.put(Gap("trap", 1.0, None, "unplugged"))
        assert disk.tries.acquire(timeout=20)
        assert "kept in memory: the disk is full: here; make room" in recording.problem
        assert recording.waiting >= 10
        pulse.end()  # also while it is full, the stage may be restarted
        thread.join(20)
        disk.full = False
        assert recording.flush(30) == 0
        assert recording.problem == ""
        assert len(store.recent(100)) == 10


def test_what_cannot_be_written_at_the_end_is_counted(tmp_path: Path) -> None:
    with Store(tmp_path, RecordSettings()) as store:
        disk = FullDisk(store)
        disk.full = True
        recording = Recording(disk, 90, lambda: None)
        for number in range(70):
            recording.put(Recorded(arrived(number)))
        assert recording.flush(1) == 70
        assert recording.problem


def test_memory_is_bounded_while_the_disk_is_full(tmp_path: Path) -> None:
    with Store(tmp_path, RecordSettings()) as store:
        recording = Recording(store, 90, lambda: None)
        crop = np.zeros((8, 8, 3), np.uint8)
        for number in range(CROPS_HELD + 50):
            recording.put(Recorded(arrived(number), crop))
        assert recording.flush(60) == 0
        events = store.recent(1000)
    assert len(events) == CROPS_HELD + 50
    assert sum(event["crop"] is not None for event in events) == CROPS_HELD
    assert events[0]["details"]["crop_missing"] == "too many events waited for the disk"
