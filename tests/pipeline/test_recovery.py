import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge_lsla.errors import UsageError
from edge_lsla.events import Gap
from edge_lsla.pipeline.gaps import MOST_STEPS, TOLD_SECONDS, Gaps
from edge_lsla.pipeline.recovery import HOUR, Recovery, SupervisionSettings, run_resets

STEPS = SupervisionSettings(reopens=2, processes=2, resets_per_hour=1)


def test_steps_escalate_to_the_budget() -> None:
    recovery = Recovery(STEPS)
    tried = [recovery.failed(process_usable=True, now=0).name for _ in range(19)]
    round_ = ["reopen", "reopen", "new process", "reopen", "reopen", "new process", "reopen", "reopen"]
    assert tried == [*round_, "reset", *round_, "restart", "reopen"]
    assert recovery.attempts == 19


def test_a_dead_process_is_never_asked_to_reopen() -> None:
    recovery = Recovery(STEPS)
    tried = [recovery.failed(process_usable=False, now=0).name for _ in range(6)]
    assert tried == ["new process", "new process", "reset", "new process", "new process", "restart"]


def test_a_camera_that_is_well_again_starts_anew_and_the_budget_stays_spent_for_an_hour() -> None:
    recovery = Recovery(SupervisionSettings(reopens=1, processes=0, resets_per_hour=1))
    assert [recovery.failed(True, now).name for now in (0.0, 1.0)] == ["reopen", "reset"]
    recovery.settled()
    assert recovery.attempts == 0
    assert [recovery.failed(True, now).name for now in (2.0, HOUR)] == ["reopen", "restart"]
    recovery.settled()
    assert [recovery.failed(True, now).name for now in (HOUR, HOUR + 1.5)] == ["reopen", "reset"]


def test_pauses_double_up_to_the_longest_and_are_shortened_at_random() -> None:
    settings = SupervisionSettings(reopens=1000, first_pause_seconds=1, longest_pause_seconds=8)
    pauses: list[list[float]] = []
    for _ in range(50):
        recovery = Recovery(settings)
        pauses.append([recovery.failed(True, 0).pause for _ in range(6)])
    for column, whole in zip(zip(*pauses), (1, 2, 4, 8, 8, 8)):
        assert all(whole / 2 <= pause <= whole for pause in column)
        assert len(set(column)) > 25


def test_a_pause_stays_finite_after_very_many_tries() -> None:
    recovery = Recovery(SupervisionSettings(reopens=1000, resets_per_hour=1000))
    assert all(recovery.failed(True, 0).pause <= 30 for _ in range(3000))


@pytest.mark.parametrize(
    "field",
    [
        {"reopens": -1},
        {"processes": 1001},
        {"resets_per_hour": -1},
        {"first_pause_seconds": 0},
        {"longest_pause_seconds": float("nan")},
        {"stall_seconds": 1e9},
        {"heartbeat_seconds": 0.2},
        {"frozen_seconds": 0},
        {"reset_timeout_seconds": -3},
        {"reset_commands": ((),)},
        {"reset_commands": ("reboot",)},
        {"reset_commands": (("a\0b",),)},
        {"reset_commands": (("", "x"),)},
    ],
)
def test_settings_name_the_field(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        SupervisionSettings(**field)


def test_reset_commands_run_in_order_without_a_shell_and_their_failures_are_told(tmp_path: Path) -> None:
    write = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    out = str(tmp_path / "out")
    settings = SupervisionSettings(
        reset_commands=(
            (sys.executable, "-c", write, out, "one;"),
            (sys.executable, "-c", "raise SystemExit(3)", "secret"),
            ("/no/such/usbreset", "secret"),
            (sys.executable, "-c", write, out, "$(touch pwned)"),
        )
    )
    wrong = run_resets(settings, threading.Event())
    assert Path(out).read_text() == "one;$(touch pwned)"
    ended, missing = wrong
    assert ended == f"{Path(sys.executable).name} ended with 3"
    assert missing == "usbreset cannot be started (No such file or directory)"


def test_a_reset_command_that_hangs_is_ended_with_what_it_started() -> None:
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    slow = SupervisionSettings(reset_commands=(command,), reset_timeout_seconds=0.3)
    begin = time.monotonic()
    assert run_resets(slow, threading.Event()) == [f"{Path(sys.executable).name} took longer than 0.3 s"]
    assert time.monotonic() - begin < 10
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    settings = SupervisionSettings(reset_commands=(command, command))
    assert run_resets(settings, stop) == [f"{Path(sys.executable).name} was interrupted"]
    assert time.monotonic() - begin < 20
    timer.join()


def test_a_gap_is_told_once_when_it_begins_and_once_when_it_ends() -> None:
    told: list[Gap] = []
    gaps = Gaps("trap-1", told.append)
    steady, epoch = time.monotonic(), time.time()
    gaps.seen(steady - 10)
    gaps.begin("it went")
    gaps.begin("it is still gone")
    gaps.tried("reopen")
    gaps.tried("new process")
    gaps.seen(steady)
    gaps.seen(steady + 1)
    gaps.end(steady + 2)
    assert len(told) == 2
    assert (told[0].ended, told[0].steps, told[0].reason) == (None, (), "it went")
    assert (told[1].steps, told[1].reason) == (("reopen", "new process"), "it went")
    assert told[1].seconds == pytest.approx(10)
    assert told[0].began == told[1].began == pytest.approx(epoch - 10, abs=1)
    assert told[1].ended == pytest.approx(epoch, abs=1)
    assert gaps.count == 1


def test_a_gap_that_lasts_is_told_with_how_long_so_far() -> None:
    told: list[Gap] = []
    gaps = Gaps("trap-1", told.append)
    now = time.monotonic()
    gaps.seen(now - 5)
    gaps.lasts(now + 100)
    gaps.begin("it went")
    gaps.tried("reopen")
    for later in (1, TOLD_SECONDS + 1, TOLD_SECONDS + 2, 2 * TOLD_SECONDS + 1):
        gaps.lasts(now + later)
    assert [(gap.ended, gap.began) for gap in told] == [(None, told[0].began)] * 3
    assert [gap.seconds for gap in told] == pytest.approx([0, TOLD_SECONDS + 6, 2 * TOLD_SECONDS + 6])
    assert (told[2].reason, told[2].steps) == ("it went", ("reopen",))


def test_a_gap_of_days_names_its_last_steps() -> None:
    told: list[Gap] = []
    gaps = Gaps("trap-1", told.append)
    gaps.begin("it went")
    for number in range(MOST_STEPS + 5):
        gaps.tried(str(number))
    gaps.end(time.monotonic())
    assert told[1].steps == tuple(str(number) for number in range(5, MOST_STEPS + 5))
