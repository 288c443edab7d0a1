"""How far the device's clock can be trusted: without a battery it wakes in the past and jumps later."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable

JUMP_SECONDS = 2.0
JUMPED_FOR_SECONDS = 3600.0  # how long a jump is spoken of
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)


def kernel_says() -> str:
    """Return "synchronised" or "unsynchronised" as the kernel has it from NTP or PTP, "unknown" where it cannot say."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))  # zeroed: reads only
    except (OSError, AttributeError):
        return "unknown"
    if state < 0:
        return "unknown"
    return "unsynchronised" if state == _UNSYNCHRONISED else "synchronised"


class Clock:
    """Watches the clock; `look` is called every few seconds.

    Attributes:
        jumps: how many were seen.
        jump_seconds: of the last one, forward is positive.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        source: Callable[[], str] = kernel_says,
    ) -> None:
        self._wall, self._steady, self._source = wall, steady, source
        self._offset = wall() - steady()
        self._jumped_at = float("-inf")
        self.jumps = 0
        self.jump_seconds = 0.0

    def look(self) -> str:
        """Return the state: one of `edge_lsla.events.CLOCKS`; "jumped" for an hour after a jump of over two seconds."""
        now = self._steady()
        offset = self._wall() - now
        if abs(offset - self._offset) > JUMP_SECONDS:
            self.jumps += 1
            self.jump_seconds = offset - self._offset
            self._jumped_at = now
        self._offset = offset  # slow drift is no jump
        return "jumped" if now - self._jumped_at < JUMPED_FOR_SECONDS else self._source()


def memory_mb() -> float:
    """Return the process's resident memory in megabytes, 0 where it cannot be read."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, ValueError, IndexError):
        return 0.0
