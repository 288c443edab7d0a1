"""Counts on scenes whose truth is known; `python -m benchmarks.finding` shows all of them, with the demo model too."""

import dataclasses

import pytest

from benchmarks.finding_scenes import Case, Outcome, easy_cases, play

CASES = {case.name: case for case in easy_cases()}
SHORT = (
    "crossing paths",
    "side by side",
    "comes in, turns and leaves, twice",
    "is there at the start and leaves",
    "nobody, the camera trembles",
    "5 frames a second",
    "small ones, 20 px",
)


def check(case: Case) -> Outcome:
    outcome = play(case)
    assert (len(outcome.arrived), outcome.twice, outcome.false) == (case.truth, 0, 0)
    assert outcome.labels_right == case.truth
    assert len(outcome.left) + len(outcome.live) == case.truth
    return outcome


@pytest.mark.parametrize("name", SHORT)
def test_everybody_is_counted_once(name: str) -> None:
    check(CASES[name])


def test_who_sits_for_a_minute_is_counted_once() -> None:
    check(dataclasses.replace(CASES["sits for a minute"], rate=4))


def test_a_switched_light_is_noticed_and_nobody_is_counted_for_it() -> None:
    assert check(CASES["the light is switched"]).full_frame_changes == 1
