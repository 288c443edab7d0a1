"""When a camera should have watched and did not, told once at the beginning and once at the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from edge_lsla.events import Gap

MOST_STEPS = 100  # that are named; of a camera that stays away for days, the last


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
        self._open: tuple[float, float, str] | None = None
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
            self._open = (*self._seen, reason)
            self._steps.clear()
            self.count += 1
            self._on_gap(Gap(self._name, self._open[1], None, reason))

    def tried(self, step: str) -> None:
        """Something is tried to end the gap."""
        self._steps.append(step)

    def end(self, now: float) -> None:
        """Close the gap that is open, if one is; see `seen` for the argument."""
        if self._open is not None:
            (steady, began, reason), self._open = self._open, None
            self._on_gap(Gap(self._name, began, _epoch(now), reason, tuple(self._steps), max(0.0, now - steady)))


def _epoch(steady: float) -> float:
    """Return seconds since the epoch for a moment of the steady clock that has just been."""
    return time.time() - (time.monotonic() - steady)
