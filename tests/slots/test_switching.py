"""Real models, tried and switched to under load: nothing is lost, and what is bad is given up by itself."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slot_parts import QUICK, Feed, Opened, Opener, Told, until

from edge_lsla.errors import BundleError, UsageError
from edge_lsla.slots.comparison import Windows, too_slow
from edge_lsla.slots.settings import SlotSettings
from edge_lsla.slots.slots import Slots
from edge_lsla.slots.switching import SwitchingModel

CROPS = list(np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8))


@pytest.fixture
def slots(tmp_path: Path, first: Path) -> Slots:
    slots = Slots(tmp_path / "models", QUICK)
    slots.install(first)
    return slots


def changed(slots: Slots, **changes: Any) -> Slots:
    return Slots(slots.path, dataclasses.replace(slots.settings, **changes))


class Running:
    """A switching model with load on it, ended at the end of the block."""

    def __init__(self, slots: Slots, opener: Opener | None = None, threads: int = 1, pause: float = 0.001) -> None:
        self.told, self.opener = Told(), opener or Opener()
        self.model = SwitchingModel(slots, self.opener, self.told)
        self.feed = Feed(self.model.answer, threads, pause)

    def __enter__(self) -> Running:
        self.model.start()
        self.feed.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.feed.__exit__()
        self.model.stop()
        assert all(opened.closed for opened in self.opener.opened)
        assert not [thread for thread in threading.enumerate() if thread.name == "models"]


def test_a_good_model_is_switched_to_and_promoted_without_a_lost_batch(slots: Slots, second: Path) -> None:
    with Running(slots, threads=3) as running:
        old = running.model.digest
        slots.install(second)
        promoted = running.told.wait("promoted")
        new = running.model.digest
        until(lambda: running.model.describe()["history"][0]["what"] == "promoted")
        newest = running.model.describe()["history"]
    assert [(one["what"], one["name"], one["precision"]) for one in newest[:3]] == [
        *(("promoted", "second", "fp32"), ("switched", "second", "fp32"), ("installed", "second", "")),
    ]
    assert newest[0]["digest"] == promoted.held.digest
    assert running.feed.errors == []
    assert set(running.feed.answers) == {old, new}
    assert (running.model.name, promoted.held.name) == ("second", "second")
    assert [outcome.what for outcome in running.told.outcomes] == ["switched", "promoted"]
    switched = running.told.outcomes[0]
    assert switched.figures["agreement"] == 1.0  # it is the same network
    assert switched.figures["batches"] >= QUICK.shadow_batches
    assert "100.0%" in switched.reason
    state = slots.state()
    assert (state.active.name, state.previous.name, state.state) == ("second", "first", "steady")
    assert [entry.what for entry in state.history][-2:] == ["switched", "promoted"]


def test_a_state_that_lacks_the_precision_gets_it_from_the_service(slots: Slots) -> None:
    before = slots.state()
    assert before.active.precision == ""
    with Running(slots) as running:
        after = slots.state()
    assert (after.active.precision, after.history) == ("fp32", before.history)
    assert after.active.artifact_sha256 == running.opener.last("first").digest


def test_one_thread_sees_the_new_model_from_one_call_on(slots: Slots, second: Path) -> None:
    with Running(slots) as running:
        old = running.model.digest
        slots.install(second)
        running.told.wait("promoted")
    answers = running.feed.answers
    assert answers == [old] * answers.count(old) + [running.model.digest] * (len(answers) - answers.count(old))


def test_a_failing_golden_set_is_refused_in_the_service(slots: Slots, failing: Path) -> None:
    with Running(slots) as running:
        slots.install(failing)
        refused = running.told.wait("refused")
    assert "self-test failed, logits differ by 3" in refused.reason
    assert set(running.feed.answers) == {running.model.digest}
    state = slots.state()
    assert (state.active.name, state.candidate) == ("first", None)
    assert state.history[-1].reason == refused.reason


def test_a_model_that_raises_in_shadow_is_refused(slots: Slots, second: Path) -> None:
    def breaks(model: Opened) -> None:
        model.raises = RuntimeError("out of device memory")

    with Running(slots, Opener(second=breaks)) as running:
        slots.install(second)
        refused = running.told.wait("refused")
    assert "failed on 1 of 1 batches" in refused.reason
    assert "out of device memory" in refused.reason
    assert running.feed.errors == []


@pytest.mark.parametrize("limit", [{"latency_ratio": 2.0}, {"latency_limit_ms": 40.0}], ids=["relative", "absolute"])
def test_a_slow_model_is_refused(slots: Slots, second: Path, limit: dict[str, float]) -> None:
    def slow(model: Opened) -> None:
        model.delay = 0.5  # the tiny model takes some milliseconds, many on a busy machine

    with Running(changed(slots, **limit), Opener(second=slow)) as running:
        slots.install(second)
        refused = running.told.wait("refused")
    assert ("ms (95th percentile of " if "latency_limit_ms" in limit else "ms (median of ") in refused.reason
    assert refused.figures["p95_ms"] >= 500
    assert refused.figures["known_p95_ms"] < 250


def test_a_model_that_disagrees_is_refused_where_a_limit_says_so(slots: Slots, second: Path) -> None:
    class Contrary(Opener):
        def __call__(self, path: Path) -> Opened:
            model = super().__call__(path)
            if model.name == "second":
                real = model.classify
                rename = lambda answer: (dataclasses.replace(answer[0], label="other"),)  # noqa: E731
                model.classify = lambda crops: [rename(answer) for answer in real(crops)]  # type: ignore[method-assign]
            return model

    with Running(changed(slots, agreement_limit=0.5), Contrary()) as running:
        slots.install(second)
        refused = running.told.wait("refused")
    assert "names the same class for 0.0% of the crops" in refused.reason


def test_a_live_error_on_probation_rolls_back_and_the_batch_is_answered(slots: Slots, second: Path) -> None:
    with Running(changed(slots, probation_seconds=3600), threads=2) as running:
        old = running.model.digest
        slots.install(second)
        running.told.wait("switched")
        running.opener.last("second").raises = RuntimeError("the GPU fell off the bus")
        back = running.told.wait("rolled back")
        assert running.model.digest == old
    assert running.feed.errors == []  # the batch on which it raised too was answered
    assert "the GPU fell off the bus" in back.reason
    state = slots.state()
    assert (state.active.name, state.previous, state.state) == ("first", None, "steady")
    assert state.history[-1].what == "rolled back"


def test_slowness_on_probation_rolls_back(slots: Slots, second: Path) -> None:
    with Running(changed(slots, probation_seconds=3600, latency_limit_ms=250.0)) as running:
        slots.install(second)
        running.told.wait("switched")
        running.opener.last("second").delay = 0.4
        back = running.told.wait("rolled back", 60)
    assert "ms (95th percentile of " in back.reason
    assert "more than 250 ms" in back.reason
    assert "in two windows in a row" in back.reason
    assert running.feed.errors == []
    assert slots.state().active.name == "first"


def test_slowness_beside_the_model_before_rolls_back(slots: Slots, second: Path) -> None:
    long = changed(slots, probation_seconds=3600, latency_ratio=10.0, probation_batches=5)
    with Running(long, pause=0.25) as running:  # time for a comparison between two live batches
        slots.install(second)
        running.told.wait("switched")
        running.opener.last("second").delay = 0.1  # the tiny model takes a millisecond, some on a busy machine
        back = running.told.wait("rolled back", 60)
    assert "ms (median of " in back.reason
    assert "in two windows in a row" in back.reason
    assert slots.state().active.name == "first"


SLOW, FAST = (0.02, 0.01, 1.0), (0.011, 0.01, 1.0)


def test_a_model_that_live_batches_hold_up_is_not_slow(slots: Slots, second: Path) -> None:
    def one_at_a_time(model: Opened) -> None:  # as on a GPU: whoever compares waits for the live batch
        real, lock = model.classify, threading.Lock()

        def classify(crops: Any) -> Any:
            with lock:
                time.sleep(0.02)
                return real(crops)

        model.classify = classify  # type: ignore[method-assign]

    quick = changed(slots, probation_seconds=1.0, latency_ratio=1.4, probation_batches=10)
    with Running(quick, Opener(first=one_at_a_time, second=one_at_a_time), threads=2) as running:
        slots.install(second)
        promoted = running.told.wait("promoted")
    assert promoted.figures["median_ms"] > 1.4 * promoted.figures["known_median_ms"]  # it waits, the other does not


@pytest.mark.parametrize(
    ("windows", "found"),
    [
        ([[SLOW] * 4], None),  # a busy moment
        ([[SLOW] * 4, [FAST] * 4, [SLOW] * 4], None),
        ([[SLOW] * 4, [FAST, FAST, FAST, SLOW]], None),  # a tail that chance makes is no median
        ([[SLOW] * 4, [SLOW] * 3], None),  # the second is not full
        ([[FAST] * 4, [SLOW] * 4, [SLOW] * 4], "20.0 ms (median of 4), the other model 10.0 ms"),
    ],
)
def test_only_two_slow_windows_in_a_row_are_a_verdict(
    windows: list[list[tuple[float, ...]]], found: str | None
) -> None:
    judged = Windows(0.0, 4)
    told = None
    for pairs in windows:
        for pair in pairs:
            told = told or judged.judge(lambda times: too_slow(times, SlotSettings()))
            judged.add(pair)
        told = told or judged.judge(lambda times: too_slow(times, SlotSettings()))
    assert told is None if found is None else found in told
    full = [pairs for pairs in windows if len(pairs) == 4]
    assert (judged.closed, judged.suspected is not None) == (len(full), full[-1][0] == full[-1][1] == SLOW)


def test_a_window_takes_its_time() -> None:
    judged = Windows(3600.0, 1)
    judged.add(SLOW)
    assert judged.judge(lambda times: "slow") is None
    assert judged.closed == 0


def test_after_the_trial_errors_are_the_callers(slots: Slots) -> None:
    with Running(slots) as running:
        running.opener.last("first").raises = RuntimeError("broken")
        with pytest.raises(RuntimeError, match="broken"):
            running.model.classify(CROPS)
        running.opener.last("first").raises = None


def test_nonsense_counts_as_an_error(slots: Slots) -> None:
    model = SwitchingModel(slots, Opener())
    real = model.model.classify
    model.model.classify = lambda crops: real(crops)[:-1]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="2 answers for 3 crops"):
        model.classify(CROPS)
    model.model.classify = lambda crops: [(dataclasses.replace(a[0], probability=float("nan")),) for a in real(crops)]
    with pytest.raises(ValueError, match="without a probability"):
        model.classify(CROPS)
    model.stop()


def test_an_operator_goes_back(slots: Slots, second: Path) -> None:
    with Running(slots) as running:
        slots.install(second)
        running.told.wait("promoted")
        slots.roll_back("the operator asked for it")  # as `update --rollback` does, in another process
        back = running.told.wait("rolled back")
        assert running.model.name == "first"
    assert back.reason == "the operator asked for it"
    assert running.feed.errors == []


def test_a_trial_goes_on_after_a_restart_and_its_way_back_too(slots: Slots, second: Path) -> None:
    long = changed(slots, probation_seconds=3600)
    slots.begin_trial(slots.install(second).held.digest)
    with Running(long) as running:
        assert running.model.name == "second"
        assert running.model.describe()["phase"] == "probation"
        running.opener.last("second").raises = RuntimeError("broken")
        running.told.wait("rolled back")
    assert running.feed.errors == []
    assert slots.state().active.name == "first"


def test_without_memory_for_two_the_way_back_is_opened_when_it_is_needed(
    slots: Slots, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots.begin_trial(slots.install(second).held.digest)
    scarce = changed(slots, probation_seconds=3600, spare_memory_mb=10**9)
    with Running(scarce) as running:
        assert [model.name for model in running.opener.opened] == ["second"]
        running.opener.last("second").raises = RuntimeError("broken")
        running.told.wait("rolled back")
        assert running.model.name == "first"
        slots.install(second)  # and a new one is not even opened
        until(lambda: running.model.describe()["problem"] is not None)
        assert "MB of memory are free" in running.model.describe()["problem"]
    assert running.feed.errors == []


def test_a_model_that_cannot_be_opened_at_start_gives_way(slots: Slots, second: Path, failing: Path) -> None:
    slots.begin_trial(slots.install(failing).held.digest)
    told = Told()
    model = SwitchingModel(slots, Opener(), told)
    assert model.name == "first"
    assert "self-test failed" in told.wait("rolled back").reason
    model.stop()

    digest = slots.install(second).held.digest
    slots.begin_trial(digest)
    slots.promote(digest, "well")
    (slots.path / "b.lsla").write_bytes(b"lost")
    model = SwitchingModel(slots, Opener(), told)
    assert model.name == "first"
    assert told.wait("recovered").held.name == "second"
    model.stop()

    (slots.path / "a.lsla").write_bytes(b"lost")
    with pytest.raises(BundleError):
        SwitchingModel(slots, Opener(), told)
    with pytest.raises(UsageError, match="no model is installed"):
        SwitchingModel(Slots(slots.path.parent / "none"), Opener(), told)


def test_too_many_starts_on_trial_are_told(slots: Slots, second: Path) -> None:
    slots.begin_trial(slots.install(second).held.digest)
    for _ in range(QUICK.most_starts):
        slots.start()
    told = Told()
    SwitchingModel(slots, Opener(), told).stop()
    assert told.wait("rolled back").held.name == "second"


def test_a_replaced_candidate_is_tried_anew(slots: Slots, second: Path, failing: Path) -> None:
    with Running(changed(slots, shadow_batches=10**6)) as running:
        slots.install(second)
        until(lambda: running.model.describe()["phase"] == "shadow")
        slots.install(failing)
        until(lambda: len(running.told.outcomes) == 2)
    assert [outcome.held.name for outcome in running.told.outcomes] == ["second", "failing"]
    assert "another model was installed" in running.told.outcomes[0].reason
    assert "self-test failed" in running.told.outcomes[1].reason
    assert running.feed.errors == []


def test_a_withdrawn_candidate_is_closed(slots: Slots, second: Path) -> None:
    with Running(changed(slots, shadow_batches=10**6)) as running:
        slots.install(second)
        until(lambda: running.model.describe()["phase"] == "shadow")
        slots.roll_back("the operator asked for it")
        assert running.told.wait("refused").reason == "the operator asked for it"
        until(lambda: running.opener.last("second").closed)
        assert running.model.describe()["phase"] == "steady"
    assert running.feed.errors == []


def test_a_trial_uses_no_more_than_its_share(slots: Slots, second: Path) -> None:
    def slow(model: Opened) -> None:
        model.delay = 0.05

    quarter = changed(slots, shadow_batches=5, shadow_share=0.25, probation_seconds=3600)
    with Running(quarter, Opener(second=slow)) as running:
        slots.install(second)
        running.told.wait("switched")
    # Five batches of at least 50 ms, with three times as long between them: meanwhile the live model went on.
    assert running.feed.answers.count(running.opener.opened[0].digest) >= 20
