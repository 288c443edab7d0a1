"""Frames that came from a capture process and wait to be taken: of a live source the newest, of a recording all."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from edge_lsla.pipeline.capture_link import CaptureLink
from edge_lsla.pipeline.frames import Frame

RATE_WINDOW = 60  # frames over which the rate is taken
RATE_SECONDS = 5.0  # without a frame, after which the rate is 0


@dataclass(frozen=True, eq=False)
class Arrived:
    """A frame that lies in a slot of its capture process's ring.

    Attributes:
        link: the capture process; its ring stays readable after it has ended.
        said: what it said of the frame.
        sequence: the frame's number over everything that the camera gave.
    """

    link: CaptureLink
    said: dict[str, Any]
    sequence: int

    def give_back(self) -> None:
        """Let the capture process use the slot again."""
        self.link.tell("free", slot=self.said["slot"])


class Arrivals:
    """Where the camera's thread leaves frames, and its end, for those who take them.

    Attributes:
        taken, dropped: frames that were taken; frames that were not, because a newer one came.
        watching, since: whether frames come, and since when, seconds since the epoch.
        ended: why there will be no more; None while there may.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[Arrived] = deque()
        self._times: deque[float] = deque(maxlen=RATE_WINDOW)
        self._error: BaseException | None = None
        self._woken = False
        self.ended: str | None = None
        self.taken = self.dropped = 0
        self.watching, self.since = False, time.time()

    def put(self, one: Arrived, live: bool) -> None:
        """Add a frame; of a live source it replaces the one that waits."""
        with self._changed:
            if self.ended is not None:  # stopped just now
                return
            self._watch(True)
            self._times.append(one.said["captured"])
            self.dropped += one.said["dropped"]
            if live:
                self.dropped += self._clear()
            self._waiting.append(one)
            self._changed.notify_all()

    def interrupted(self, forget: bool = False) -> None:
        """No frame comes for now.

        Args:
            forget: whether the one that waits will be too old once it is taken.
        """
        with self._changed:
            self._watch(False)
            if forget:
                self._clear()

    def end(self, reason: str) -> None:
        """Say that no frame will come any more; those that wait can still be taken."""
        with self._changed:
            self.ended = self.ended or reason
            self._watch(False)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Say what whoever takes frames must learn of, after those that wait."""
        with self._changed:
            self._error = error
            self._watch(False)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let `take` return, now or when it is called next, also without a frame."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def take(self, timeout: float) -> Frame | None:
        """Return a frame, or None when none came within `timeout` seconds or `wake` was called.

        Raises:
            StopIteration: there will be none.
            BaseException: what `fail` was given.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._waiting:
                if self._error is not None:
                    raise self._error
                if self.ended is not None:
                    raise StopIteration
                left = deadline - time.monotonic()
                if left <= 0 or self._woken:
                    self._woken = False
                    return None
                self._changed.wait(left)
            one = self._waiting.popleft()
            self.taken += 1
        said = one.said
        pixels = one.link.ring.read(said["slot"], said["height"], said["width"])
        one.give_back()
        return Frame(pixels, said["time"], one.sequence, self._name, said["live"], said["captured"])

    @property
    def fps(self) -> float:
        """Frames a second that come, over the last 60; 0 when none came for five seconds."""
        times = list(self._times)
        if len(times) < 2 or time.monotonic() - times[-1] > RATE_SECONDS:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-6)

    def _clear(self) -> int:
        count = len(self._waiting)
        while self._waiting:
            self._waiting.popleft().give_back()
        return count

    def _watch(self, watching: bool) -> None:
        if watching != self.watching:
            self.watching, self.since = watching, time.time()
            self._times.clear()
