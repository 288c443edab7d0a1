"""Which bundles are taken: copied first, so that what is verified is what is kept."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from edge_lsla.bundle import open_bundle, trusted_keys
from edge_lsla.errors import BundleError, CompatibilityError, EdgeLslaError
from edge_lsla.slots import folder as files
from edge_lsla.slots.settings import SlotSettings
from edge_lsla.slots.state import SLOTS, Held

CHUNK = 1 << 20
MEGABYTE = 1_000_000
SHOWN_LABELS = 5


def copy_into(folder: int, path: Path, bundle: Path, settings: SlotSettings) -> str:
    """Copy a file into a folder of slots; return its temporary name there.

    Args:
        folder: opened.
        path: of the folder, for messages.
        bundle: nothing is believed of it but its size, which is then also the most that is copied.

    Raises:
        BundleError: it cannot be read, is no regular file, or is too large.
        EdgeLslaError: the disk is full, read-only or fails.
    """
    again = "give a bundle, NAME.lsla"
    try:
        handle = os.open(bundle, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a named pipe would wait for ever
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BundleError(f"bundle cannot be read ({reason})", bundle, again) from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise BundleError("bundle is not a regular file", bundle, again)
    with os.fdopen(handle, "rb") as source:
        if status.st_size > settings.largest_mb * MEGABYTE:
            remedy = "raise largest_mb in the configuration, or put in fewer artifacts"
            raise BundleError(f"bundle is larger than {settings.largest_mb} MB", bundle, remedy)
        needed = status.st_size + settings.spare_disk_mb * MEGABYTE
        if shutil.disk_usage(path).free < needed:
            what = f"fewer than {needed / MEGABYTE:,.0f} MB are free for the new model"
            raise EdgeLslaError(what, path, "free some space")

        def fill(file: BinaryIO) -> None:
            left = status.st_size
            while left > 0 and (chunk := source.read(min(CHUNK, left))):
                file.write(chunk)
                left -= len(chunk)

        try:
            return files.write(folder, "new", fill)
        except OSError as error:
            raise unwritten(path, error) from error


def examine(path: Path, settings: SlotSettings) -> Held:
    """Verify a bundle and return what it is, in the slot that its name says.

    Raises:
        BundleError, CompatibilityError, TrustError, MissingComponentError: see `open_bundle`.
    """
    trusted = trusted_keys(settings.trusted_keys) if settings.require_signature else None
    with open_bundle(path, require_signature=settings.require_signature, trusted=trusted) as bundle:
        slot = path.stem if path.stem in SLOTS else SLOTS[0]
        return Held(slot, bundle.manifest.sha256(), bundle.manifest.name, file_sha256=bundle.file_sha256)


def compare_labels(new: Path, active: Path) -> None:
    """Refuse a bundle that names other classes than the active one; a damaged active one is no measure.

    Raises:
        CompatibilityError: it does.
    """
    try:
        with open_bundle(active) as bundle:
            known = set(bundle.manifest.labels)
    except EdgeLslaError:  # the new one is then the repair
        return
    with open_bundle(new) as bundle:
        other = sorted(known ^ set(bundle.manifest.labels))
    if other:
        shown = ", ".join(other[:SHOWN_LABELS]) + (" …" if len(other) > SHOWN_LABELS else "")
        raise CompatibilityError(
            f"bundle names other classes than the active model ({shown})", new,
            "counts would not be comparable; set allow_other_labels in the configuration if that is wanted",
        )  # fmt: skip


def unwritten(path: Path, error: OSError) -> EdgeLslaError:
    """Return the error of a folder of slots that cannot be written to."""
    remedy = f"{error.strerror or error}; free some space, and see who owns it"
    return EdgeLslaError("cannot write to the folder of models", path, remedy)
