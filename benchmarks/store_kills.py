"""A program that records without pause, killed at random moments: does the store open each time, with every event?

    python -m benchmarks.store_kills [KILLS]

The program says each event on a pipe after `record` has returned, and each delivery around noting it. After each kill
the store is opened, checked whole, and compared with what was said. A kill is not a power cut: see `power_cuts`.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.power_cuts import Promises, broken
from benchmarks.recorded_program import KEEP_ALL, crop_of, say
from edge_lsla.events import Box, Effort, Event, Gap, new_id
from edge_lsla.records import schema
from edge_lsla.records.store import Store

WHILE_OPENING = 0.25  # of the kills come before or soon after the first event
OPENING_SECONDS, WRITING_SECONDS = 0.1, 0.2


def has_crop(event_id: str) -> bool:
    """Say whether an event gets a crop: four of five do."""
    return int(event_id[:4], 16) % 5 != 0


def work(folder: Path, seed: int) -> None:
    """Record, deliver and note effort and gaps until the end, which comes from outside."""
    choice = random.Random(seed)
    store = Store(folder, KEEP_ALL)
    store.register("broker")
    while True:
        track, batch = new_id(), []
        for kind in ("arrived", "left")[: choice.randint(1, 2)]:
            event = Event(kind, time.time(), "trap", track, "ant", 0.8, Box(0, 0, 9, 9))
            batch.append((event, crop_of(event.id) if has_crop(event.id) else None))
        if choice.random() < 0.5:
            store.record_many(batch)
        else:
            for event, crop in batch:
                store.record(event, crop)
        for event, _ in batch:
            say(f"event {event.id}")
        if choice.random() < 0.3:
            upto = store.pending("broker", choice.randint(1, 20))[-1:]
            if upto:
                say(f"delivering {upto[0][0]}")
                store.delivered("broker", upto[0][0])
                say(f"delivered {upto[0][0]}")
        if choice.random() < 0.1:
            store.add_effort(Effort("trap", 0.0, time.time(), 1.0, 30, 0, "e" * 64))
            store.add_gap(Gap("trap", time.time(), None, "no frame"))


@dataclass
class Found:
    """What the kills found.

    Attributes:
        kills: how many.
        said: events of which `record` had returned.
        kept: events in the store at the end.
        during_opening: kills before the program had recorded anything.
        interrupted: individuals that were closed when the store was opened.
        failures: what was wrong.
    """

    kills: int = 0
    said: int = 0
    kept: int = 0
    during_opening: int = 0
    interrupted: int = 0
    failures: list[str] = field(default_factory=list)


def kill_repeatedly(folder: Path, kills: int, seed: int = 0) -> Found:
    """Start the program and kill it, again and again, on one store; compare after each kill."""
    choice, found, promises = random.Random(seed), Found(), Promises()
    for number in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            os.dup2(writing, 1)
            schema.CHECKPOINT_PAGES = choice.choice((20, 200, 1000))
            work(folder, seed * 100_000 + number)
            os._exit(0)
        os.close(writing)
        if choice.random() < WHILE_OPENING:
            time.sleep(choice.uniform(0, OPENING_SECONDS))
        else:
            select.select([reading], [], [], 60)  # it has recorded something
            time.sleep(choice.uniform(0, WRITING_SECONDS))
        os.kill(child, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:
            lines = pipe.read().splitlines(keepends=True)
        _, status = os.waitpid(child, 0)
        if os.WTERMSIG(status) != signal.SIGKILL:
            found.failures.append(f"kill {number}: the program ended by itself")
        found.kills += 1
        found.during_opening += not lines
        for line in lines:
            promises.hear(line)
        found.failures += [
            f"kill {number}: {wrong}" for wrong in broken(folder, promises, again=False, has_crop=has_crop)
        ]
        if len(found.failures) > 20:
            break
    found.said = len(promises.events)
    connection = sqlite3.connect(folder / schema.DATABASE)
    found.kept = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    statement = "SELECT count(*) FROM events WHERE body LIKE '%\"interrupted\":true%'"
    found.interrupted = connection.execute(statement).fetchone()[0]
    connection.close()
    return found


def main() -> None:
    from benchmarks.machine import keep

    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        found = kill_repeatedly(Path(folder), kills)
        figures: dict[str, object] = {
            "kills": found.kills,
            "kills_before_the_first_event": found.during_opening,
            "events_said_to_be_recorded": found.said,
            "events_kept": found.kept,
            "individuals_closed_at_opening": found.interrupted,
            "failures": len(found.failures),
            "first_failures": found.failures[:3],
            "seconds": round(time.monotonic() - begin),
        }
    keep("store_kills", figures)
    if found.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
