"""One engine for all cameras: crops that wait at the same moment go through it in one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import EdgeLslaError
from edge_lsla.predictions import Prediction
from edge_lsla.service.stages import Pulse

Crop = NDArray[np.uint8]
Answers = Sequence[tuple[Prediction, ...]]
POLL_SECONDS = 0.2


class Answered(Protocol):
    """Predictions, a tuple a crop, and which artifact gave them."""

    @property
    def predictions(self) -> Answers: ...

    @property
    def digest(self) -> str: ...


class EngineError(EdgeLslaError):
    """The engine gave no answer for these crops."""


class Ticket:
    """Crops of one frame on their way through the engine.

    Attributes:
        seconds: time in the engine, the other crops of the batch included; 0 before the answer.
        digest: of the artifact that answered; "" where there was nothing to answer.
    """

    def __init__(self, crops: Sequence[Crop], on_done: Callable[[], None] = lambda: None) -> None:
        self.crops = crops
        self._on_done = on_done
        self.seconds = 0.0
        self.digest = ""
        self._answers: Answers = ()
        self._error: BaseException | None = None
        self._done = threading.Event()
        if not crops:
            self._done.set()

    def answer(self, answers: Answers, seconds: float, digest: str) -> None:
        """Hand over the predictions, one tuple a crop."""
        self._answers, self.seconds, self.digest = answers, seconds, digest
        self._done.set()
        self._on_done()

    def fail(self, error: BaseException) -> None:
        """Say that there will be none."""
        self._error = error
        self._done.set()
        self._on_done()

    @property
    def done(self) -> bool:
        """Whether `result` returns at once."""
        return self._done.is_set()

    def result(self, pulse: Pulse, timeout: float) -> Answers:
        """Wait for the predictions.

        Raises:
            EngineError: the engine failed, or gave no answer within `timeout` seconds, or the stage should end.
        """
        deadline = time.monotonic() + timeout
        while not self._done.wait(POLL_SECONDS):
            pulse.beat()
            if pulse.stopping:
                raise EngineError("the stage ends", None, "the frame is left out")
            if time.monotonic() > deadline:
                raise EngineError("the engine gave no answer", f"{timeout:g} s", "the frame is left out")
        if self._error is not None:
            raise EngineError(f"the engine failed ({self._error})", None, "the frame is left out") from self._error
        return self._answers


class SharedEngine:
    """Collects tickets of any thread, which its workers answer in batches.

    Args:
        answer: crops uint8 [h, w, 3] to predictions, likeliest first, one tuple a crop.
        batch: the most crops at once.
    """

    def __init__(self, answer: Callable[[Sequence[Crop]], Answered], batch: int) -> None:
        self._engine, self._batch = answer, batch
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self.crops = 0

    def submit(self, crops: Sequence[Crop], on_done: Callable[[], None] = lambda: None) -> Ticket:
        """Queue a frame's crops; without any, the ticket is answered at once.

        Args:
            crops: uint8 [h, w, 3] each.
            on_done: called in the engine's thread once there is an answer, or will be none.
        """
        ticket = Ticket(crops, on_done)
        if crops:
            with self._changed:
                self._waiting.append(ticket)
                self._changed.notify()
        return ticket

    @property
    def waiting(self) -> int:
        """Frames whose crops wait."""
        return len(self._waiting)

    def take(self, timeout: float) -> list[Ticket]:
        """Take whole tickets up to a batch, at least one; none where none came within `timeout` seconds."""
        taken: list[Ticket] = []
        room = self._batch
        with self._changed:
            if not self._waiting:
                self._changed.wait(timeout)
            while self._waiting and (not taken or len(self._waiting[0].crops) <= room):
                taken.append(self._waiting.popleft())
                room -= len(taken[-1].crops)
        return taken

    def answer(self, crops: Sequence[Crop], pulse: Pulse) -> tuple[Answers, str]:
        """Return the predictions, in as many batches as it takes, and the digest of the artifact that gave them."""
        answers: list[tuple[Prediction, ...]] = []
        for first in range(0, len(crops), self._batch):
            answered = self._engine(crops[first : first + self._batch])
            answers += answered.predictions
            pulse.beat()
        if len(answers) != len(crops):
            raise EngineError(f"the model answered {len(answers)} crops of {len(crops)}", None, "report this")
        with self._changed:
            self.crops += len(crops)
        return answers, answered.digest


class EngineWorker:
    """Answers a shared engine's tickets; of two, one prepares its crops while the other's are in the model."""

    def __init__(self, engine: SharedEngine) -> None:
        self._engine = engine
        self._taken: list[Ticket] = []

    def work(self, pulse: Pulse) -> None:
        """Answer tickets until the stage should end; what the stage left unanswered before fails."""
        for ticket in self._taken:
            ticket.fail(EngineError("the engine's stage was restarted"))
        self._taken = []
        while not pulse.stopping:
            pulse.beat()
            if taken := self._engine.take(POLL_SECONDS):
                self._answer(taken, pulse)

    def _answer(self, taken: list[Ticket], pulse: Pulse) -> None:
        self._taken = taken
        begin = time.monotonic()
        try:
            answers, digest = self._engine.answer([crop for ticket in taken for crop in ticket.crops], pulse)
        except Exception as error:
            for ticket in taken:
                ticket.fail(error)
            raise
        seconds = time.monotonic() - begin
        first = 0
        for ticket in taken:
            ticket.answer(answers[first : first + len(ticket.crops)], seconds, digest)
            first += len(ticket.crops)
        self._taken = []
