"""A build's folder of files: its own, removed at the end, and by the next build where the process was killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import EdgeLslaError

PREFIX = "edge-lsla-build-"
LOCK = "lock"
# Where the file system knows no locks, or the lock was never made: a build's folder that is older was left.
LEFTOVER_SECONDS = 24 * 3600.0
# The graph itself, and an engine that was seen to be 1.2 times as large when built for three GPUs.
COPIES_OF_THE_MODEL = 3
ATTEMPTS = 10
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UnwritableError(EdgeLslaError):
    """The folder of a build's files is full, or cannot be used; another may do."""


def unwritable(what: str, cause: OSError, where: object, temporary: bool) -> UnwritableError:
    """Return the error for what cannot be written; `temporary`: into the system's folder for temporary files."""
    remedy = "free some space there" if cause.errno in FULL else "make it a folder that you can write to"
    if temporary:
        remedy += ", or set TMPDIR to another folder"
    return UnwritableError(f"{what} ({cause.strerror or cause})", where, remedy)


@dataclass(frozen=True)
class WorkFolder:
    """A build's folder.

    Attributes:
        path: the folder, which only its owner can reach.
        lock: the file whose lock is held; None where the file system knows no locks. The worker inherits it, so that
            the folder is nobody's only once both have ended.
    """

    path: Path
    lock: int | None


@contextlib.contextmanager
def writing(place: Path | None) -> Iterator[None]:
    """Turn errors of the system into one sentence about `place`; None: the system's temporary folder.

    Raises:
        UnwritableError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        where = place or tempfile.tempdir or os.environ.get("TMPDIR") or "the system's temporary folder"
        raise unwritable("cannot write the build's files", error, where, place is None) from error


@contextlib.contextmanager
def work_folder(place: Path | None, model_bytes: int) -> Iterator[WorkFolder]:
    """Make a folder for one build; what builds left that were killed is removed, there and among temporary files.

    Args:
        place: where; None: among the system's temporary files.
        model_bytes: size of the graph, for which there must be room, and for the engine.

    Raises:
        UnwritableError: it cannot be made, or there is too little room.
    """
    with writing(place):
        with contextlib.suppress(OSError):  # no usable temporary folder, and none is needed
            _sweep(Path(tempfile.gettempdir()))
        # The worker stands elsewhere.
        parent = Path(tempfile.gettempdir() if place is None else place).resolve()
        _sweep(parent)
        made = _make(parent)
    try:
        with writing(place):
            room = os.statvfs(parent)
            if room.f_bavail * room.f_frsize < COPIES_OF_THE_MODEL * model_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield made
    finally:
        shutil.rmtree(made.path, ignore_errors=True)
        if made.lock is not None:
            os.close(made.lock)


def _make(parent: Path) -> WorkFolder:
    for _ in range(ATTEMPTS):
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            handle = os.open(path / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:
                return WorkFolder(path, handle)
        except BlockingIOError:
            pass
        except OSError:
            os.close(handle)
            (path / LOCK).unlink(missing_ok=True)
            return WorkFolder(path, None)
        os.close(handle)  # another build swept it away before it was locked
    raise OSError(errno.EAGAIN, "other builds remove its folder")


def _sweep(place: Path) -> None:
    """Remove the folders of builds that have ended without doing so."""
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or another process was quicker
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                _remove_dead(folder, status.st_mtime)


def _remove_dead(folder: Path, changed: float) -> None:
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if time.time() - changed > LEFTOVER_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is at work
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)
