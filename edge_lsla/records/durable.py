"""Files and folders that are on the disk, not only in the system's memory, when a function returns."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: files created, renamed and removed in it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(handle: int) -> None:
    """Make the content of an open file durable."""
    os.fsync(handle)


def make_folders(root: Path, folder: Path) -> None:
    """Create the folders between an existing `root` and `folder`, durably.

    Folders that are there already are made durable too: who created them may have been killed before it came to that.
    """
    missing = []
    while folder != root:
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


class FolderSync:
    """Calls `sync_folder` in a thread of its own: most disks do it in one go with what is synced meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="names", daemon=True)
        self._thread.start()

    def result(self) -> OSError | None:
        """Wait for it; return what went wrong."""
        self._thread.join()
        return self._error

    def _run(self) -> None:
        try:
            sync_folder(self._folder)
        except OSError as error:
            self._error = error


def create_file(path: Path, data: bytes) -> int:
    """Write a file and return its handle, for the caller to sync and close; its name is durable after `sync_folder`.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    except OSError:
        os.close(handle)
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return handle


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files, durably; those that are not there are no error."""
    folders = set()
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            folders.add(path.parent)
    for folder in sorted(folders):
        sync_folder(folder)
