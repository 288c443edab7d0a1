"""The one connection that writes a store's database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_lsla.records.failures import StoreError, explained
from edge_lsla.records.opening import open_database, restore_database, rewrite_database
from edge_lsla.records.schema import DATABASE

TRIES = 5
REPLACED = "the database was removed or replaced while it was open"


class Writer:
    """Writes a folder's database; where its file is removed or replaced meanwhile, it writes it anew from the open one.

    Args:
        folder: of the records; this process has locked it.
        let_go: called before that, so that whoever else has the database open closes it: a later close would remove the
            new log by its name.
        rewritten: called after it, with where that is now which had taken the file's place; None where nothing had.

    Attributes:
        connection: for whoever holds `lock`; another one after the database was written anew.
        lock: one thread at a time.
        problems, aside: of the opening; see `Opened`.

    Raises:
        CompatibilityError: a newer program made the database.
        StoreFullError: the disk is so full that it cannot be opened.
        StoreError: it cannot be read or written.
    """

    def __init__(self, folder: Path, let_go: Callable[[], None], rewritten: Callable[[Path | None], None]) -> None:
        self._folder, self._let_go, self._rewritten = folder, let_go, rewritten
        self.lock = threading.RLock()
        self._written = -1  # a handle of what was written anew, until that is open
        self._aside: Path | None = None
        opened = open_database(folder)
        self.problems, self.aside = opened.problems, opened.aside
        self._use(opened.connection)

    @contextlib.contextmanager
    def using(self, what: str) -> Iterator[sqlite3.Connection]:
        """Hold the connection; `what` cannot be done where SQLite or the disk refuses, says the `StoreError`."""
        with self.lock, explained(what, self._folder):
            if self._written >= 0 or None in self._files or self._files_now() != self._files:
                self._write_anew()
            yield self.connection

    def close(self) -> None:
        """Close the database."""
        self.connection.close()
        if self._written >= 0:
            os.close(self._written)

    def _use(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.connection.row_factory = sqlite3.Row
        self._files = self._files_now()

    def _files_now(self) -> list[tuple[int, int] | None]:
        """Say which files the database and its log are; None where there is none."""
        return [_identity(self._folder / name) for name in (DATABASE, f"{DATABASE}-wal")]

    def _write_anew(self) -> None:
        failed = f"{REPLACED}, and cannot be written anew"
        with explained(failed, self._folder):
            if self._written < 0:
                self._aside = rewrite_database(self._folder, self.connection)
                self._written = os.open(self._folder / DATABASE, os.O_RDONLY | os.O_CLOEXEC)
                self._let_go()
                self.connection.close()
            self._use(self._open_again())
            os.close(self._written)
            self._written = -1
            self._rewritten(self._aside)

    def _open_again(self) -> sqlite3.Connection:
        """Open what was written, also where its name is taken away once more just now."""
        for _ in range(TRIES):
            whole = os.fstat(self._written)
            if _identity(self._folder / DATABASE) != (whole.st_dev, whole.st_ino):
                lost, self._written = self._written, restore_database(self._folder, self._written)
                os.close(lost)
                continue
            connection = open_database(self._folder).connection
            if _identity(self._folder / DATABASE) == (whole.st_dev, whole.st_ino):
                return connection
            connection.close()
        raise StoreError(f"{REPLACED}, again and again", self._folder, "find out what does that")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
