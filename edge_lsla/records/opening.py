"""Opening a store's folder: one service at a time, on a database that is whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import UsageError
from edge_lsla.records import durable
from edge_lsla.records.crops import CropFolder
from edge_lsla.records.failures import StoreError, StoreFullError, explained, is_corrupt
from edge_lsla.records.recovery import has_row
from edge_lsla.records.salvage import Salvaged, salvage
from edge_lsla.records.schema import DATABASE, SIDE_FILES, check_version, connect_writer, lost_tables, prepare

LOCK = "events.lock"
RESERVE = "events.reserve"  # given up on a full disk, so that SQLite can open what is there
RESERVE_BYTES = 1 << 20
CORRUPT = "events.corrupt-"
SALVAGING, SALVAGED = "events.salvaging.db", "events.salvaged.db"

_locked: set[Path] = set()
_locked_guard = threading.Lock()


class FolderLock:
    """Holds a folder for this process until `release`; a process that dies releases it.

    A POSIX lock, because processes that are forked off for the cameras do not inherit it; since a process does not lock
    itself out by it, `_locked` does that.

    Raises:
        UsageError: the folder is missing, is a file or cannot be written.
        StoreError: another service holds it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.exists():
            raise UsageError("no such folder for the records", folder, "create it, or mount its disk")
        if not folder.is_dir():
            raise UsageError("the records need a folder, and this is none", folder, "give another one")
        self._folder = folder.resolve()
        self._handle = -1
        with _locked_guard:
            if self._folder in _locked:
                raise StoreError("another service has these records open", folder, "stop it first")
            try:
                self._handle = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if self._handle >= 0:
                    os.close(self._handle)
                if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and self._handle < 0:
                    raise UsageError(
                        "the folder of the records cannot be written", folder, "make it writable"
                    ) from error
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise StoreError("another service has these records open", folder, "stop it first") from error
                with explained("the records cannot be opened", folder):
                    raise
            _locked.add(self._folder)

    def release(self) -> None:
        """Let another service have the folder."""
        with _locked_guard:
            os.close(self._handle)
            _locked.discard(self._folder)


@dataclass(frozen=True)
class Opened:
    """A database that is whole.

    Attributes:
        connection: the writer's.
        problems: what has to be said about the opening, sentences.
        aside: where the damaged one was moved that it was salvaged from; None where it was whole.
    """

    connection: sqlite3.Connection
    problems: tuple[str, ...]
    aside: Path | None


def open_database(folder: Path) -> Opened:
    """Open the folder's database, which this process has locked; one that is damaged is moved aside and salvaged.

    Raises:
        CompatibilityError: a newer program made it.
        StoreFullError: the disk is full.
        StoreError: it is something else's, or cannot be read or written.
    """
    with explained("the records cannot be opened", folder):
        try:
            return _open(folder)
        except (sqlite3.OperationalError, StoreFullError, OSError):
            reserve = folder / RESERVE
            if not reserve.exists():
                raise
            reserve.unlink()
            return _open(folder)


def rewrite_database(folder: Path, connection: sqlite3.Connection) -> Path | None:
    """Write a database whose file was removed or replaced into the folder anew: the open file still has everything.

    Afterwards the connection must be closed before the new file is opened, because closing removes the log by its name.

    Returns:
        where that which had taken its place is now; None where there was nothing.

    Raises:
        sqlite3.Error, OSError: it cannot be written.
    """
    try:
        with contextlib.closing(sqlite3.connect(folder / SALVAGING)) as fresh:
            connection.backup(fresh)
    except sqlite3.Error:
        (folder / SALVAGING).unlink(missing_ok=True)  # half of it would take the last room of a full disk
        raise
    aside = _put_in_place(folder)
    if aside.exists():
        return aside
    durable.remove_files(aside.with_name(aside.name + end) for end in SIDE_FILES)
    return None


