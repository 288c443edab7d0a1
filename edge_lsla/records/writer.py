"""The one connection that writes a store's database."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_lsla.records.failures import StoreError, explained
from edge_lsla.records.opening import open_database, rewrite_database
from edge_lsla.records.schema import DATABASE

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
        opened = open_database(folder)
        self.problems, self.aside = opened.problems, opened.aside
        self._use(opened.connection)

    @contextlib.contextmanager
    def using(self, what: str) -> Iterator[sqlite3.Connection]:
        """Hold the connection; `what` cannot be done where SQLite or the disk refuses, says the `StoreError`."""
        with self.lock, explained(what, self._folder):
            if self._file_now() != self._file:
                self._write_anew()
            yield self.connection

    def close(self) -> None:
        """Close the database."""
        self.connection.close()

    def _use(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.connection.row_factory = sqlite3.Row
        self._file = self._file_now()

    def _file_now(self) -> tuple[int, int] | None:
        try:
            found = (self._folder / DATABASE).stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _write_anew(self) -> None:
        failed = f"{REPLACED}, and cannot be written anew"
        with explained(failed, self._folder):
            try:
                aside = rewrite_database(self._folder, self.connection)
            except sqlite3.ProgrammingError as error:  # it was closed below, and the new one could not be opened
                raise StoreError(failed, self._folder, "restart the service") from error
            self._let_go()
            self.connection.close()
            self._use(open_database(self._folder).connection)
            self._rewritten(aside)
