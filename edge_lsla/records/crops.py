"""Crops on the disk: one JPEG file an event, in a folder a day (UTC)."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_lsla.errors import UsageError
from edge_lsla.events import Event
from edge_lsla.records import durable

FOLDER = "crops"
BLOCK = 4096  # bytes that the smallest file takes on most disks
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATH = re.compile(rf"{FOLDER}/\d{{4}}/\d\d/\d\d/[A-Za-z0-9_-]{{1,64}}\.jpg")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class CropFolder:
    """The crops below a store's folder; paths are relative to that, with forward slashes.

    Raises:
        UsageError: the folder of the crops is a symbolic link: deleting for room would delete somewhere else.
    """

    def __init__(self, root: Path) -> None:
        if (root / FOLDER).is_symlink():
            raise UsageError("the folder of the crops is a symbolic link", root / FOLDER, "put a real folder there")
        self._root = root
        self._known: set[str] = set()  # days whose folders are there, durably

    def place(self, event: Event) -> str:
        """Return where the event's crop belongs: crops/YYYY/MM/DD/ID.jpg.

        Raises:
            UsageError: the event's identifier is no file name.
        """
        if not _ID.fullmatch(event.id):
            raise UsageError("an event's identifier has letters, digits, - and _, at most 64", event.id, "report this")
        return f"{self.day(event.time)}/{event.id}.jpg"

    @staticmethod
    def day(when: float) -> str:
        """Return the folder of a moment's day, given in seconds since the epoch."""
        try:
            day = _EPOCH + datetime.timedelta(seconds=when)
        except OverflowError:
            day = _EPOCH
        return f"{FOLDER}/{day.year:04}/{day.month:02}/{day.day:02}"

    def make_day(self, day: str) -> None:
        """Make a day's folder, durably."""
        if day not in self._known:
            self._make(day)

    def _make(self, day: str) -> None:
        durable.make_folders(self._root, self._root / day)
        if not self._inside(day):
            raise OSError(errno.ELOOP, "a folder of the crops is a symbolic link", str(self._root / day))
        self._known.add(day)

    def _inside(self, day: str) -> bool:
        """Whether a day's folder is ours, and no link to somewhere else, where nothing may be deleted."""
        return (self._root / day).resolve() == self._root.resolve() / day

    def write(self, crops: Sequence[tuple[str, bytes]]) -> dict[str, str]:
        """Write crops durably; return why, for each that could not be."""
        failed: dict[str, str] = {}
        written: dict[str, int] = {}
        for place, data in crops:
            try:
                written[place] = self._create(place, data)
            except OSError as error:
                failed[place] = _why(error)
        try:
            names = {day: durable.FolderSync(self._root / day) for day in sorted({day_of(place) for place in written})}
            for place, handle in written.items():
                try:
                    durable.sync_file(handle)
                except OSError as error:
                    failed[place] = _why(error)
                    with contextlib.suppress(OSError):
                        (self._root / place).unlink()
            for day, sync in names.items():
                if (lost := sync.result()) is not None:
                    failed |= {place: _why(lost) for place in written if day_of(place) == day}
        finally:
            for handle in written.values():
                os.close(handle)
        return failed

    def _create(self, place: str, data: bytes) -> int:
        day = day_of(place)
        self.make_day(day)
        try:
            return durable.create_file(self._root / place, data)
        except FileNotFoundError:  # somebody removed the folder
            self._make(day)
            return durable.create_file(self._root / place, data)

    def read(self, place: str) -> bytes | None:
        """Return a crop; None where it is gone or the path is none of ours."""
        if not _PATH.fullmatch(place):
            return None
        try:
            handle = os.open(self._root / place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(handle, "rb") as file:
            return file.read()

    def remove(self, places: Sequence[str]) -> None:
        """Remove crops durably, and the folders that they leave empty."""
        ours = [place for place in places if _PATH.fullmatch(place)]
        days = {day for day in map(day_of, ours) if self._inside(day)}
        ours = [place for place in ours if day_of(place) in days]
        durable.remove_files(self._root / place for place in ours)
        for day in sorted(days):
            self._known.discard(day)
            folder = self._root / day
            with contextlib.suppress(OSError):  # not empty, mostly
                while folder != self._root / FOLDER:
                    folder.rmdir()
                    folder = folder.parent

    def of_day(self, day: str) -> Iterator[str]:
        """Yield the paths of all files in a day's folder."""
        if not self._inside(day):
            return
        with contextlib.suppress(OSError), os.scandir(self._root / day) as entries:
            for entry in entries:
                yield f"{day}/{entry.name}"

    def days(self) -> Iterator[str]:
        """Yield the folders of all days."""
        for folder in sorted(self._root.glob(f"{FOLDER}/[0-9]*/[0-9]*/[0-9]*")):
            yield folder.relative_to(self._root).as_posix()


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def day_of(place: str) -> str:
    """Return a crop's folder."""
    return place.rpartition("/")[0]


def on_disk(size: int) -> int:
    """Return the bytes that a file of `size` takes."""
    return -(-size // BLOCK) * BLOCK
