"""The event store of a running service."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_lsla.errors import UsageError
from edge_lsla.events import Effort, Event, Gap
from edge_lsla.records import recovery
from edge_lsla.records.crops import CropFolder, on_disk
from edge_lsla.records.failures import StoreFullError, explained
from edge_lsla.records.opening import FolderLock, keep_reserve, set_aside_crops
from edge_lsla.records.reader import Reader
from edge_lsla.records.retention import Retained, Retention, files_size
from edge_lsla.records.rows import event_of, insert_event
from edge_lsla.records.schema import transaction
from edge_lsla.records.settings import RecordSettings
from edge_lsla.records.writer import REPLACED, Writer

log = logging.getLogger(__name__)

NOT_RECORDED = "the event cannot be recorded"
AHEAD_SECONDS = 3600.0  # before midnight, when the next day's folder is made


@dataclass(frozen=True)
class StoreState:
    """How the store is.

    Attributes:
        bytes: what the records take on the disk.
        free_bytes: what the disk has left.
        events: how many are kept.
        undelivered: how many of them the slowest sink waits for.
        problems: what a person should know, sentences.
    """

    bytes: int
    free_bytes: int
    events: int
    undelivered: int
    problems: tuple[str, ...]


class Store:
    """Keeps events, crops, effort and gaps in a folder; a context manager, and any number of threads may use it.

    Opening finishes what a kill or power cut left: a damaged database is moved aside and salvaged, crops without an
    event are removed, individuals that arrived and did not leave get a "left" marked `interrupted`, and gaps end.
    Where the database is removed or replaced while it is open, it is written anew from the open file.

    Args:
        folder: it must exist, and belongs to one service at a time.
        settings: see `RecordSettings`.

    Raises:
        UsageError: the folder is missing, is a file or cannot be written.
        CompatibilityError: a newer program made the store.
        StoreFullError: the disk is so full that the database cannot even be opened.
        StoreError: another service has it open, or it cannot be read or written.
    """

    def __init__(self, folder: Path, settings: RecordSettings | None = None) -> None:
        self._folder, self._settings = Path(folder), settings or RecordSettings()
        self._problems: dict[str, str] = {}
        self._days: set[str] = set()
        self._deleted = Retained()
        self._events = self._crop_bytes = self._last = self._first = 0  # as `_count` finds them
        with contextlib.ExitStack() as stack:
            held = FolderLock(self._folder)
            stack.callback(held.release)
            self._writer = Writer(self._folder, self._let_go, self._rewritten)
            stack.callback(self._writer.close)
            self._crops = CropFolder(self._folder)
            self._reader = Reader(self._folder)
            stack.callback(self._let_go)
            self._retention = Retention(self._folder, self._settings, self._writer, self._crops)
            self._problems |= {f"opening {number}": sentence for number, sentence in enumerate(self._writer.problems)}
            with self._writer.using("the records cannot be opened") as connection:
                self._recover(connection)
            for sentence in self._problems.values():
                log.warning("%s: %s", self._folder, sentence)
            self._closing = stack.pop_all()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store; its folder is free for another service."""
        with self._writer.lock:
            self._closing.close()

    def record(self, event: Event, crop: bytes | None = None) -> None:
        """Record an event; it is durable on return. One that is there already, by its identifier, is left as it is.

        Args:
            event: what happened.
            crop: its picture, JPEG. Where it cannot be written but the event can, the event is recorded without it,
                and its details say so: `crop` is None, `crop_missing` says why.

        Raises:
            StoreFullError: the disk is full; nothing of the event is kept.
            StoreError: it cannot be written, for another reason.
        """
        self.record_many([(event, crop)])

    def record_many(self, events: Sequence[tuple[Event, bytes | None]]) -> None:
        """Record events in one commit: all of them or none; see `record`."""
        with self._writer.using(NOT_RECORDED):
            fresh = [(event, crop) for event, crop in events if not self._has(event.id)]
            crops = {event.id: (self._crops.place(event), crop) for event, crop in fresh if crop is not None}
            recovery.remember_days(
                self._connection, {place.rpartition("/")[0] for place, _ in crops.values()}, self._days
            )
            failed = self._crops.write(list(crops.values()))
            try:
                with transaction(self._connection):
                    rows = [self._insert(event, crops.get(event.id), failed) for event, _ in fresh]
            except BaseException:
                # What stays in spite of this has no row, and is removed when the store is opened the next time.
                with contextlib.suppress(OSError):
                    self._crops.remove([place for place, _ in crops.values()])
                raise
            for number, size in filter(None, rows):
                self._events += 1
                self._crop_bytes += size
                self._last = max(self._last, number)
                self._first = min(self._first, number)
            if failed:
                self._problems["crops"] = f"events are recorded without crops: {next(iter(failed.values()))}"
            elif crops:
                self._problems.pop("crops", None)

    def add_effort(self, effort: Effort) -> None:
        """Record a span of watching, durably; one with the same source and beginning is replaced."""
        values = (
            *(effort.source, effort.began, effort.ended, effort.seconds, effort.frames, effort.dropped),
            *(effort.engine, effort.clock),
        )
        with self._writer.using("the effort cannot be recorded"), transaction(self._connection):
            self._connection.execute("INSERT OR REPLACE INTO effort VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def add_gap(self, gap: Gap) -> None:
        """Record a gap, durably; one with the same source and beginning is replaced, as when it has ended."""
        values = (gap.source, gap.began, gap.ended, gap.reason, json.dumps(gap.steps), gap.seconds)
        with self._writer.using("the gap cannot be recorded"), transaction(self._connection):
            self._connection.execute("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?, ?)", values)

    def recent(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return the last events, newest first: their JSON form, `seq`, and `crop`, a path or None."""
        return self._reader.recent(limit)

    def counts(self, since: float, until: float, step_seconds: float) -> dict[str, Any]:
        """Count individuals; see `Reader.counts`."""
        return self._reader.counts(since, until, step_seconds)

    def crop(self, event_id: str) -> bytes | None:
        """Return an event's crop, JPEG; None where it has none."""
        return self._reader.crop(event_id)

    def register(self, sink: str) -> None:
        """Let events wait for a sink's acknowledgement; a new sink starts with the oldest event that is kept."""
        with self._writer.using("the sink cannot be registered"), transaction(self._connection):
            self._connection.execute("INSERT OR IGNORE INTO deliveries VALUES (?, 0)", (sink,))

    def forget(self, sink: str) -> None:
        """Let nothing wait for a sink any more, as when it is taken out of the configuration."""
        with self._writer.using("the sink cannot be forgotten"), transaction(self._connection):
            self._connection.execute("DELETE FROM deliveries WHERE sink = ?", (sink,))

    def sinks(self) -> list[str]:
        """Return the sinks for which events wait."""
        with self._writer.using("the sinks cannot be read"):
            return [row[0] for row in self._connection.execute("SELECT sink FROM deliveries")]

    def pending(self, sink: str, limit: int) -> list[tuple[int, Event]]:
        """Return the oldest events that a sink has not acknowledged, with their numbers, in order.

        Raises:
            UsageError: the sink is not registered.
        """
        with self._writer.using("the events to deliver cannot be read"):
            rows = self._connection.execute(
                "SELECT seq, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (self._upto(sink), limit)
            ).fetchall()
        return [(row["seq"], event_of(row["body"])) for row in rows]

    def delivered(self, sink: str, upto: int) -> None:
        """Note durably that a sink has acknowledged all events up to a number; never goes back.

        Raises:
            UsageError: the sink is not registered.
        """
        with self._writer.using("the delivery cannot be noted"):
            upto = min(upto, self._last)  # what is not recorded yet cannot have been delivered
            if upto > self._upto(sink):
                with transaction(self._connection):
                    self._connection.execute("UPDATE deliveries SET upto = ? WHERE sink = ?", (upto, sink))

    def backlog(self, sink: str) -> int:
        """Return how many events a sink has not acknowledged.

        Raises:
            UsageError: the sink is not registered.
        """
        with self._writer.using("the backlog cannot be counted"):
            return self._after(self._upto(sink))

    def retain(self) -> Retained:
        """Delete what is too old or too much; see `retention`. What that cost is also said in the state's problems.

        Raises:
            StoreError: the database cannot be read or written.
        """
        with self._writer.using("room cannot be made"):
            pass  # but see whether the database is there
        with explained("room cannot be made", self._folder):
            done = self._retention.run()
        with self._writer.using("the records cannot be read"):
            self._count()
            self._say(done)
            self._prepare_day(time.time() + AHEAD_SECONDS)
        return done

    @property
    def state(self) -> StoreState:
        """How the store is just now; raises StoreError where that cannot be seen."""
        with self._writer.using("the records cannot be looked at"):
            upto = self._connection.execute("SELECT min(upto) FROM deliveries").fetchone()[0]
            return StoreState(
                bytes=self._crop_bytes + files_size(self._folder),
                free_bytes=shutil.disk_usage(self._folder).free,
                events=self._events,
                undelivered=0 if upto is None else self._after(upto),
                problems=tuple(self._problems.values()),
            )

    @property
    def _connection(self) -> sqlite3.Connection:
        """Another one after the database was written anew."""
        return self._writer.connection

    def _let_go(self) -> None:
        """Close what reads; it is another one after the database was written anew."""
        self._reader.close()

    def _rewritten(self, aside: Path | None) -> None:
        """Read the database that was written anew, and say it."""
        self._reader = Reader(self._folder)
        kept = f"; what lay in its place is kept as {aside.name}" if aside else ""
        self._problems["rewritten"] = f"{REPLACED}: its {self._events} events were written into a new one{kept}"
        log.warning("%s: %s", self._folder, self._problems["rewritten"])

    def _prepare_day(self, when: float) -> None:
        """Make a day's folder before its first crop comes, which then is on the disk as soon as any other."""
        with contextlib.suppress(sqlite3.OperationalError, OSError):  # the first crop tries again, and it is said
            day = self._crops.day(when)
            recovery.remember_days(self._connection, {day}, self._days)
            self._crops.make_day(day)

    def _has(self, event_id: str) -> bool:
        return self._connection.execute("SELECT 1 FROM events WHERE id = ?", (event_id,)).fetchone() is not None

    def _insert(self, event: Event, crop: tuple[str, bytes] | None, failed: dict[str, str]) -> tuple[int, int] | None:
        """Insert a row; return its number and its crop's bytes, None where the event is there already."""
        place, size = (None, 0) if crop is None else (crop[0], on_disk(len(crop[1])))
        if place in failed:
            event = replace(event, details={**event.details, "crop": None, "crop_missing": failed[place]})
            place, size = None, 0
        number = insert_event(self._connection, event, place, size)
        return None if number is None else (number, size)

    def _upto(self, sink: str) -> int:
        row = self._connection.execute("SELECT upto FROM deliveries WHERE sink = ?", (sink,)).fetchone()
        if row is None:
            raise UsageError("this sink is not registered", sink, "register it first")
        return int(row["upto"])

    def _after(self, upto: int) -> int:
        """Count the events after a number; that is a subtraction but where rows were lost or deleted in between."""
        if self._last - self._first + 1 == self._events or not self._events:
            return min(self._events, max(0, self._last - int(upto)))
        row = self._connection.execute("SELECT count(*) FROM events WHERE seq > ?", (upto,)).fetchone()
        return int(row[0])

    def _count(self) -> None:
        found = self._connection.execute("SELECT count(*), min(seq), max(seq) FROM events").fetchone()
        self._events = int(found[0])
        last = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        self._last = max(int(found[2] or 0), int(last[0]) if last else 0)
        self._first = int(found[1] or self._last + 1)
        crops = self._connection.execute("SELECT coalesce(sum(crop_bytes), 0) FROM events WHERE crop IS NOT NULL")
        self._crop_bytes = int(crops.fetchone()[0])

    def _recover(self, connection: sqlite3.Connection) -> None:
        self._count()
        aside = self._writer.aside
        if aside is not None and (moved := set_aside_crops(aside, connection, self._crops)):
            self._problems["crops aside"] = f"{moved} crops of events that were lost are kept beside {aside.name}"
        keep_reserve(self._folder)
        try:
            recovery.remove_orphans(connection, self._crops)
            self._days = recovery.remembered_days(connection)
            if not self._events and recovery.any_crop(self._crops):
                self._problems["missing"] = "there are crops but no events: the database was removed or lost"
            recovery.close_gaps(connection)
            self._prepare_day(time.time())
            self.record_many([(event, None) for event in recovery.interrupted_tracks(connection)])
        except (StoreFullError, sqlite3.OperationalError, OSError) as error:
            self._problems["recovery"] = f"what a power cut left unfinished stays so until the next start: {error}"

    def _say(self, done: Retained) -> None:
        total = replace(
            self._deleted,
            undelivered_crops=self._deleted.undelivered_crops + done.undelivered_crops,
            undelivered_events=self._deleted.undelivered_events + done.undelivered_events,
        )
        self._deleted = total
        if total.undelivered_crops or total.undelivered_events:
            self._problems["undelivered"] = (
                f"{total.undelivered_events} events and {total.undelivered_crops} crops were deleted for room before"
                " every sink had acknowledged them"
            )
        if done.lacking:
            self._problems["room"] = (
                f"{done.lacking / 1e6:.0f} MB of room are missing, and nothing more may be deleted: bring the sinks"
                " back, free some space, or change max_mb or keep_free_mb"
            )
        else:
            self._problems.pop("room", None)
