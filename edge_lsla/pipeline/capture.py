"""A thread that reads a source, so that a slow or dead source never holds the consumer."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType

from edge_lsla.pipeline.frames import Frame, Source

JOIN_SECONDS = 1.5


class Capture(ABC):
    """Reads a source in a thread of its own; a context manager and, through `take`, a queue of frames.

    The thread owns the source's reads; leaving the `with` block closes the source, asks the thread to stop and waits at
    most 1.5 s for it. A thread that is still blocked in a dead stream ends by itself when the source's read timeout
    has passed, and frees the stream; the process waits for it, because Python would crash under it.

    Attributes:
        dropped: frames that were read and not taken.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._ended = False
        self._error: BaseException | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._read, name=f"capture {source.name}")

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the thread and close the source; returns within two seconds whatever the source does."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._source.close()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)
        with self._changed:
            self._frames.clear()

    def take(self, timeout: float | None = None) -> Frame | None:
        """Return the next frame, or None when there was none within `timeout` seconds.

        Raises:
            StopIteration: the source is at its end, or was stopped.
            EdgeLslaError: what the source raised, after the frames before it were taken.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._frames:
                if self._error is not None:
                    error, self._error = self._error, None
                    self._ended = True
                    raise error
                if self._ended or self._stopping:
                    raise StopIteration
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    @abstractmethod
    def _put(self, frame: Frame) -> None:
        """Keep a frame; called by the thread, the lock held."""

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self._source:
                with self._changed:
                    if not self._stopping:
                        self._put(frame)
                        self._changed.notify_all()
                    if self._stopping:
                        break
        except BaseException as caught:  # whatever it is, the consumer must learn of it
            error = caught
        with self._changed:
            self._error = None if self._stopping else error
            self._ended = True
            self._changed.notify_all()
