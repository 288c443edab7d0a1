"""Stages are restarted when they raise or hang, and given up when they do so too often."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from edge_lsla.errors import UsageError
from edge_lsla.service.stages import Pulse, StageError, Stages, StageSettings


def wait_until(condition: Callable[[], bool], stages: Stages | None = None, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        if stages is not None:
            stages.check()
        time.sleep(0.005)


def test_a_stage_that_raises_is_started_again() -> None:
    starts: list[int] = []

    def body(pulse: Pulse) -> None:
        starts.append(1)
        if len(starts) < 3:
            raise ValueError("broken")
        pulse.wait(60)

    stages = Stages(StageSettings())
    stages.start("one", body)
    wait_until(lambda: len(starts) == 3, stages)
    assert stages.restarts == 2
    assert stages.problems == ("stage one was restarted: ValueError: broken",)
    assert stages.stop() == ()


def test_too_many_failures_end_the_service() -> None:
    def body(pulse: Pulse) -> None:
        raise RuntimeError("always")

    stages = Stages(StageSettings(restarts_per_minute=3))
    stages.start("one", body)
    with pytest.raises(StageError, match=r"failed 4 times within a minute, last: RuntimeError: always: one"):
        wait_until(lambda: False, stages)
    assert stages.restarts == 4
    stages.stop()


def test_a_stage_that_hangs_is_left_behind() -> None:
    starts: list[Pulse] = []
    release = threading.Event()

    def body(pulse: Pulse) -> None:
        starts.append(pulse)
        if len(starts) == 1:
            release.wait(60)  # shows no progress and asks for none
            return
        while not pulse.wait(0.01):
            pass

    stages = Stages(StageSettings(hang_seconds=0.2))
    stages.start("one", body)
    wait_until(lambda: len(starts) == 2, stages)
    assert starts[0].stopping
    assert not starts[1].stopping
    assert "showed no progress" in stages.problems[0]
    release.set()  # the one left behind ends, which concerns nobody
    assert stages.finished == frozenset()
    stages.check()
    assert stages.stop() == ()


def test_a_stage_that_returns_has_finished() -> None:
    stages = Stages(StageSettings(hang_seconds=0.05))
    stages.start("one", lambda pulse: None)
    wait_until(lambda: "one" in stages.finished)
    time.sleep(0.1)
    stages.check()
    assert stages.restarts == 0
    assert stages.stop() == ()


def test_a_stop_names_who_does_not_end() -> None:
    release = threading.Event()
    stages = Stages(StageSettings(stop_seconds=0.1))
    stages.start("deaf", lambda pulse: bool(release.wait(60)) and None)
    stages.start("fine", lambda pulse: bool(pulse.wait(60)) and None)
    assert stages.stop() == ("deaf",)
    release.set()


@pytest.mark.parametrize(
    "wrong", [{"restarts_per_minute": -1}, {"hang_seconds": 0}, {"stop_seconds": float("nan")}], ids=str
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        StageSettings(**wrong)  # type: ignore[arg-type]


def test_stages_that_hang_again_and_again_end_the_service() -> None:
    release = threading.Event()
    stages = Stages(StageSettings(restarts_per_minute=1000, hang_seconds=0.05))

    def hang(pulse: Pulse) -> None:
        release.wait(60)

    def watch() -> None:
        for _ in range(200):
            time.sleep(0.05)
            stages.check()

    stages.start("engine", hang)
    try:
        with pytest.raises(StageError, match="hang again and again, 4 times"):
            watch()
    finally:
        release.set()
        stages.stop()
