"""Two models on the same crops: errors, times and agreement of the one that is being tried."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.predictions import Prediction
from edge_lsla.slots.settings import SlotSettings

Crop = NDArray[np.uint8]
Answers = Sequence[tuple[Prediction, ...]]
WARM_UP = 2  # pairs that are not timed: libraries allocate at first
REMEMBERED = 1000  # times from which the percentiles are taken


class SelfTestResult(Protocol):
    """What a golden set said; `edge_lsla.runner.model.SelfTest` is one."""

    @property
    def passed(self) -> bool:
        """Whether the device reproduces the bundle's numbers."""

    @property
    def max_abs_difference(self) -> float:
        """The largest difference of a logit from the recorded one."""

    @property
    def tolerance(self) -> float:
        """The largest that is allowed."""


class LoadedModel(Protocol):
    """A classifier opened from a bundle, callable from several threads."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def digest(self) -> str:
        """What its answers are recorded under: SHA-256 of the artifact that runs."""

    @property
    def precision(self) -> str:
        """The precision in which it runs: "fp32", "fp16" or "int8"."""

    def classify(self, crops: Sequence[Crop]) -> Answers:
        """Name what is in crops uint8 [h, w, 3]: a tuple for each, likeliest first."""

    def selftest(self) -> SelfTestResult:
        """Run the bundle's golden set."""

    def close(self) -> None:
        """Give back memory."""


def checked(answers: Answers, crops: Sequence[Crop]) -> Answers:
    """Return a model's answers if there is one for each crop, with numbers.

    Raises:
        ValueError: there is not.
    """
    if len(answers) != len(crops):
        raise ValueError(f"it gave {len(answers)} answers for {len(crops)} crops")
    if not all(answer and math.isfinite(answer[0].probability) for answer in answers):
        raise ValueError("it gave an answer without a probability")
    return answers


class Comparison:
    """Runs two models one after the other, the first one in turns, so that both share the machine with the same load.

    Args:
        tried: the model on trial.
        known: the one to compare with.

    Attributes:
        batches: how many were run.
        failures: of them, those on which the tried one raised or answered nonsense.
    """

    def __init__(self, tried: LoadedModel, known: LoadedModel) -> None:
        self._tried, self._known = tried, known
        self._times: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)  # seconds of the tried and the known one
        self.batches = self.failures = 0
        self._crops = self._agreed = 0
        self._error = ""

    def run(self, crops: Sequence[Crop]) -> float:
        """Run a batch; return the seconds that it took.

        Raises:
            Exception: whatever the known model raises; the batch does not count then.
        """
        begin = time.perf_counter()
        tried: tuple[Answers | None, float] = (None, 0.0)
        if self.batches % 2 == 0:
            tried = self._try(crops)
        known, known_seconds = _timed(self._known, crops)
        if self.batches % 2 == 1:
            tried = self._try(crops)
        answers, seconds = tried
        self.batches += 1
        if answers is not None:
            if self.batches > WARM_UP:
                self._times.append((seconds, known_seconds))
            self._crops += len(crops)
            self._agreed += sum(a[0].label == b[0].label for a, b in zip(answers, known))
        return time.perf_counter() - begin

    def _try(self, crops: Sequence[Crop]) -> tuple[Answers | None, float]:
        try:
            return _timed(self._tried, crops)
        except Exception as error:
            self.failures += 1
            self._error = f"{type(error).__name__}: {error}"
            return None, 0.0

    def too_many_failures(self, settings: SlotSettings) -> str | None:
        """Say that more batches failed than may fail until the end; None while they do not."""
        if self.failures > settings.error_limit * max(self.batches, settings.shadow_batches):
            return f"it failed on {self.failures} of {self.batches} batches, last with {self._error}"
        return None

    def problem(self, settings: SlotSettings) -> str | None:
        """Say which limit was exceeded; None where none was."""
        if self.failures > settings.error_limit * self.batches:
            return f"it failed on {self.failures} of {self.batches} batches, last with {self._error}"
        figures = self.figures()
        own, other = figures["p95_ms"], figures["known_p95_ms"]
        if own is not None and settings.latency_limit_ms is not None and own > settings.latency_limit_ms:
            return f"a batch takes it {own:.1f} ms (95th percentile), more than {settings.latency_limit_ms:g} ms"
        if own is not None and own > settings.latency_ratio * other:
            return (
                f"a batch takes it {own:.1f} ms (95th percentile), the other model {other:.1f} ms; at most "
                f"{settings.latency_ratio:g} times as much is allowed"
            )
        share = figures["agreement"]
        if share is not None and settings.agreement_limit is not None and share < settings.agreement_limit:
            return f"it names the same class for {share:.1%} of the crops, fewer than {settings.agreement_limit:.1%}"
        return None

    def figures(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready: batches, failures, crops, agreement, and times in milliseconds."""
        times = list(self._times)  # at once: another thread may ask while a batch is run
        own, other = (percentile([pair[side] for pair in times]) for side in (0, 1))
        return {
            "batches": self.batches,
            "failures": self.failures,
            "crops": self._crops,
            "agreement": round(self._agreed / self._crops, 4) if self._crops else None,
            "p95_ms": own,
            "known_p95_ms": other,
        }


def percentile(seconds: Sequence[float]) -> float | None:
    """Return the 95th percentile in milliseconds, or None without a value."""
    return round(float(np.percentile(seconds, 95)) * 1000, 3) if seconds else None


def _timed(model: LoadedModel, crops: Sequence[Crop]) -> tuple[Answers, float]:
    begin = time.perf_counter()
    answers = checked(model.classify(crops), crops)
    return answers, time.perf_counter() - begin