def restore_database(folder: Path, handle: int) -> int:
    """Put the content of an open file, whose name was taken away, in the database's place; return that one's handle."""
    with (folder / SALVAGING).open("w+b") as file:
        os.lseek(handle, 0, os.SEEK_SET)
        with os.fdopen(os.dup(handle), "rb") as content:
            shutil.copyfileobj(content, file)
        file.flush()
        durable.sync_file(file.fileno())
        _put_in_place(folder)
        return os.dup(file.fileno())


def keep_reserve(folder: Path) -> None:
    """Set some space aside for opening the store on a full disk, where there is room for it."""
    reserve = folder / RESERVE
    with contextlib.suppress(OSError):
        if not reserve.exists() and shutil.disk_usage(folder).free > 2 * RESERVE_BYTES:
            try:
                with reserve.open("xb") as file:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
            except OSError:
                reserve.unlink(missing_ok=True)


def set_aside_crops(aside: Path, connection: sqlite3.Connection, crops: CropFolder) -> int:
    """Move the crops whose events were lost with a damaged database beside it; return how many."""
    strays = [place for day in crops.days() for place in crops.of_day(day) if not has_row(connection, place)]
    beside = aside.with_suffix(".crops")
    if strays:
        beside.mkdir(exist_ok=True)
    for place in strays:
        (aside.parent / place).rename(beside / Path(place).name)
    return len(strays)


def _open(folder: Path) -> Opened:
    path = folder / DATABASE
    problems = []
    aside = _finish_salvage(folder)  # of an opening that was cut short
    try:
        connection = _whole(path)
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
        aside, said = _replace(folder, str(error))
        problems.append(said)
        connection = _whole(path)
    try:
        prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    durable.sync_folder(folder)  # the database's own name, before anything is recorded in it
    for kept in sorted(folder.glob(f"{CORRUPT}*.db")):
        problems.append(f"a damaged database is kept: {kept.name}; delete it once nobody wants to look at it")
    return Opened(connection, tuple(problems), aside)


def _whole(path: Path) -> sqlite3.Connection:
    """Open a database and read all of it.

    Raises:
        sqlite3.DatabaseError: it is damaged.
    """
    connection = connect_writer(path)
    try:
        check_version(connection, path)
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        lost = lost_tables(connection)
        if found != "ok" or lost:
            raise sqlite3.DatabaseError(lost[0] if lost else found)
    except BaseException:
        connection.close()
        raise
    return connection


def _replace(folder: Path, why: str) -> tuple[Path, str]:
    """Put what can be read of a damaged database into a new one; return where that is now, and what happened."""
    saved = salvage(folder / DATABASE, folder / SALVAGING)
    aside = _put_in_place(folder)
    return aside, _say(saved, why.splitlines()[0], aside)


def _put_in_place(folder: Path) -> Path:
    """Put the new database, which is whole, in the place of the old one; return where that is now."""
    durable.sync_folder(folder)
    (folder / SALVAGING).rename(folder / SALVAGED)
    durable.sync_folder(folder)
    aside = _finish_salvage(folder)
    assert aside is not None
    return aside


def _finish_salvage(folder: Path) -> Path | None:
    """Move the damaged database aside and the salvaged one into its place; return where the damaged one is now.

    Each step is durable before the next: the old log beside the new database would destroy it.
    """
    for leftover in folder.glob(f"{SALVAGING}*"):
        leftover.unlink()
    salvaged, database = folder / SALVAGED, folder / DATABASE
    if not salvaged.exists():
        return None
    name = f"{CORRUPT}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db"
    for end in ("", *SIDE_FILES):
        with contextlib.suppress(FileNotFoundError):
            database.with_name(DATABASE + end).rename(folder / (name + end))
    durable.sync_folder(folder)
    salvaged.rename(database)
    durable.sync_folder(folder)
    return folder / name


def _say(saved: Salvaged, why: str, aside: Path) -> str:
    cursors = (
        "the state of delivery is kept"
        if saved.cursors
        else "the state of delivery is lost, so all are delivered again, with their identifiers"
    )
    return (
        f"the database was damaged ({why}) and moved aside as {aside.name}: {saved.events} events salvaged; {cursors}"
    )
