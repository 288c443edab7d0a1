"""Frames in memory that two processes share, and that vanishes with the last of them however they end.

A slot has one owner at a time, and changes hands by a message over a socket: the capture process fills a slot and names
it, the service copies the frame and gives the slot back. A frame is therefore never seen half written, neither when the
writer is killed in the middle nor on a processor that reorders writes: sending and receiving a message orders them.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import SourceError
from edge_lsla.pipeline.settings import LARGEST_SIDE

SLOTS = 3  # one that is copied, one that waits, one that is written
SLOT_BYTES = LARGEST_SIDE * LARGEST_SIDE * 3  # of addresses: memory is taken by what was written


def create_ring() -> int:
    """Return the file number of a new ring's memory, which has no name and so leaves nothing behind."""
    number = os.memfd_create("edge-lsla-frames", os.MFD_CLOEXEC)
    os.ftruncate(number, SLOTS * SLOT_BYTES)
    return number


class FrameRing:
    """A ring's memory as one process sees it; frames of any size fit, one after another.

    Args:
        number: from `create_ring`, also when it was inherited; it is closed.
    """

    def __init__(self, number: int) -> None:
        try:
            self._memory = mmap.mmap(number, SLOTS * SLOT_BYTES)
        finally:
            os.close(number)

    def write(self, slot: int, pixels: NDArray[np.uint8]) -> None:
        """Put a frame, uint8 [H, W, 3], into a slot.

        Raises:
            SourceError: it is too large.
        """
        if pixels.nbytes > SLOT_BYTES:
            raise SourceError(f"a frame of {pixels.shape[1]}x{pixels.shape[0]} pixels is too large", None, "use less")
        self._view(slot, pixels.shape[0], pixels.shape[1])[:] = pixels

    def read(self, slot: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return a copy of a slot's frame, uint8 [height, width, 3]."""
        pixels: NDArray[np.uint8] = self._view(slot, height, width).copy()
        return pixels

    def _view(self, slot: int, height: int, width: int) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = np.ndarray((height, width, 3), np.uint8, self._memory, slot * SLOT_BYTES)
        return pixels
