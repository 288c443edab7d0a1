"""The calls of the model that answers: never half a switch, and on probation never an unanswered batch."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_lsla.slots.comparison import (
    REMEMBERED,
    Answers,
    Comparison,
    Crop,
    LoadedModel,
    Windows,
    checked,
    percentile,
)
from edge_lsla.slots.state import Held

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """Predictions, a tuple a crop, and the digest of the artifact that gave them."""

    predictions: Answers
    digest: str


@dataclass(eq=False)
class Seat:
    """An open model; `users` are the calls that are under way."""

    held: Held
    model: LoadedModel
    users: int = 0


@dataclass(eq=False)
class Trial:
    """A model that is being tried, on its way to being the only one.

    Attributes:
        seat: the model.
        other: the one that answers (in shadow), or to go back to (on probation); None where there is no memory for it.
        other_held: the same, as the slots know it.
        phase: "shadow" or "probation".
        comparison: of both.
        began: on the monotonic clock.
        answered: live batches on probation.
        live: seconds of each of them.
        windows: the same times; on probation only.
        failed: why the way back was taken, which is still to be recorded.
    """

    seat: Seat
    other: Seat | None
    other_held: Held
    phase: str = "shadow"
    comparison: Comparison | None = None
    began: float = field(default_factory=time.monotonic)
    answered: int = 0
    live: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    windows: Windows | None = None
    failed: str = ""

    def figures(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready."""
        values = {} if self.comparison is None else self.comparison.figures()
        if self.phase == "probation":
            values |= {"live_batches": self.answered, "live_p95_ms": percentile(list(self.live))}
        return values


class Live:
    """Who answers now, and whom the batches are also handed to; its methods may be called from any thread.

    Args:
        seat: the model that answers first.
        trial: on probation, where the seat's model is.
        reopen: opens the model to go back to, where it was closed for want of memory.

    Attributes:
        changed: notified of everything that changes here.
        seat: the model that answers.
        trial: the model that is being tried.
    """

    def __init__(self, seat: Seat, trial: Trial | None, reopen: Callable[[Held], Seat]) -> None:
        self.changed = threading.Condition()
        self.seat = seat
        self.trial = trial
        self._reopen = reopen
        self._offered: list[Crop] | None = None
        self._resume = 0.0  # when the trial may use the processor again
        self._calls = 0  # of the model that answers

    def answer(self, crops: Sequence[Crop]) -> Answered:
        """Ask the model that answers.

        Raises:
            Exception: what the model raises, unless there is one to go back to.
        """
        while True:
            with self.changed:
                seat = self.seat
                seat.users += 1
                self._calls += 1
            begin = time.perf_counter()
            try:
                answers = checked(seat.model.classify(crops), crops)
            except Exception as error:
                if not self._give_way(seat, error):
                    raise
                continue
            finally:
                with self.changed:
                    seat.users -= 1
                    self.changed.notify_all()
            self._offer(seat, crops, time.perf_counter() - begin)
            return Answered(answers, seat.model.digest)

    def _give_way(self, seat: Seat, error: Exception) -> bool:
        """Return whether another model should be asked for what this one failed on."""
        with self.changed:
            if self.seat is not seat:
                return True  # it is replaced already
            trial = self.trial
            if trial is None or trial.phase != "probation" or trial.seat is not seat:
                return False
            return self.fall_back(trial, f"it failed on a live batch with {type(error).__name__}: {error}")

    def fall_back(self, trial: Trial, reason: str) -> bool:
        """Answer with the model before, at once; what is slow (the record, closing) is left to who looks at `failed`.

        Returns:
            Whether that could be done: the model before may have been closed, and not open again.
        """
        with self.changed:
            if trial.failed:
                return True
            try:
                trial.other = trial.other or self._reopen(trial.other_held)  # other calls wait: better than failing
            except Exception as error:  # the caller raises what the live model failed on; this is only why it must
                log.error("the model before cannot be opened again: %s", error)
                return False
            self.seat, trial.failed, self._offered = trial.other, reason, None
            self.changed.notify_all()
            return True

    def exchange(self, seat: Seat, trial: Trial | None) -> Seat:
        """Let another model answer from the next call on; return the one before."""
        with self.changed:
            old, self.seat, self.trial = self.seat, seat, trial
            self._offered, self._resume = None, 0.0
            return old

    def begin(self, trial: Trial | None) -> None:
        """Begin or end a trial; who answers stays the same."""
        self.exchange(self.seat, trial)

    def _offer(self, seat: Seat, crops: Sequence[Crop], seconds: float) -> None:
        """Hand a live batch to the trial, unless that is busy or had its share."""
        with self.changed:
            trial = self.trial
            if trial is None or trial.failed:
                return
            if trial.phase == "probation" and trial.seat is seat:
                trial.answered += 1
                trial.live.append(seconds)
                if trial.windows is not None:
                    trial.windows.add((seconds,))
            if trial.comparison is None or self._offered is not None or time.monotonic() < self._resume or not crops:
                return
            self._offered = [np.array(crop) for crop in crops]  # the caller's may be memory that a camera writes to
            self.changed.notify_all()

    def compare(self, share: float) -> None:
        """Run the batch that was handed over, if any, on both models; then rest, so that `share` of the time is used.

        Raises:
            Exception: what the model that is not being tried raises.
        """
        with self.changed:
            crops, trial = self._offered, self.trial
            before = self._calls if self.seat.users == 0 else None
        if crops is None or trial is None or trial.comparison is None or trial.failed:
            return
        try:
            seconds = trial.comparison.run(crops, lambda: self._calls == before)
            self._resume = time.monotonic() + seconds * (1 / share - 1)
        finally:
            with self.changed:
                self._offered = None

    def wait(self, seconds: float) -> None:
        """Return when a batch was handed over, the way back was taken, or after so many seconds."""
        with self.changed:
            if self._offered is None and not (self.trial is not None and self.trial.failed):
                self.changed.wait(seconds)

    def close(self, seat: Seat | None, seconds: float = 30.0) -> None:
        """Close a model once its last call is over; a call that hangs keeps it."""
        if seat is None:
            return
        with self.changed:
            free = self.changed.wait_for(lambda: seat.users == 0, seconds)
        if free:
            seat.model.close()
