"""Every frame of a recording, decoded while the model works on those before."""

from __future__ import annotations

from edge_lsla.errors import UsageError
from edge_lsla.pipeline.capture import Capture
from edge_lsla.pipeline.frames import Frame, Source


class EveryFrame(Capture):
    """A capture thread that waits while `ahead` frames have not been taken; nothing is dropped."""

    def __init__(self, source: Source, ahead: int = 4) -> None:
        if ahead < 1:
            raise UsageError("at least one frame is read ahead", "ahead", "correct it")
        super().__init__(source)
        self._ahead = ahead

    def _put(self, frame: Frame) -> None:
        while len(self._frames) >= self._ahead and not self._stopping:
            self._changed.wait()
        if not self._stopping:
            self._frames.append(frame)
