"""The build folder: whose it is, who works in it, and how its kernels are replaced as a whole.

It holds `kernels/` (index.json and the compiled files; whole or absent), `cache/` (what was compiled before, by
content), `logs/` (what failed workers said), `cmake/`, the library, `.work/` while a build is at work, and a marker:
builds remove and replace these, so they work only in a folder that a build made.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from edge_lsla.atomic import write_bytes
from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.plugin_library import LARGEST_INDEX, read_regular
from plugins import index as kernel_index

KERNELS, CACHE, LOGS, CMAKE = "kernels", "cache", "logs", "cmake"
MARKER, LOCK, WORK = ".edge-lsla-plugin", ".lock", ".work"
OWN = {KERNELS, CACHE, LOGS, CMAKE, MARKER, LOCK, WORK}
_MARK = "`plugin build` made this folder, and removes and replaces what is in it.\n"
_ELSEWHERE = "choose another --output"


def check_folder(output: Path) -> None:
    """Refuse a folder that a build may not work in; one that does not exist is fine.

    Raises:
        UsageError: it holds what no build wrote, or one of a build's own names is a link or of another kind.
    """
    try:
        inside = {path.name: path for path in output.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot write here ({error.strerror or error})", output, _ELSEWHERE) from error
    # A build that begins at this moment has made the lock and not yet the marker.
    if inside.keys() - {LOCK, MARKER} and MARKER not in inside and not _of_an_older_build(output):
        raise UsageError("this folder holds what no build wrote", output, "choose a new or an empty --output")
    for name, path in inside.items():
        file = name in (MARKER, LOCK)
        if not file and name not in OWN - {KERNELS} and not name.startswith(f"{CMAKE}-"):
            continue
        if path.is_symlink() or not (path.is_file() if file else path.is_dir()):
            what = f"this should be a {'file' if file else 'folder'} of the build's own, and is a link or no such thing"
            raise UsageError(what, path, f"remove it, or {_ELSEWHERE}")


def _of_an_older_build(output: Path) -> bool:
    """Say whether a build wrote the kernels there; before the first release it left no marker."""
    try:
        return b'"operator_version"' in (read_regular(output / KERNELS / kernel_index.NAME, LARGEST_INDEX) or b"")
    except OSError:
        return False


@contextlib.contextmanager
def exclusive(output: Path) -> Iterator[Path]:
    """Claim a build folder, created if need be; give an empty folder inside it for unfinished work, removed at the end.

    Raises:
        UsageError: the folder cannot be made or written, or is not a build's.
        EdgeLslaError: another build is at work there.
    """
    work = output / WORK
    check_folder(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / LOCK).open("w")
    except OSError as error:
        raise UsageError(f"cannot write here ({error.strerror or error})", output, _ELSEWHERE) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EdgeLslaError("another build is at work", output, f"wait for it, or {_ELSEWHERE}") from error
        try:
            write_bytes(output / MARKER, _MARK.encode())
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
        raise UsageError("this folder would be replaced, and no build wrote it", folder, _ELSEWHERE)
