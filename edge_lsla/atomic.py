"""Files that are either whole or absent, whatever interrupts the writing."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from edge_lsla.errors import EdgeLslaError, UsageError


@contextlib.contextmanager
def atomic_path(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `destination`; on success it is fsynced and renamed, otherwise removed.

    Raises:
        UsageError: the folder does not exist or cannot be written.
        EdgeLslaError: the disk is full or fails.
    """
    destination = Path(destination)
    folder = destination.parent
    if destination.is_dir():
        raise UsageError("the output is a folder", destination, "give a file name")
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
        temporary.write_text(text, encoding="utf-8")


def write_bytes(destination: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically; see `atomic_path` for the errors."""
    with atomic_path(destination) as temporary:
        temporary.write_bytes(data)
