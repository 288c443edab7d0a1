"""The clock's state: the kernel's word, and jumps that it does not tell of."""

from __future__ import annotations

from edge_lsla.events import CLOCKS
from edge_lsla.service.clock import Clock, kernel_says, memory_mb


class Times:
    """Two clocks that a test sets."""

    wall, steady = 1_700_000_000.0, 50.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


def test_the_kernel_is_asked() -> None:
    assert kernel_says() in CLOCKS


def test_memory_is_that_of_this_process() -> None:
    assert 10 < memory_mb() < 100_000


def test_a_jump_is_told_for_an_hour() -> None:
    times = Times()
    clock = Clock(lambda: times.wall, lambda: times.steady, lambda: "synchronised")
    assert clock.look() == "synchronised"
    for day in (86400, -86400):
        times.pass_(5)
        times.wall += day
        assert clock.look() == "jumped"
        assert clock.jump_seconds == day
    assert clock.jumps == 2
    times.pass_(3590)
    assert clock.look() == "jumped"
    times.pass_(20)
    assert clock.look() == "synchronised"


def test_slow_drift_is_no_jump() -> None:
    times = Times()
    clock = Clock(lambda: times.wall, lambda: times.steady, lambda: "unsynchronised")
    for _ in range(100):
        times.pass_(5)
        times.wall += 0.5
        assert clock.look() == "unsynchronised"
    assert clock.jumps == 0
