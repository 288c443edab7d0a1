"""What can go wrong with the event store, in sentences; SQLite's and the system's errors are translated here."""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_lsla.errors import EdgeLslaError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NEARLY_NOTHING = (
    1 << 18
)  # bytes; SQLite reports a full disk as a failed input or output where it grows its shared memory


class StoreError(EdgeLslaError):
    """The event store cannot be opened, read or written."""


class StoreFullError(StoreError):
    """There is no room for an event; nothing of it was written, and it can be recorded once there is room."""


class CorruptStoreError(StoreError):
    """The database file is damaged; opening the store anew salvages it."""


def is_corrupt(error: sqlite3.Error) -> bool:
    """Say whether SQLite found the file damaged or not a database; its other errors are of subclasses."""
    return type(error) is sqlite3.DatabaseError


@contextlib.contextmanager
def explained(what: str, folder: Path) -> Iterator[None]:
    """Translate errors of SQLite and the system.

    Args:
        what: what is being done, such as "the event cannot be recorded".
        folder: the store's.

    Raises:
        StoreFullError: the disk is full.
        CorruptStoreError: the database is damaged.
        StoreError: anything else.
    """
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "disk is full" in text or ("disk I/O" in text and _free(folder) < NEARLY_NOTHING):
            raise _full(what, folder) from error
        if is_corrupt(error):
            raise CorruptStoreError(
                f"{what}, the database is damaged ({text})", folder, "restart to salvage it"
            ) from error
        raise StoreError(f"{what} ({text})", folder, "check the disk and its permissions") from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _full(what, folder) from error
        raise StoreError(f"{what} ({error.strerror or error})", folder, "check the disk and its permissions") from error


def _full(what: str, folder: Path) -> StoreFullError:
    return StoreFullError(f"{what}, the disk is full", folder, "free some space")


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return NEARLY_NOTHING
