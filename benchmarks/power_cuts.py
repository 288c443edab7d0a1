"""The store's writes, recorded and cut off at every point: does it open each time, with every event it had promised?

    python -m benchmarks.power_cuts [EVENTS] [SEEDS]

A program (`recorded_program`) records events with crops, delivers, is killed, recovers, deletes what is old, and
salvages a damaged database, while strace records what it asks of the disk. After each of these operations the power
fails, on a disk that keeps only what POSIX promises (`torn_disk`): what was not synced is lost, kept or torn. The store
is opened on each result and compared with what the program had promised by then.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.recorded_program import KEEP_ALL, START, WEAKENED, crop_of
from benchmarks.recorded_writes import Operation, record_writes
from benchmarks.torn_disk import Disk
from edge_lsla.events import Event
from edge_lsla.records.store import Store

FAST = Path("/dev/shm")  # thousands of folders are rebuilt
FATES = (("lost", "lost"), ("lost", "kept"), ("kept", "lost"), ("kept", "kept"))
WEAK_EVENTS = 4


@dataclass
class Promises:
    """What the program had said when the power went.

    Attributes:
        events: identifiers of events that `record` had returned for.
        delivered: the number up to which a delivery was noted; up to `delivering` it may have been.
        deletable: identifiers of events that may be deleted for room.
        damaged: the database was overwritten in part, so that the opening may speak of it.
    """

    events: list[str] = field(default_factory=list)
    delivered: int = 0
    delivering: int = 0
    deletable: set[str] = field(default_factory=set)
    damaged: bool = False

    def numbers(self) -> tuple[int, ...]:
        """Return numbers that differ where the promises do."""
        return len(self.events), self.delivered, self.delivering, len(self.deletable), self.damaged

    def hear(self, said: bytes) -> None:
        """Take note of a line."""
        word, *values = said.decode().split()
        if word == "event":
            self.events += values
        elif word == "delivering":
            self.delivering = int(values[0])
        elif word == "delivered":
            self.delivered = int(values[0])
        elif word == "deleting":
            self.deletable = set(values)
        elif word == "damaging":
            self.damaged = True


def broken(folder: Path, promises: Promises, again: bool, has_crop: Callable[[str], bool] = bool) -> list[str]:
    """Open the store and return what is wrong with it.

    Args:
        folder: as the power cut left it.
        promises: what must hold.
        again: also open it a second time, which must change nothing.
        has_crop: whether an event, by its identifier, was recorded with a crop.
    """
    try:
        with Store(folder, KEEP_ALL) as store:
            problems = () if promises.damaged else store.state.problems
            cursor = dict.fromkeys(store.sinks(), 0)
        wrong = [f"problem: {each}" for each in problems] + _compare(folder, promises, bool(cursor), has_crop)
        if again and not wrong:
            with sqlite3.connect(folder / "events.db") as connection:
                before = connection.execute("SELECT count(*) FROM events").fetchone()
            connection.close()
            with Store(folder, KEEP_ALL) as store:
                fresh = Event("arrived", START, id="fresh")
                store.record(fresh, crop_of("fresh"))
                if store.state.events != before[0] + 1 or store.crop("fresh") != crop_of("fresh"):
                    wrong.append("a second opening changed something, or recording does not go on")
    except Exception as error:  # whatever it is, it is a finding
        wrong = [f"{type(error).__name__}: {error}"]
    return wrong


def _compare(folder: Path, promises: Promises, registered: bool, has_crop: Callable[[str], bool]) -> list[str]:
    connection = sqlite3.connect(folder / "events.db")
    try:
        wrong = [f"integrity: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        rows = {row[0]: row for row in connection.execute("SELECT id, crop, body FROM events")}
        number = connection.execute("SELECT count(*) FROM events").fetchone()[0]
        upto = connection.execute("SELECT upto FROM deliveries").fetchone()
        lefts = connection.execute(
            "SELECT max(n) FROM (SELECT count(*) n FROM events WHERE kind='left' GROUP BY track)"
        )
        twice, unfinished = lefts.fetchone()[0] or 0, connection.execute(
            "SELECT (SELECT count(*) FROM tracks WHERE ended IS NULL) + (SELECT count(*) FROM gaps WHERE ended IS NULL)"
        ).fetchone()[0]  # fmt: skip
    finally:
        connection.close()
    wrong += ["an identifier twice"] if number != len(rows) else []
    wrong += ["an individual left twice"] if twice > 1 else []
    wrong += ["something is left unfinished"] if unfinished else []
    wrong += [f"lost: {each}" for each in promises.events if each not in rows and each not in promises.deletable]
    for event_id, crop, body in rows.values():
        if event_id not in body:
            wrong.append(f"another event's body: {event_id}")
        if event_id in promises.deletable:
            continue
        had_crop = crop is not None or ('"interrupted"' not in body and has_crop(event_id))
        if had_crop and (crop is None or _read(folder / crop) != crop_of(event_id)):
            wrong.append(f"crop lost or damaged: {event_id}")
    named = {row[1] for row in rows.values()}
    strays = [path for path in folder.glob("crops/*/*/*/*") if path.relative_to(folder).as_posix() not in named]
    wrong += [f"crop without event: {path.name}" for path in strays]
    if promises.events and not registered:
        wrong.append("the sink is lost")
    elif upto is not None and not promises.delivered <= upto[0] <= promises.delivering:
        wrong.append(f"delivered up to {promises.delivered}, noted {upto[0]}")
    return wrong


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@dataclass
class Found:
    """What the replay found.

    Attributes:
        operations: of the recorded program, on its folder.
        syncs: of these, fsync and fdatasync.
        cuts: points at which the power failed.
        states: different contents of the disk that the store was opened on.
        failures: what was wrong, with the cut and the state.
    """

    operations: int = 0
    syncs: int = 0
    cuts: int = 0
    states: int = 0
    failures: list[str] = field(default_factory=list)


def replay(operations: Iterable[Operation], seeds: int, every: int = 1, most_failures: int = 20) -> Found:
    """Cut the power after every operation and open the store on what may be left.

    Args:
        operations: recorded.
        seeds: torn states at each cut.
        every: take only each so many-th cut.
        most_failures: end after so many.
    """
    disk, promises, found = Disk(), Promises(), Found()
    known: set[tuple[object, ...]] = set()
    with tempfile.TemporaryDirectory(dir=FAST if FAST.is_dir() else None) as place:
        for index, operation in enumerate(operations):
            found.operations += 1
            found.syncs += operation.kind == "sync"
            if operation.kind == "said":
                for line in operation.data.splitlines():
                    promises.hear(line)
            else:
                disk.apply(operation)
            if index % every:
                continue
            found.cuts += 1
            torn = [("torn", fate, seed) for seed in range(seeds) for fate in ("torn", "kept", "lost")[: 1 + seed % 3]]
            for content, names, seed in itertools.chain(((*fates, 0) for fates in FATES), torn):
                state = disk.after_cut(content, names, random.Random(f"{index} {seed}"))
                key = (_digest(state), *promises.numbers())
                if key in known:
                    continue
                known.add(key)
                found.states += 1
                folder = Path(place) / "store"
                _lay_out(folder, state)
                for wrong in broken(folder, promises, again=found.states % 10 == 0):
                    found.failures.append(
                        f"cut {index} ({operation.kind} {operation.path}), {content}/{names}/{seed}: {wrong}"
                    )
                shutil.rmtree(folder)
                if len(found.failures) >= most_failures:
                    return found
    return found


def _digest(state: dict[str, bytes | None]) -> bytes:
    whole = hashlib.blake2b(digest_size=16)
    for path in sorted(state):
        content = state[path]
        whole.update(f"{path}\0{-1 if content is None else len(content)}\0".encode() + (content or b""))
    return whole.digest()


def _lay_out(folder: Path, state: dict[str, bytes | None]) -> None:
    folder.mkdir()
    for path in sorted(state):
        content = state[path]
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


def record(folder: Path, events: int, how: str = "", phases: int = 4) -> list[Operation]:
    """Run the program under strace, in a new folder, and return what it did.

    Args:
        folder: for it and the log.
        events: recorded in each phase.
        how: which safeguard is taken out; see `WEAKENED`.
        phases: killed in the first; recovers, deletes what is old and closes in the second; killed in the third;
            finds a damaged database, salvages it, and is killed in the fourth.
    """
    data = folder.resolve() / "data"
    data.mkdir()
    command = [sys.executable, "-m", "benchmarks.recorded_program", str(data), str(events), str(phases), how]
    return record_writes(command, data, folder / "strace.log")


def main() -> None:
    from benchmarks.machine import keep

    events = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 6
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = replay(record(Path(folder), events), seeds)
    figures: dict[str, object] = {
        "operations": found.operations,
        "syncs": found.syncs,
        "cut_points": found.cuts,
        "states_opened": found.states,
        "failures": len(found.failures),
        "first_failures": found.failures[:3],
    }
    for how in WEAKENED:
        with tempfile.TemporaryDirectory() as folder:
            weak = replay(record(Path(folder), WEAK_EVENTS, how, phases=1), seeds, most_failures=10_000)
        broken_promises = [each for each in weak.failures if ": lost: " in each or ": crop lost" in each]
        figures[f"noticed: {how}"] = broken_promises[0] if broken_promises else "NOT NOTICED"
    figures["sqlite"] = sqlite3.sqlite_version
    figures["strace"] = subprocess.run(["strace", "-V"], capture_output=True, text=True).stdout.split("\n")[0]
    figures["seconds"] = round(time.monotonic() - started)
    keep("power_cuts", figures)
    if found.failures or "NOT NOTICED" in figures.values():
        sys.exit(1)


if __name__ == "__main__":
    main()
