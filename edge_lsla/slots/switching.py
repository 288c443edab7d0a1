"""From one model to the next without stopping: in shadow, then on probation, then alone or back again."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_lsla.errors import AccuracyError, EdgeLslaError, GateError, UsageError
from edge_lsla.slots.comparison import (
    Answers,
    Comparison,
    Crop,
    LoadedModel,
    Windows,
    calm_of,
    too_long,
    too_slow,
)
from edge_lsla.slots.live import Answered, Live, Seat, Trial
from edge_lsla.slots.slots import Slots
from edge_lsla.slots.state import Held, State

log = logging.getLogger(__name__)
POLL_SECONDS = 0.25  # how late a change of the slots is seen
RETRY_SECONDS = 30.0  # after something that may mend itself: a full disk, too little memory
STOP_SECONDS = 1.5
TOLD = 5  # entries of the history


@dataclass(frozen=True)
class Outcome:
    """Something that was decided about a model.

    Attributes:
        what: "switched", "promoted", "rolled back", "refused" or "recovered".
        held: the model concerned: the new one, or the one that was given up.
        reason: one sentence.
        figures: what was measured, JSON-ready.
    """

    what: str
    held: Held
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)


class SwitchingModel:
    """Answers with the active model, and tries what `Slots.install` adds, in a thread of its own.

    Calls may come from several threads. A model is exchanged between two calls; on probation, a batch on which the new
    model raises is answered by the one before.

    Args:
        slots: where the models lie.
        open_model: opens a slot's file.
        tell: called with each outcome, in this thread or that of `start`.

    Raises:
        UsageError: no model is installed.
        EdgeLslaError: none of the installed ones can be opened.
    """

    def __init__(
        self, slots: Slots, open_model: Callable[[Path], LoadedModel], tell: Callable[[Outcome], None] | None = None
    ) -> None:
        self._slots, self._open_model, self._tell = slots, open_model, tell or (lambda outcome: None)
        self._settings = slots.settings
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._look_again = 0.0  # when to go on after a problem
        self._problem: str | None = None
        self._signature: tuple[int, int, int] | None = None  # none seen yet: `start` looks at the slots first of all
        before, state = slots.state(), slots.start()
        if before.state == "trial" and state.state == "steady" and before.active is not None:
            self._tell(Outcome("rolled back", before.active, state.history[-1].reason))
        self._history = _newest(state)
        self._live = self._first(state)
        with contextlib.suppress(EdgeLslaError):  # a disk that cannot be written to
            self._slots.ran(self._live.seat.held)

    @property
    def model(self) -> LoadedModel:
        """The model that answers, as `open_model` gave it; it may be closed soon after a switch."""
        return self._live.seat.model

    @property
    def name(self) -> str:
        """Name of the model that answers."""
        return self.model.name

    @property
    def digest(self) -> str:
        """SHA-256 of the artifact that answers."""
        return self.model.digest

    def describe(self) -> dict[str, Any]:
        """Return what is going on, JSON-ready.

        `slot`, `name`, `digest` (of the artifact), `file_sha256` (of the bundle) and `phase` ("steady", "shadow" or
        "probation"); in a trial also `tried` (the name) and `figures`; `history`, the last entries of the slots'
        record, newest first; `problem`, a sentence or None.
        """
        with self._live.changed:
            trial, seat = self._live.trial, self._live.seat
        values: dict[str, Any] = {"slot": seat.held.slot, "name": seat.held.name, "digest": seat.model.digest}
        values["file_sha256"] = seat.held.file_sha256
        values["phase"] = "steady" if trial is None else trial.phase
        if trial is not None:
            values |= {"tried": trial.seat.held.name, "figures": trial.figures()}
        return {**values, "history": self._history, "problem": self._problem}

    def classify(self, crops: Sequence[Crop]) -> Answers:
        """Name what is in crops uint8 [h, w, 3]; raises what the model raises, where there is none to go back to."""
        return self._live.answer(crops).predictions

    def answer(self, crops: Sequence[Crop]) -> Answered:
        """Do `classify`, and say which artifact answered."""
        return self._live.answer(crops)

    def start(self) -> None:
        """Start looking for new models."""
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End trials and close the models, within 2 s; a model that is just being opened is left behind."""
        self._stopping.set()
        with self._live.changed:
            self._live.changed.notify_all()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        trial = self._live.trial
        if trial is not None:
            with contextlib.suppress(EdgeLslaError):
                self._slots.forgive(trial.seat.held.digest)
        if self._thread is None or not self._thread.is_alive():
            self._close_all_but(None, self._live.seat, trial, 0.1)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= self._look_again:
                    self._step()
            except Exception as error:
                # The live model is not concerned; what failed is tried again.
                log.warning("models: %s", error, exc_info=not isinstance(error, EdgeLslaError))
                self._problem, self._look_again = str(error), time.monotonic() + RETRY_SECONDS
            if self._problem is not None:
                self._stopping.wait(POLL_SECONDS)
            else:
                self._live.wait(POLL_SECONDS)

    def _step(self) -> None:
        self._settle()
        signature = self._slots.signature()
        if self._problem is not None or signature != self._signature:
            state = self._slots.state()
            self._history = _newest(state)
            if self._follow(state):
                self._signature = signature
            self._problem = None
        self._live.compare(self._settings.shadow_share)
        trial = self._live.trial
        if trial is not None and not trial.failed:
            (self._judge_shadow if trial.phase == "shadow" else self._judge_probation)(trial)

    def _follow(self, state: State) -> bool:
        """Do what the slots say: another active model, a new candidate, or none any more; False: look again."""
        with self._live.changed:
            trial, seat = self._live.trial, self._live.seat
            if trial is not None and trial.failed:
                return False
        last = state.history[-1].reason if state.history else ""
        if state.active is not None and state.active.digest != seat.held.digest:
            ready = trial.other if trial is not None and trial.phase == "probation" else None
            back = ready if ready is not None and ready.held.digest == state.active.digest else self._open(state.active)
            self._live.exchange(back, None)
            self._close_all_but(back, seat, trial)
            self._tell(Outcome("rolled back", seat.held, last))
        elif trial is not None and trial.phase == "shadow":
            if state.candidate is not None and state.candidate.digest == trial.seat.held.digest:
                return True
            self._drop(trial)
            withdrawn = bool(state.history) and state.history[-1].digest == trial.seat.held.digest
            withdrawn = withdrawn and state.history[-1].what == "refused"
            reason = last if withdrawn else "another model was installed meanwhile"
            self._tell(Outcome("refused", trial.seat.held, reason))
        if self._live.trial is None and state.candidate is not None:
            self._begin_shadow(state.candidate)
            return False
        return True

    def _begin_shadow(self, held: Held) -> None:
        free = free_memory_mb()
        if free is not None and free < self._settings.spare_memory_mb:
            what = f"{free:.0f} MB of memory are free, and a new model waits until {self._settings.spare_memory_mb} are"
            raise EdgeLslaError(what, held.name, "stop other programs, or lower spare_memory_mb in the configuration")
        if not self._slots.begin_shadow(held.digest):
            state = self._slots.state()
            if state.candidate is None and state.history and state.history[-1].digest == held.digest:
                self._tell(Outcome("refused", held, state.history[-1].reason))
            return
        try:
            seat = self._open(held, test=True)
        except Exception as error:
            self._refuse(held, str(error), {})
            return
        with contextlib.suppress(EdgeLslaError):  # as at the start
            self._slots.ran(seat.held)
        live = self._live.seat
        self._live.begin(Trial(seat, live, live.held, comparison=Comparison(seat.model, live.model)))

    def _judge_shadow(self, trial: Trial) -> None:
        comparison, settings = trial.comparison, self._settings
        assert comparison is not None  # in shadow there always is one
        problem = comparison.too_many_failures(settings)
        over = time.monotonic() - trial.began >= settings.shadow_seconds
        over = over and comparison.batches >= settings.shadow_batches
        if problem is None and over:
            problem = comparison.problem(settings)
        if problem is not None:
            self._drop(trial)
            self._refuse(trial.seat.held, problem, comparison.figures())
        elif over:
            self._switch(trial)

    def _switch(self, trial: Trial) -> None:
        try:
            self._slots.begin_trial(trial.seat.held.digest)
        except GateError:  # it was withdrawn in this moment: the next look at the slots says so
            return
        before = self._live.seat
        figures = trial.figures()
        comparison = Comparison(trial.seat.model, before.model, self._windows())
        probation = Trial(trial.seat, before, before.held, "probation", comparison, windows=self._windows())
        self._live.exchange(trial.seat, probation)
        share = figures["agreement"]
        agrees = "" if share is None else f"; it names the same class as the model before for {share:.1%} of the crops"
        self._tell(Outcome("switched", trial.seat.held, f"it is on probation{agrees}", figures))
        free = free_memory_mb()
        if free is not None and free < self._settings.spare_memory_mb:
            with self._live.changed:
                if probation.failed:
                    return
                probation.other = probation.comparison = None
            self._live.close(before)

    def _judge_probation(self, trial: Trial) -> None:
        settings, comparison = self._settings, trial.comparison
        assert trial.windows is not None  # on probation there always are
        with self._live.changed:
            answered = trial.answered
            problem = trial.windows.judge(lambda times: too_long([own for (own,) in times], settings))
            settled = trial.windows.closed > 0 and trial.windows.suspected is None
        if answered < settings.probation_batches:
            return
        if problem is None and comparison is not None and comparison.windows is not None:
            problem = comparison.windows.judge(lambda pairs: too_slow(calm_of(pairs), settings))
            settled = settled and comparison.windows.suspected is None
            if problem is None and comparison.batches >= settings.probation_batches:
                problem = comparison.fault(settings)
        if problem is not None:
            if not self._live.fall_back(trial, problem):
                raise EdgeLslaError("the model before cannot be opened again", trial.other_held.file, problem)
        elif settled and time.monotonic() - trial.began >= settings.probation_seconds:
            with self._live.changed:
                if trial.failed:
                    return  # in this moment: to be settled
                self._live.begin(None)
            reason = f"it answered {answered} batches on probation without a fault"
            try:
                self._slots.promote(trial.seat.held.digest, reason)
            finally:
                self._live.close(trial.other)
            self._tell(Outcome("promoted", trial.seat.held, reason, trial.figures()))

    def _windows(self) -> Windows:
        settings = self._settings
        seconds = min(settings.latency_window_seconds, settings.probation_seconds / 2)
        return Windows(seconds, settings.probation_batches)

    def _settle(self) -> None:
        """Record that the way back was taken, and close the model that failed."""
        trial = self._live.trial
        if trial is None or not trial.failed:
            return
        self._slots.roll_back(trial.failed, trial.seat.held.digest)
        figures = trial.figures()
        self._live.begin(None)
        self._live.close(trial.seat)
        self._tell(Outcome("rolled back", trial.seat.held, trial.failed, figures))

    def _refuse(self, held: Held, reason: str, figures: dict[str, Any]) -> None:
        self._slots.refuse(held.digest, reason)
        self._tell(Outcome("refused", held, reason, figures))

    def _drop(self, trial: Trial) -> None:
        """End a time in shadow, and close the model that was tried."""
        self._live.begin(None)
        self._live.close(trial.seat)

    def _close_all_but(self, kept: Seat | None, seat: Seat, trial: Trial | None, seconds: float = 30.0) -> None:
        seats = {seat} if trial is None else {seat, trial.seat, trial.other}
        for one in seats - {kept}:
            self._live.close(one, seconds)

    def _open(self, held: Held, *, test: bool = False) -> Seat:
        model = self._open_model(self._slots.verified(held))
        try:
            result = model.selftest() if test else None
            if result is not None and not result.passed:
                difference = f"logits differ by {result.max_abs_difference:.3g}, more than {result.tolerance:.3g}"
                raise AccuracyError(f"its self-test failed, {difference}", held.name, "rebuild the bundle for here")
        except BaseException:
            model.close()
            raise
        return Seat(dataclasses.replace(held, precision=model.precision, artifact_sha256=model.digest), model)

    def _first(self, state: State) -> Live:
        """Open the active model, or what the other slot holds."""
        active, tried = state.active, state.state == "trial"
        if active is None:
            raise UsageError("no model is installed", self._slots.path, "run: edge-lsla update NAME.lsla")
        try:
            seat = self._open(active, test=tried)
        except Exception as error:
            try:
                if tried:
                    state = self._slots.roll_back(str(error), active.digest)
                else:
                    state = self._slots.abandon(active.digest, str(error))
            except GateError:  # the other slot holds nothing
                raise error from None
            assert state.active is not None
            seat = self._open(state.active)
            self._tell(Outcome("rolled back" if tried else "recovered", active, str(error)))
            return Live(seat, None, self._open)
        trial = None
        if tried and state.previous is not None:
            trial = Trial(seat, None, state.previous, "probation", windows=self._windows())
            free = free_memory_mb()
            if free is None or free >= self._settings.spare_memory_mb:
                with contextlib.suppress(Exception):  # it is opened when it is needed, and that then says why not
                    trial.other = other = self._open(state.previous)
                    trial.comparison = Comparison(seat.model, other.model, self._windows())
        return Live(seat, trial, self._open)


def _newest(state: State) -> list[dict[str, Any]]:
    return [vars(entry) for entry in state.history[::-1][:TOLD]]


def free_memory_mb() -> float | None:
    """Return the memory that is available without swapping, megabytes; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None
