"""When a camera should have watched and did not, told at the beginning, at the end, and how long so far meanwhile."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from edge_lsla.events import Gap

MOST_STEPS = 100  # that are named; of a camera that stays away for days, the last
TOLD_SECONDS = 10.0  # how often an open gap is told again: what is exported meanwhile is that much too short at most


class Gaps:
    """Keeps the camera's last sign of life, and the gap that is open.

    Args:
        name: the camera's.
        on_gap: told of every gap, see `Gap`.

    Attributes:
        count: gaps that began.
    """

    def __init__(self, name: str, on_gap: Callable[[Gap], None]) -> None:
        self._name, self._on_gap = name, on_gap
        self._seen = (time.monotonic(), time.time())
        self._open: tuple[float, float] | None = None
        self._reason, self._told = "", 0.0
        self._steps: deque[str] = deque(maxlen=MOST_STEPS)
        self.count = 0

    def seen(self, captured: float) -> None:
        """A frame came, or there was nothing to watch until now; a gap that was open ends.

        Args:
            captured: seconds of the steady clock.
        """
        self.end(captured)
        self._seen = (captured, _epoch(captured))

    def begin(self, reason: str) -> None:
        """The camera is lost; it was last seen with its last frame. Once a gap is open, nothing happens."""
        if self._open is None:
            self._reason = reason
            self._open, self._told = self._seen, time.monotonic()
            self._steps.clear()
            self.count += 1
            self._on_gap(Gap(self._name, self._open[1], None, reason))

    def lasts(self, now: float) -> None:
        """Tell a gap that is open again, now and then, with how long it has lasted; see `seen` for the argument."""
        if self._open is not None and now - self._told >= TOLD_SECONDS:
            (steady, began), self._told = self._open, now
            self._on_gap(Gap(self._name, began, None, self._reason, tuple(self._steps), max(0.0, now - steady)))

    def tried(self, step: str) -> None:
        """Something is tried to end the gap."""
        self._steps.append(step)

    def end(self, now: float, unwatched: str | None = None) -> None:
        """Close the gap that is open, if one is.

        Args:
            now: seconds of the steady clock.
            unwatched: why nobody watches from now on, one of `events.UNWATCHED`: it becomes the gap's last step. None
                where the camera is back.
        """
        if self._open is not None:
            if unwatched is not None:
                self._steps.append(unwatched)
            (steady, began), self._open = self._open, None
            seconds = max(0.0, now - steady)
            self._on_gap(Gap(self._name, began, _epoch(now), self._reason, tuple(self._steps), seconds))


def _epoch(steady: float) -> float:
    """Return seconds since the epoch for a moment of the steady clock that has just been."""
    return time.time() - (time.monotonic() - steady)
