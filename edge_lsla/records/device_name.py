"""The device's name, in a small file beside the records: it travels with them, and exports have it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from edge_lsla.atomic import write_text
from edge_lsla.errors import EdgeLslaError
from edge_lsla.reading import read_regular

FILE = "device.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # a device's, and a camera's
LARGEST_BYTES = 4096

log = logging.getLogger(__name__)


def keep_device(folder: Path, name: str) -> None:
    """Write the name into the records' folder; a disk that cannot be written to is logged, and no reason to stop."""
    if (folder / FILE).is_symlink():
        log.warning("exports will lack the device's name: %s is a symbolic link, remove it", folder / FILE)
    elif read_device(folder) != name:
        try:
            write_text(folder / FILE, json.dumps({"device": name}) + "\n")
        except EdgeLslaError as error:
            log.warning("exports will lack the device's name: %s", error)


def read_device(folder: Path) -> str | None:
    """Return the name that the folder's records were last made under; None where it is not known."""
    try:
        values = json.loads(read_regular(folder / FILE, LARGEST_BYTES))
        name = values["device"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) and name else None
