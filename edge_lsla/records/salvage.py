"""Saving what can be read of a damaged database."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import EdgeLslaError
from edge_lsla.records.rows import event_of, insert_event
from edge_lsla.records.schema import connect_reader, prepare, transaction

LARGEST_SEQ = 1 << 62
PAGE = 4096  # of databases that we make
PLAIN_TABLES = ("gaps", "effort")


@dataclass(frozen=True)
class Salvaged:
    """What was saved.

    Attributes:
        events: how many.
        cursors: whether the state of delivery is among it.
    """

    events: int
    cursors: bool


def salvage(damaged: Path, fresh: Path) -> Salvaged:
    """Write what can be read of `damaged` into a new database, durably; numbers and identifiers are kept.

    Raises:
        sqlite3.Error, OSError: the new one cannot be written.
    """
    target = sqlite3.connect(fresh, isolation_level=None)
    try:
        target.execute(f"PRAGMA page_size = {PAGE}")
        target.execute("PRAGMA auto_vacuum = INCREMENTAL")
        target.execute("PRAGMA journal_mode = DELETE")
        target.execute("PRAGMA synchronous = FULL")
        prepare(target, fresh)
        with _damaged(damaged, fresh) as source, transaction(target):
            highest = 0
            for row in _events(source):
                with contextlib.suppress(sqlite3.IntegrityError):  # a number that is there already
                    insert_event(target, event_of(row["body"]), row["crop"], row["crop_bytes"], seq=row["seq"])
                    highest = max(highest, row["seq"])
            cursors = _cursors(source)
            for sink, upto in (cursors or {}).items():
                target.execute("INSERT INTO deliveries VALUES (?, ?)", (sink, upto))
            for table in PLAIN_TABLES:
                _copy(source, target, table)
            # A number that was given once must not be given again: a sink that has it would pass the new event over.
            highest = max(highest, _last_number(source), *(cursors or {"": 0}).values())
            target.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
            target.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", (highest,))
        events = int(target.execute("SELECT count(*) FROM events").fetchone()[0])
    finally:
        target.close()
    return Salvaged(events, cursors is not None)


@contextlib.contextmanager
def _damaged(path: Path, fresh: Path) -> Iterator[sqlite3.Connection]:
    """Open the damaged database to read; where its first page is destroyed, a copy with that of a fresh one."""
    copy = fresh.with_name(fresh.name + ".copy")
    with contextlib.ExitStack() as stack:
        stack.callback(copy.unlink, missing_ok=True)
        try:
            connection = stack.enter_context(contextlib.closing(connect_reader(path)))
            connection.execute("SELECT seq FROM events LIMIT 1").fetchone()
        except sqlite3.Error:
            # The same statements gave both their tables, so that these begin at the same pages.
            with path.open("rb") as file, copy.open("wb") as other:
                shutil.copyfileobj(file, other)
            with copy.open("r+b") as file, fresh.open("rb") as other:
                page = bytearray(other.read(PAGE))
                page[28:32] = (copy.stat().st_size // PAGE).to_bytes(4, "big")  # pages of the file
                page[32:40] = bytes(8)  # no list of free pages
                file.write(page)
            connection = stack.enter_context(contextlib.closing(sqlite3.connect(copy, isolation_level=None)))
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        yield connection


def _events(source: sqlite3.Connection) -> Iterator[sqlite3.Row]:
    """Yield every row that can be read and makes sense: up to the damage, past it, back to it, and on."""
    position, jump, broken = 0, 1, None
    while position < LARGEST_SEQ:
        try:
            for row in source.execute("SELECT * FROM events WHERE seq > ? ORDER BY seq", (position,)):
                if not isinstance(row["seq"], int) or row["seq"] <= position:
                    raise sqlite3.DatabaseError("the rows are out of order")
                if broken is not None:
                    yield from _back_to(source, broken, position)
                    broken = None
                position, jump = row["seq"], 1
                if _makes_sense(row):
                    yield row
            return
        except (sqlite3.Error, OverflowError):
            broken = position if broken is None else broken
            position, jump = position + jump, jump * 2


def _back_to(source: sqlite3.Connection, broken: int, end: int) -> Iterator[sqlite3.Row]:
    """Yield the rows from `end` down to where it broke, which the search had passed over."""
    with contextlib.suppress(sqlite3.Error):
        statement = "SELECT * FROM events WHERE seq > ? AND seq <= ? ORDER BY seq DESC"
        for row in source.execute(statement, (broken, end)):
            if isinstance(row["seq"], int) and _makes_sense(row):
                yield row


def _makes_sense(row: sqlite3.Row) -> bool:
    try:
        event = event_of(row["body"])
    except (EdgeLslaError, ValueError, TypeError, KeyError, AttributeError):
        return False
    crop = row["crop"] is None or isinstance(row["crop"], str)
    return crop and event.id == row["id"] and isinstance(row["crop_bytes"], int)


def _cursors(source: sqlite3.Connection) -> dict[str, int] | None:
    """Return how far each sink came; None where that cannot be read."""
    try:
        rows = source.execute("SELECT sink, upto FROM deliveries").fetchall()
    except sqlite3.Error:
        return None
    if not all(isinstance(row["sink"], str) and isinstance(row["upto"], int) for row in rows):
        return None
    return {row["sink"]: row["upto"] for row in rows}


def _last_number(source: sqlite3.Connection) -> int:
    try:
        row = source.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    except sqlite3.Error:
        return 0
    return row["seq"] if row is not None and isinstance(row["seq"], int) and 0 <= row["seq"] < LARGEST_SEQ else 0


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
    with contextlib.suppress(sqlite3.Error):
        for row in source.execute(f"SELECT * FROM {table}"):
            values = tuple(row)
            with contextlib.suppress(sqlite3.IntegrityError):
                marks = ", ".join("?" * len(values))
                target.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", values)
