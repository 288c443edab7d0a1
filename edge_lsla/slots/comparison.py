"""Two models on the same crops: errors, times and agreement of the one that is being tried."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.predictions import Prediction
from edge_lsla.slots.settings import SlotSettings

Crop = NDArray[np.uint8]
Answers = Sequence[tuple[Prediction, ...]]
WARM_UP = 2  # pairs that are not timed: libraries allocate at first
FEWEST_CALM = 3  # pairs whose median says something
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
        windows: also given the times.

    Attributes:
        batches: how many were run.
        failures: of them, those on which the tried one raised or answered nonsense.
        windows: see above.
    """

    def __init__(self, tried: LoadedModel, known: LoadedModel, windows: Windows | None = None) -> None:
        self._tried, self._known, self.windows = tried, known, windows
        self._times: deque[tuple[float, ...]] = deque(maxlen=REMEMBERED)  # seconds of tried and known; 1 if calm
        self.batches = self.failures = 0
        self._crops = self._agreed = 0
        self._error = ""

    def run(self, crops: Sequence[Crop], calm: Callable[[], bool] = lambda: True) -> float:
        """Run a batch; return the seconds that it took.

        Args:
            crops: the batch.
            calm: asked afterwards, whether neither of the models was used by others meanwhile: the one that answers may
                have to be waited for, and the other not.

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
                pair = (seconds, known_seconds, float(calm()))
                self._times.append(pair)
                if self.windows is not None:
                    self.windows.add(pair)
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
        """Say which limit was exceeded, one of time in both halves of the batches; None where none was."""
        times = list(self._times)
        halves = [half for half in (times[: len(times) // 2], times[len(times) // 2 :]) if half]
        slow = [
            too_long([pair[0] for pair in half], settings) or too_slow(calm_of(half) or half, settings)
            for half in halves
        ]
        return self.fault(settings) or (slow[-1] if slow and all(slow) else None)

    def fault(self, settings: SlotSettings) -> str | None:
        """Say which limit but those of time was exceeded; None where none was."""
        if self.failures > settings.error_limit * self.batches:
            return f"it failed on {self.failures} of {self.batches} batches, last with {self._error}"
        share = self.figures()["agreement"]
        if share is not None and settings.agreement_limit is not None and share < settings.agreement_limit:
            return f"it names the same class for {share:.1%} of the crops, fewer than {settings.agreement_limit:.1%}"
        return None

    def figures(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready: batches, failures, crops, agreement, and times in milliseconds."""
        times = list(self._times)  # at once: another thread may ask while a batch is run
        sides = [[pair[side] for pair in times] for side in (0, 1)]
        return {
            "batches": self.batches,
            "failures": self.failures,
            "crops": self._crops,
            "agreement": round(self._agreed / self._crops, 4) if self._crops else None,
            "p95_ms": percentile(sides[0]),
            "known_p95_ms": percentile(sides[1]),
            "median_ms": percentile(sides[0], 50),
            "known_median_ms": percentile(sides[1], 50),
        }


class Windows:
    """Times of batches in windows, one after the other; only what is wrong in two in a row is told.

    A busy moment of the machine fills one window at most.

    Args:
        seconds: how long a window is, at least.
        batches: how many there are in it, at least.

    Attributes:
        closed: how many windows were.
        suspected: what was wrong in the last of them; None: nothing.
    """

    def __init__(self, seconds: float, batches: int) -> None:
        self._seconds, self._batches = seconds, batches
        self._times: deque[tuple[float, ...]] = deque(maxlen=max(REMEMBERED, batches))
        self._began = time.monotonic()
        self.closed = 0
        self.suspected: str | None = None

    def add(self, times: tuple[float, ...]) -> None:
        """Note the seconds of a batch."""
        self._times.append(times)

    def judge(self, find: Callable[[Sequence[tuple[float, ...]]], str | None]) -> str | None:
        """Close the window if it is full, with what `find` says of its times; return that if the one before had it too.

        The caller sees to it that no time is added meanwhile.
        """
        seconds = time.monotonic() - self._began
        if seconds < self._seconds or len(self._times) < self._batches:
            return None
        before, self.suspected = self.suspected, find(list(self._times))
        self._times.clear()
        self._began = time.monotonic()
        self.closed += 1
        if before is None or self.suspected is None:
            return None
        return f"{self.suspected}; it was so in two windows in a row, the last of {seconds:.0f} s"


def too_long(seconds: Sequence[float], settings: SlotSettings) -> str | None:
    """Say that batches took longer than `latency_limit_ms`; None where they did not, or there is no limit."""
    own, limit = percentile(seconds), settings.latency_limit_ms
    if own is None or limit is None or own <= limit:
        return None
    return f"a batch takes it {own:.1f} ms (95th percentile of {len(seconds)}), more than {limit:g} ms"


def calm_of(pairs: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Return the pairs that were measured while neither model was used by others; none where they are few."""
    calm = [pair for pair in pairs if pair[2]]
    return calm if len(calm) >= FEWEST_CALM else []


def too_slow(pairs: Sequence[tuple[float, ...]], settings: SlotSettings) -> str | None:
    """Say that batches took more than `latency_ratio` times as long as the other model's; None where they did not.

    Medians: the two share a busy machine with everything else, and whom that holds up now and then is chance.
    """
    own, other = (percentile([pair[side] for pair in pairs], 50) for side in (0, 1))
    if own is None or other is None or own <= settings.latency_ratio * other:
        return None
    return (
        f"a batch takes it {own:.1f} ms (median of {len(pairs)}), the other model {other:.1f} ms; at most "
        f"{settings.latency_ratio:g} times as much is allowed"
    )


def percentile(seconds: Sequence[float], percent: float = 95) -> float | None:
    """Return the 95th or another percentile in milliseconds, or None without a value."""
    return round(float(np.percentile(seconds, percent)) * 1000, 3) if seconds else None


def _timed(model: LoadedModel, crops: Sequence[Crop]) -> tuple[Answers, float]:
    begin = time.perf_counter()
    answers = checked(model.classify(crops), crops)
    return answers, time.perf_counter() - begin
