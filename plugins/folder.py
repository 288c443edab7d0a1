"""The build folder: who works in it, and how its kernels are replaced as a whole.

It holds `kernels/` (index.json and the compiled files; whole or absent), `cache/` (what was compiled before, by
content), `logs/` (what failed workers said), `cmake/`, the library, and `.work/` while a build is at work.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from edge_lsla.atomic import write_bytes
from edge_lsla.errors import EdgeLslaError, UsageError
from plugins import index as kernel_index

KERNELS = "kernels"


@contextlib.contextmanager
def exclusive(output: Path) -> Iterator[Path]:
    """Claim a build folder, created if need be; give an empty folder inside it for unfinished work, removed at the end.

    Raises:
        UsageError: the folder cannot be made or written.
        EdgeLslaError: another build is at work there.
    """
    work = output / ".work"
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("w")
    except OSError as error:
        raise UsageError(f"cannot write here ({error.strerror or error})", output, "choose another --output") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EdgeLslaError(
                "another build is at work", output, "wait for it, or choose another --output"
            ) from error
        try:
            shutil.rmtree(work, ignore_errors=True)  # of a build that was killed
            work.mkdir()
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def put_kernels(folder: Path, index: bytes, files: dict[str, bytes], work: Path) -> str:
    """Write a folder of kernels beside its place, then put it there; return the index's digest.

    Raises:
        UsageError: there is a folder of somebody else in its place.
        EdgeLslaError: the disk is full or fails.
    """
    check_ours(folder)
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        for name, data in files.items():
            (new / name).write_bytes(data)
        write_bytes(new / kernel_index.NAME, index)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise EdgeLslaError("cannot write the kernels", folder, error.strerror or str(error)) from error
    return kernel_index.digest(index)


def check_ours(folder: Path) -> None:
    """Refuse to replace a folder that no build wrote.

    Raises:
        UsageError: it holds no index of kernels.
    """
    if folder.exists() and not (folder / kernel_index.NAME).is_file():
        raise UsageError("this folder would be replaced, and no build wrote it", folder, "choose another --output")
