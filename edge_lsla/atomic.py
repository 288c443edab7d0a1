"""Files that are either whole or absent, whatever interrupts the writing."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from edge_lsla.errors import EdgeLslaError, UsageError

LEFTOVER_SECONDS = 3600.0


def check_output(destination: Path) -> None:
    """Refuse an output that cannot be written, before the work that it is for.

    Raises:
        UsageError: its folder does not exist or cannot be written, or it is a folder, device or pipe.
        EdgeLslaError: the disk is full.
    """
    if destination.is_dir():
        raise UsageError("the output is a folder", destination, "give a file name")
    if destination.exists() and not destination.is_file():
        raise UsageError("the output is a device or a pipe", destination, "give a file name")
    if not destination.parent.is_dir():
        raise UsageError("no such folder to write into", destination.parent, "create it first")
    folder = Path(os.path.realpath(destination)).parent  # a link is kept, and what it points to replaced
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError("no permission to write into the folder", folder, "choose another output")
    with contextlib.suppress(OSError):  # a file system that does not tell
        if not shutil.disk_usage(folder).free:
            raise EdgeLslaError(
                "cannot write, the disk is full", destination, "free some space or choose another output"
            )


@contextlib.contextmanager
def atomic_path(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `destination`; on success it is fsynced and renamed, otherwise removed.

    Raises:
        UsageError: the folder does not exist or cannot be written.
        EdgeLslaError: the disk is full or fails.
    """
    named = Path(destination)
    check_output(named)
    destination = Path(os.path.realpath(named))  # a link is kept, and what it points to replaced
    folder = destination.parent
    _remove_leftovers(destination)
    temporary = folder / f".{destination.name}.{secrets.token_hex(4)}.part{destination.suffix}"
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileNotFoundError as error:
        raise UsageError("no such folder to write into", folder, "create it first") from error
    except PermissionError as error:
        raise UsageError("no permission to write into the folder", folder, "choose another output") from error
    except OSError as error:
        raise EdgeLslaError("cannot write", destination, error.strerror or str(error)) from error
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(destination)
        folder_handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(folder_handle)
        finally:
            os.close(folder_handle)
    except OSError as error:
        raise EdgeLslaError(
            "cannot write", destination, f"{error.strerror or error}; free some space or choose another output"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(destination: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically; see `atomic_path` for the errors."""
    with atomic_path(destination) as temporary:
        # A file name that is no valid text is shown with escapes rather than lost.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(destination: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically; see `atomic_path` for the errors."""
    with atomic_path(destination) as temporary:
        temporary.write_bytes(data)


def _remove_leftovers(destination: Path) -> None:
    """Remove what killed or powered-off writers of this file left; a living one is younger."""
    for leftover in destination.parent.glob(f".{glob.escape(destination.name)}.????????.part*"):
        with contextlib.suppress(OSError):  # another process was quicker
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                leftover.unlink()
