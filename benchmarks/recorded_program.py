"""The program whose writes `power_cuts` records: it records, delivers, is killed, recovers, deletes, salvages.

    python -m benchmarks.recorded_program FOLDER EVENTS PHASES SAFEGUARD

It says on standard output what it promises, and what it is about to do.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
from pathlib import Path

from edge_lsla.events import Box, Effort, Event, Gap
from edge_lsla.records import durable, schema
from edge_lsla.records.settings import RecordSettings
from edge_lsla.records.store import Store

START = 1_780_000_000.0
KEEP_ALL = RecordSettings(max_mb=1e9, keep_free_mb=0, max_days=None)
# What is taken out of the store, so as to see that the replay notices.
WEAKENED = ("log never synced", "log not synced at commits", "crops not synced", "names not synced")


def weaken(how: str) -> None:
    """Take a safeguard out of the store in this process."""
    if how == "log never synced":
        schema.SYNCHRONOUS = "OFF"
    elif how == "log not synced at commits":
        schema.SYNCHRONOUS = "NORMAL"
    elif how == "crops not synced":
        durable.sync_file = lambda handle: None
    elif how == "names not synced":
        durable.sync_folder = lambda folder: None
    elif how:
        raise ValueError(how)


def crop_of(event_id: str) -> bytes:
    """Return an event's crop: some kilobytes that no other event has."""
    block = hashlib.sha256(event_id.encode()).digest()
    return block * (8 + block[0] // 2)


def say(text: str) -> None:
    """Promise something: it must hold after every later power cut."""
    os.write(1, text.encode() + b"\n")


def identifier(phase: int, number: int, what: str) -> str:
    """Return the identifier of an event of the recorded program."""
    return hashlib.md5(f"{phase} {number} {what}".encode(), usedforsecurity=False).hexdigest()


def work(folder: Path, events: int, phase: int) -> None:
    """Record and deliver; see `record` for the phases."""
    choice = random.Random(phase)
    if phase == 4:
        say("damaging")
        with (folder / schema.DATABASE).open("r+b", buffering=0) as file:
            file.write(random.Random(0).randbytes(4096))
    settings = RecordSettings(max_mb=1e9, keep_free_mb=0, max_days=1.5) if phase == 2 else KEEP_ALL
    store = Store(folder, settings)
    store.register("broker")
    sent = 0
    for number in range(events):
        when = START + 40_000.0 * (number + phase)  # so that new days begin
        arrived = identifier(phase, number, "arrived")
        track = identifier(phase, number, "track")
        batch: list[tuple[Event, bytes | None]] = []
        batch.append((Event("arrived", when, "trap", track, "ant", 0.8, Box(0, 0, 9, 9), id=arrived), crop_of(arrived)))
        if number % 3 == 0:
            left = identifier(phase, number, "left")
            batch.append((Event("left", when + 5, "trap", track, "bee", 0.9, id=left), crop_of(left)))
        store.record_many(batch)
        for event, _ in batch:
            say(f"event {event.id}")
        if number % 4 == 1:
            store.add_effort(Effort("trap", START, when, when - START, number, 0, "e" * 64, "synchronised"))
            store.add_gap(Gap("trap", when, None, "no frame"))
        if number % 3 == 2:
            sent = store.pending("broker", choice.randint(1, 8))[-1][0]
            say(f"delivering {sent}")
            store.delivered("broker", sent)
            say(f"delivered {sent}")
    if phase == 2:
        say(f"deleting {' '.join(event['id'] for event in store.recent(10_000) if event['seq'] <= sent)}")
        assert store.retain().events
        store.close()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    folder, events, phases, how = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    for phase in range(1, phases + 1):
        child = os.fork()
        if not child:
            schema.CHECKPOINT_PAGES = 40  # so that a short run has some
            weaken(how)
            work(folder, events, phase)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status


if __name__ == "__main__":
    main()
