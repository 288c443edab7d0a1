"""Passwords and tokens, from files or the environment, never shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edge_lsla.delivery.sender import DeliveryError
from edge_lsla.reading import read_regular

LARGEST_BYTES = 65536


def read_secret(file: Path | None, variable: str | None, field: str) -> str | None:
    """Return the secret in a file or an environment variable, without line ends; None where neither is named.

    It is read at each use, so that a renewed secret needs no restart.

    Raises:
        DeliveryError: it cannot be read, is empty, or is no line of text; the message never has the secret.
    """
    if file is not None:
        where: object = file
        try:
            data = read_regular(file, LARGEST_BYTES + 1)
        except OSError as error:
            raise DeliveryError(f"cannot read {field}_file ({error.strerror})", file, "correct it") from error
    elif variable is not None:
        where = f"environment variable {variable}"
        data = os.environb.get(os.fsencode(variable), b"")
    else:
        return None
    try:
        text = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    # An error of the library that took a secret with a line end would quote it.
    if not text.isprintable() or not text or len(data) > LARGEST_BYTES:
        raise DeliveryError(f"the {field} is empty or not one line of text", where, "write it there") from None
    return text


def exposed(file: Path | None) -> str | None:
    """Return a warning where everybody on this machine may read a secret file, else None."""
    try:
        if file is None or not stat.S_IMODE(file.stat().st_mode) & stat.S_IROTH:
            return None
    except (OSError, ValueError):
        return None  # reading it will say so
    return f"every user of this machine can read the secret: {file}; run chmod 600 on it"
