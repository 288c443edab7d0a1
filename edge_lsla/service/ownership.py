"""Whose the data are: what `run` wrote as root, the unprivileged service cannot open."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from edge_lsla.errors import UsageError


def check_owner(folder: Path) -> None:
    """Refuse a data folder in which something belongs to a user whose files the service's user cannot write.

    The service's user is whom this process runs as, or of root the folder's owner.

    Raises:
        UsageError: it says whose it is, and what to run.
    """
    with contextlib.suppress(OSError):  # it is absent, or the store says what is wrong with it
        me = os.geteuid()
        user = me or folder.stat().st_uid
        for path in _written(folder):
            found = path.lstat()
            writable = os.access(path, os.W_OK, effective_ids=True) if me else stat.S_IMODE(found.st_mode) & 0o022
            if found.st_uid != user and not writable:
                who, whose = user_name(user), user_name(found.st_uid)
                what = f"this belongs to {whose}, and the service's user {who} cannot write it"
                raise UsageError(what, path, f"run: sudo {_chown(who, folder)}")


def warn_root(folder: Path) -> str | None:
    """Return a sentence where this runs as root on another user's folder, else None."""
    with contextlib.suppress(OSError):
        owner = folder.stat().st_uid
        if os.geteuid() == 0 != owner:
            who = user_name(owner)
            return (
                f"this runs as root, and {who} could not open what it writes to {folder}; "
                f"run it as {who}, or afterwards: {_chown(who, folder)}"
            )
    return None


def user_name(number: int) -> str:
    """Return a user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _chown(who: str, folder: Path) -> str:
    group = "" if who.isdigit() else ":"  # the user's own, which a number without a name has not
    return f"chown -R {who}{group} {shlex.quote(str(folder.absolute()))}"


def _written(folder: Path) -> Iterator[Path]:
    """Name what the service must be able to write: folders, and files that are not simply replaced."""
    yield folder
    yield from sorted(folder.glob("events.*"))
    for name in ("models", "reservoir", "crops"):
        if (folder / name).is_dir():
            yield folder / name
    for days in ("*", "*/*", "*/*/*"):
        yield from (folder / "crops").glob(days)
