"""Small text files that may be anything: read whole, bounded, and never from a pipe or device."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from edge_lsla.errors import InputError

LARGEST_BYTES = 64 * 2**20  # a class list or a ranges file is far below


def read_regular(path: Path, most: int) -> bytes:
    """Read at most so many bytes of a regular file; a pipe or a device is refused instead of waited for.

    Raises:
        OSError: it cannot be read, or is no regular file; `strerror` says so.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return file.read(most)
    except ValueError:  # a NUL in the name
        raise OSError(errno.EINVAL, "not a file name") from None


def read_text(path: Path, kind: str, error_class: type[InputError]) -> str:
    """Read a UTF-8 text file.

    Args:
        kind: what the file is, for messages, such as "class list".
        error_class: raised for whatever is wrong.
    """
    try:
        if path.exists() and not path.is_file():
            raise error_class(f"{kind} is not a regular file", path, "give a file")
        if path.stat().st_size > LARGEST_BYTES:
            raise error_class(f"{kind} is larger than {LARGEST_BYTES // 2**20} MB", path, "give the right file")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise error_class(f"{kind} cannot be read", path, error.strerror or "check the path") from error
    except UnicodeDecodeError as error:
        raise error_class(f"{kind} is not UTF-8 text", path, "save it as UTF-8") from error


def read_json(path: Path, kind: str, error_class: type[InputError]) -> Any:
    """Read a JSON file; see `read_text`."""
    try:
        return json.loads(read_text(path, kind, error_class))
    except (ValueError, RecursionError) as error:
        raise error_class(f"{kind} is not JSON", path, f"correct it ({str(error)[:100]})") from error
