"""A folder of pictures as a recording: a picture a frame, in the order of their names."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from edge_lsla.errors import ImageError, SourceError
from edge_lsla.pipeline.address import Address
from edge_lsla.pipeline.frames import Frame, Source
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.preprocessing import find_pictures, open_picture


class FolderSource(Source):
    """Gives every picture once; one that cannot be read is left out, and shows as a gap in the sequence numbers.

    Raises:
        SourceError: there is no picture in the folder, or, at its end, none of them could be read.
    """

    live = False

    def __init__(self, address: Address, settings: SourceSettings) -> None:
        self.name = address.name
        self.rate = settings.rate or 1.0
        try:
            self._paths = find_pictures(Path(address.target))
        except ImageError as error:
            raise SourceError(error.what, self.name, error.remedy) from error
        if not self._paths:
            raise SourceError("no picture in the folder", self.name, "give a folder of pictures or a video")
        self._next = 0
        self._unreadable: ImageError | None = None
        self._given = 0
        self._closed = threading.Event()
        self._first = self._read()
        self.size = (0, 0) if self._first is None else (self._first.pixels.shape[1], self._first.pixels.shape[0])

    def __next__(self) -> Frame:
        frame, self._first = self._first, None
        frame = frame or self._read()
        if frame is None or self._closed.is_set():
            if self._given == 0 and self._unreadable is not None and not self._closed.is_set():
                raise SourceError("no picture of the folder can be read", self.name, str(self._unreadable))
            raise StopIteration
        return frame

    def close(self) -> None:
        """End the iteration."""
        self._closed.set()

    def _read(self) -> Frame | None:
        while self._next < len(self._paths) and not self._closed.is_set():
            number, self._next = self._next, self._next + 1
            try:
                pixels = np.array(open_picture(self._paths[number]), np.uint8)
            except ImageError as error:
                self._unreadable = error
                continue
            self._given += 1
            return Frame(pixels, number / self.rate, number, self.name, self.live)
        return None
