"""The database's tables, and how connections to it are opened."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_lsla.errors import CompatibilityError
from edge_lsla.records.failures import StoreError

DATABASE = "events.db"
SIDE_FILES = ("-wal", "-shm")
VERSION = 1
APPLICATION = 0x4C534C41  # "LSLA", in the file's header
WAL_BYTES = 8 << 20  # what the write-ahead log shrinks to after a checkpoint
CHECKPOINT_PAGES = 1000  # of the log, after which it is written into the database
WAIT_SECONDS = 10.0
WRITER_WAIT_SECONDS = 1.0  # for another program's lock; whoever records tries again, and a stop must not wait
# FULL makes every commit durable; in WAL mode NORMAL would lose the last ones in a power cut.
SYNCHRONOUS = "FULL"

# `tracks` repeats what events say of individuals, so that counting needs no search; `arrived` and `gone` are the
# events' numbers. `crop_bytes` is what the crop takes on the disk.
_TABLES = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, time REAL NOT NULL,
    source TEXT NOT NULL, track TEXT, label TEXT, confidence REAL, crop TEXT, crop_bytes INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL);
CREATE INDEX events_time ON events (time);
CREATE INDEX events_crops ON events (seq, crop_bytes) WHERE crop IS NOT NULL;
CREATE TABLE tracks (
    track TEXT PRIMARY KEY, source TEXT NOT NULL, label TEXT NOT NULL, began REAL NOT NULL, ended REAL,
    arrived INTEGER, gone INTEGER) WITHOUT ROWID;
CREATE INDEX tracks_began ON tracks (began, label);
CREATE INDEX tracks_open ON tracks (arrived) WHERE ended IS NULL;
CREATE TABLE deliveries (sink TEXT PRIMARY KEY, upto INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE gaps (
    source TEXT NOT NULL, began REAL NOT NULL, ended REAL, reason TEXT NOT NULL, steps TEXT NOT NULL,
    seconds REAL NOT NULL, PRIMARY KEY (source, began)) WITHOUT ROWID;
CREATE TABLE effort (
    source TEXT NOT NULL, began REAL NOT NULL, ended REAL NOT NULL, seconds REAL NOT NULL, frames INTEGER NOT NULL,
    dropped INTEGER NOT NULL, engine TEXT NOT NULL, clock TEXT NOT NULL, PRIMARY KEY (source, began)) WITHOUT ROWID;
CREATE INDEX effort_clock ON effort (clock, ended);
CREATE TABLE days (day TEXT PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID;
"""

_NAMES = re.findall(r"CREATE (?:TABLE|INDEX) (\w+)", _TABLES)

# From version N to N + 1, each inside the transaction that also sets the version.
MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {}


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the database for the one writer, creating the file where there is none."""
    connection = sqlite3.connect(path, WRITER_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect before the first table only
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise sqlite3.OperationalError("a write-ahead log is not possible on this disk")
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the database to read beside the writer, or from a disk that cannot be written."""
    wal = path.with_name(path.name + "-wal")
    query = "mode=ro"
    connection = None
    try:
        connection = _read_only(path, query)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        if connection is not None:
            connection.close()
        if wal.exists() and wal.stat().st_size:
            raise  # what is in the log would be missed
        connection = _read_only(path, query + "&immutable=1")
    return connection


def _read_only(path: Path, query: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{query}"
    return sqlite3.connect(uri, WAIT_SECONDS, isolation_level=None, check_same_thread=False, uri=True)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what happens inside, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself after some failures
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the database's tables; 0 where it has none yet.

    Raises:
        CompatibilityError: a newer program made it.
        StoreError: it is the database of something else.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not version and not application and not tables:
        return 0
    if application != APPLICATION:
        raise StoreError("this database is no store of events", path, "give another folder")
    if version > VERSION:
        raise CompatibilityError(
            f"a newer program made this store (its version {version}, ours {VERSION})", path, "update this one"
        )
    return version


def lost_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables and indexes that a database of this version should have and has not, as sentences."""
    if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        return []  # they are made, or brought up to date, by `prepare`
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    return [f"{name} is missing in it" for name in _NAMES if name not in there]


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables, or bring older ones up to date; see `check_version` for the errors."""
    version = check_version(connection, path)
    if version == VERSION:
        return
    with transaction(connection):
        if version == 0:
            for statement in filter(None, map(str.strip, _TABLES.split(";"))):
                connection.execute(statement)
        else:
            for each in range(version, VERSION):
                MIGRATIONS[each](connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
