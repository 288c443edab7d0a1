"""One engine for all cameras: batches of those that wait, each with its own answers, failures told."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from edge_lsla.predictions import Prediction
from edge_lsla.service.shared_engine import Crop, EngineError, EngineWorker, SharedEngine
from edge_lsla.service.stages import Pulse
from edge_lsla.slots.live import Answered


def crops(*values: int) -> list[Crop]:
    return [np.full((2, 2, 3), value, np.uint8) for value in values]


class Echo:
    """Answers a crop with its value, and keeps what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.broken = False

    def __call__(self, batch: Sequence[Crop]) -> Answered:
        self.batches.append([int(crop[0, 0, 0]) for crop in batch])
        if self.broken:
            raise RuntimeError("no device")
        return Answered(tuple((Prediction(0, str(int(crop[0, 0, 0])), 1.0),) for crop in batch), "d" * 64)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@contextlib.contextmanager
def working(engine: SharedEngine, pulse: Pulse) -> Iterator[None]:
    thread = threading.Thread(target=EngineWorker(engine).work, args=(pulse,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        pulse.end()
        thread.join(20)


def labels(answers: Sequence[tuple[Prediction, ...]]) -> list[str]:
    return [answer[0].label for answer in answers]


def test_those_who_wait_share_a_batch(echo: Echo) -> None:
    engine, pulse = SharedEngine(echo, batch=4), Pulse()
    tickets = [engine.submit(crops(*values)) for values in ((1, 2), (3,), (4, 5), ())]
    assert labels(tickets[3].result(pulse, 1)) == []
    with working(engine, pulse):
        assert [labels(ticket.result(pulse, 20)) for ticket in tickets[:3]] == [["1", "2"], ["3"], ["4", "5"]]
    assert echo.batches == [[1, 2, 3], [4, 5]]
    assert engine.crops == 5
    assert all(ticket.seconds > 0 and ticket.digest == "d" * 64 for ticket in tickets[:3])


def test_a_frame_with_many_crops_is_cut_into_batches(echo: Echo) -> None:
    engine, pulse = SharedEngine(echo, batch=2), Pulse()
    ticket = engine.submit(crops(1, 2, 3, 4, 5))
    with working(engine, pulse):
        assert labels(ticket.result(pulse, 20)) == ["1", "2", "3", "4", "5"]
    assert echo.batches == [[1, 2], [3, 4], [5]]


def test_a_failure_reaches_who_waits_and_ends_the_stage(echo: Echo) -> None:
    engine, pulse = SharedEngine(echo, batch=4), Pulse()
    ticket = engine.submit(crops(1))
    echo.broken = True
    with pytest.raises(RuntimeError, match="no device"):
        EngineWorker(engine).work(pulse)
    with pytest.raises(EngineError, match=r"the engine failed \(no device\)"):
        ticket.result(pulse, 1)


def test_too_few_answers_are_no_answer() -> None:
    engine, pulse = SharedEngine(lambda batch: Answered((), ""), batch=4), Pulse()
    ticket = engine.submit(crops(1))
    with pytest.raises(EngineError, match="answered 0 crops of 1"):
        EngineWorker(engine).work(pulse)
    with pytest.raises(EngineError):
        ticket.result(pulse, 1)


def test_a_restart_fails_what_was_inside() -> None:
    inside, release = threading.Event(), threading.Event()

    def hang(batch: Sequence[Crop]) -> Answered:
        inside.set()
        release.wait(60)
        return Answered((), "")

    engine, first, second = SharedEngine(hang, batch=4), Pulse(), Pulse()
    worker = EngineWorker(engine)
    ticket = engine.submit(crops(1))

    def work() -> None:
        with pytest.raises(EngineError, match="answered 0"):
            worker.work(first)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert inside.wait(20)
    second.end()
    worker.work(second)
    with pytest.raises(EngineError, match="restarted"):
        ticket.result(Pulse(), 1)
    release.set()
    thread.join(20)
    assert not thread.is_alive()


def test_nobody_waits_for_ever(echo: Echo) -> None:
    engine = SharedEngine(echo, batch=4)
    with pytest.raises(EngineError, match="no answer"):
        engine.submit(crops(1)).result(Pulse(), 0.01)


def test_one_worker_goes_on_while_another_is_held() -> None:
    held, release = threading.Event(), threading.Event()

    def answer(batch: Sequence[Crop]) -> Answered:
        if batch[0][0, 0, 0] == 1:
            held.set()
            release.wait(60)
        return Answered(tuple((Prediction(0, "ant", 1.0),) for _ in batch), "")

    engine, pulse, done = SharedEngine(answer, batch=1), Pulse(), threading.Event()
    with working(engine, pulse), working(engine, pulse):
        slow = engine.submit(crops(1))
        assert held.wait(20)
        quick = engine.submit(crops(2), done.set)
        assert done.wait(20)
        assert quick.done
        assert not slow.done
        assert labels(quick.result(pulse, 1)) == ["ant"]
        release.set()
        assert labels(slow.result(pulse, 20)) == ["ant"]
    assert engine.crops == 2


def test_who_waits_is_told_of_a_failure_too(echo: Echo) -> None:
    engine, done = SharedEngine(echo, batch=4), threading.Event()
    echo.broken = True
    engine.submit(crops(1), done.set)
    with pytest.raises(RuntimeError):
        EngineWorker(engine).work(Pulse())
    assert done.is_set()
