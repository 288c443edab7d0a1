"""Files in a folder that others may write to: replaced whole, read bounded, and no link in it is followed.

`edge_lsla.atomic` keeps a link and replaces what it points to, as a user's own output wants it. Here an administrator
may write into a folder that belongs to the service's user, whose links must not lead him elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from edge_lsla.errors import EdgeLslaError

LEFTOVER_SECONDS = 3600.0


def make_folder(path: Path) -> None:
    """Make a folder for the owner of the one above it; nothing is done where it exists.

    Raises:
        EdgeLslaError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o755)
        if os.geteuid() == 0:
            above = path.parent.stat()
            os.chown(path, above.st_uid, above.st_gid, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError as error:
        raise _failed("cannot make the folder of models", path, error) from error


@contextlib.contextmanager
def opened(path: Path, *, alone: bool = False) -> Iterator[int]:
    """Open a folder that is no link; with `alone`, wait until no other process has it so.

    Raises:
        EdgeLslaError: it is absent, no folder, or a link.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _failed("cannot open the folder of models", path, error) from error
    try:
        if alone:
            fcntl.flock(handle, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield handle
    finally:
        os.close(handle)


def read(folder: int, name: str, limit: int) -> bytes | None:
    """Return a regular file's bytes, or None where there is none such, or it is a link or larger than `limit`."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(limit)
    except OSError:  # a damaged disk
        return None
    finally:
        os.close(handle)


def write(folder: int, name: str, fill: Callable[[BinaryIO], object]) -> str:
    """Write a file under a temporary name, flushed to the disk; return that name, for `put`.

    Raises:
        OSError: the disk is full, read-only or fails; nothing is left.
    """
    temporary = f".{name}.{secrets.token_hex(4)}.part"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temporary, flags, 0o644, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            if os.geteuid() == 0:  # the service must be able to read what its administrator installs
                owner = os.fstat(folder)
                os.fchown(handle, owner.st_uid, owner.st_gid)
            fill(file)
            file.flush()
            os.fsync(handle)
    except BaseException:
        discard(folder, temporary)
        raise
    return temporary


def put(folder: int, temporary: str, name: str) -> None:
    """Let a written file take the place of `name`, whatever that was; both names are on the disk afterwards.

    Raises:
        OSError: the disk is read-only or fails.
    """
    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)  # pathlib knows no folder handles
    os.fsync(folder)


def discard(folder: int, temporary: str) -> None:
    """Remove a file where it is there."""
    with contextlib.suppress(OSError):
        os.unlink(temporary, dir_fd=folder)  # as above


def sweep(folder: int) -> None:
    """Remove what killed or powered-off writers left; a living one is younger."""
    for name in os.listdir(folder):  # as above
        with contextlib.suppress(OSError):
            age = time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime  # as above
            if name.startswith(".") and name.endswith(".part") and age > LEFTOVER_SECONDS:
                discard(folder, name)


def _failed(what: str, path: Path, error: OSError) -> EdgeLslaError:
    return EdgeLslaError(f"{what} ({error.strerror or error})", path, "check the data folder and its owner")
