"""The newest frame of a live source, and how many were dropped for it."""

from __future__ import annotations

from edge_lsla.pipeline.capture import Capture
from edge_lsla.pipeline.frames import Frame


class NewestFrame(Capture):
    """A capture thread with room for one frame: a newer one replaces it, and `dropped` counts the replaced."""

    def _put(self, frame: Frame) -> None:
        if self._frames:
            self._frames.clear()
            self.dropped += 1
        self._frames.append(frame)
