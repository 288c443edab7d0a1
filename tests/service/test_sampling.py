"""A crop now and then, taken from in front of the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edge_lsla.predictions import Prediction
from edge_lsla.service.sampling import Crop, Sampling
from edge_lsla.service.stages import Pulse

WAIT = 20.0


@dataclass
class Answer:
    predictions: Sequence[tuple[Prediction, ...]]
    digest: str = "d"


class Collector:
    """Keeps what it is given; can be made to wait, or to fail."""

    def __init__(self) -> None:
        self.every_seconds, self.problem = 0.1, ""
        self.crops: list[Crop] = []
        self.came, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def take(self, crop: Crop) -> None:
        self.crops.append(crop)
        self.came.set()
        assert self.go.wait(WAIT)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed.set()

    def facts(self) -> dict[str, Any] | None:
        return {"crops": len(self.crops)} if self.crops else None


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def sampling(collector: Collector) -> Iterator[Sampling]:
    """Its stage runs."""
    sampling = Sampling(lambda crops: Answer([()] * len(crops)), {"crops": collector})
    pulse = Pulse()
    stage = threading.Thread(target=sampling.work, args=(pulse,))
    stage.start()
    yield sampling
    collector.go.set()
    pulse.end()
    stage.join(WAIT)
    assert not stage.is_alive()
    assert collector.closed.is_set()


CROPS = [np.full((4, 4, 3), number, np.uint8) for number in range(3)]


def answer_until(sampling: Sampling, came: Callable[[], object]) -> None:
    for _ in range(2000):
        assert len(sampling.answer(CROPS).predictions) == 3
        if came():
            return
        time.sleep(0.01)
    raise AssertionError("it never came about")


def test_one_crop_is_taken_and_not_copied(sampling: Sampling, collector: Collector) -> None:
    assert sampling.facts() == {}
    assert sampling.answer([]).predictions == []
    answer_until(sampling, collector.came.is_set)
    assert any(collector.crops[0] is crop for crop in CROPS)
    assert sampling.facts() == {"crops": {"crops": len(collector.crops)}}


def test_frames_do_not_wait_for_who_takes_a_crop(sampling: Sampling, collector: Collector) -> None:
    collector.go.clear()
    answer_until(sampling, collector.came.is_set)
    for _ in range(200):
        sampling.answer(CROPS)
    assert len(collector.crops) == 1  # it is still at it


def test_what_fails_there_is_said_once_and_passes(
    sampling: Sampling, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.error = ZeroDivisionError("no such thing")
    for _ in range(3):
        collector.came.clear()
        answer_until(sampling, collector.came.is_set)
    assert caplog.text.count("crops: ZeroDivisionError") == 1
    answer_until(sampling, lambda: sampling.problems == ["crops: ZeroDivisionError"])
    collector.error = None
    for _ in range(2):
        collector.came.clear()
        answer_until(sampling, collector.came.is_set)
    assert sampling.problems == []
