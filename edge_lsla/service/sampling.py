"""Of the crops that are classified, one now and then: kept to calibrate with later, and looked at for drift."""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.reservoir import MOST, Reservoir
from edge_lsla.pipeline.reservoir import ReservoirSettings as KeptSettings
from edge_lsla.service.shared_engine import Answered
from edge_lsla.service.stages import Pulse

log = logging.getLogger(__name__)
FOLDER = "reservoir"  # in the data folder
POLL_SECONDS = 0.1
MB = 1_000_000

Crop = NDArray[np.uint8]


@dataclass(frozen=True)
class ReservoirSettings:
    """A random sample of what the model was given, in the folder "reservoir" of the data, for `calibrate --update`.

    Attributes:
        size: most pictures, at most 1024 px, 10 to 300 kB each; 0 draws no more and leaves those that are there. It may
            be changed at any time: see `edge_lsla.pipeline.reservoir.Reservoir`.
        every_seconds: how often one crop is drawn; of all that were, each is kept with the same probability.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    size: int = 0
    every_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MOST:
            raise UsageError(f"a reservoir has 0 to {MOST} pictures", "size", "correct it")
        if not 0.1 <= self.every_seconds <= 86400:
            raise UsageError("a picture is drawn every 0.1 to 86400 seconds", "every_seconds", "correct it")


class Taker(Protocol):
    """Someone who wants a crop now and then.

    Attributes:
        every_seconds: how often.
        problem: what a person should know, a sentence; "" where nothing is wrong.
    """

    every_seconds: float
    problem: str

    def take(self, crop: Crop) -> None:
        """Use a crop uint8 [h, w, 3]."""

    def close(self) -> None:
        """There will be no more for now."""

    def facts(self) -> dict[str, Any] | None:
        """Return what is to be shown, JSON-ready; None where there is nothing."""


class Sampling:
    """Stands before the engine and, when someone wants a crop, remembers one; a stage of its own hands it over.

    The engine's thread does no more than set a reference: whoever uses the crop, and whatever fails there, no frame
    waits.

    Args:
        answer: see `SharedEngine`.
        takers: by the name under which their facts are shown.
    """

    def __init__(self, answer: Callable[[Sequence[Crop]], Answered], takers: dict[str, Taker]) -> None:
        self._answer, self.takers, self._random = answer, takers, random.Random()
        self._wanted = threading.Event()
        self._crop: Crop | None = None

    def answer(self, crops: Sequence[Crop]) -> Answered:
        """Do what the engine does."""
        answered = self._answer(crops)
        if crops and self._wanted.is_set():
            self._crop = self._random.choice(crops)
            self._wanted.clear()
        return answered

    def work(self, pulse: Pulse) -> None:
        """Hand crops over until the stage should end."""
        due = dict.fromkeys(self.takers, time.monotonic())
        try:
            while not pulse.wait(POLL_SECONDS):
                crop, self._crop = self._crop, None
                now = time.monotonic()
                ready = [name for name, when in due.items() if now >= when]
                if crop is None:
                    if ready:
                        self._wanted.set()
                    continue
                for name in ready:
                    _guarded(self.takers[name], name, partial(self.takers[name].take, crop))
                    due[name] = time.monotonic() + self.takers[name].every_seconds
                    pulse.beat()
        finally:
            for name, taker in self.takers.items():
                _guarded(taker, name, taker.close)

    @property
    def problems(self) -> list[str]:
        """What is wrong with the takers, sentences."""
        return [taker.problem for taker in self.takers.values() if taker.problem]

    def facts(self) -> dict[str, Any]:
        """Return what the takers show, by their names, JSON-ready."""
        return {name: facts for name, taker in self.takers.items() if (facts := taker.facts()) is not None}


def _guarded(taker: Taker, name: str, work: Callable[[], None]) -> None:
    """Do it; what fails is said once, and neither stops the stage nor counts as its failure."""
    before, taker.problem = taker.problem, ""
    try:
        work()
    except Exception as error:
        taker.problem = f"{name}: {error if isinstance(error, EdgeLslaError) else type(error).__name__}"
        if not before:
            log.warning("%s", taker.problem, exc_info=not isinstance(error, EdgeLslaError))


@dataclass(frozen=True, eq=False)
class _Seen:
    frame: Frame


class ReservoirKeeper:
    """Keeps crops in a `Reservoir`; see `Taker`.

    Args:
        data: the data folder.
        settings: see `ReservoirSettings`.
        keep_free_mb: of the disk; while less is left, nothing is kept.

    Attributes:
        folder: where the pictures are.
    """

    def __init__(self, data: Path, settings: ReservoirSettings, keep_free_mb: float) -> None:
        self.folder, self._settings, self._keep_free_mb = data / FOLDER, settings, keep_free_mb
        self._reservoir: Reservoir | None = None
        self.every_seconds, self.problem = settings.every_seconds, ""

    def take(self, crop: Crop) -> None:
        """Count a crop, and keep it if it is drawn.

        Raises:
            EdgeLslaError: the disk is full or fails, or the folder is something else's.
        """
        if self._reservoir is None:
            self._reservoir = self.open().__enter__()
        free = shutil.disk_usage(self.folder).free
        if free < self._keep_free_mb * MB:
            raise EdgeLslaError(
                f"no picture is kept while the disk has less than {self._keep_free_mb:g} MB", self.folder, "free some"
            )
        self._reservoir.write(_Seen(Frame(crop, time.time(), self._reservoir.seen, FOLDER, live=True)))

    def open(self) -> Reservoir:
        """Return the folder's reservoir, which is made where it is absent, and resized as its block is entered.

        Raises:
            UsageError: its count is damaged, or the folder is something else's.
        """
        if self.folder.is_symlink():
            raise UsageError("the folder of the reservoir is a symbolic link", self.folder, "put a real folder there")
        return Reservoir(self.folder, KeptSettings(self._settings.size))

    def close(self) -> None:
        """Write the count."""
        reservoir, self._reservoir = self._reservoir, None
        if reservoir is not None:
            reservoir.__exit__(None, None, None)

    def facts(self) -> dict[str, Any] | None:
        """Return how many crops it was given in all its life, and how many pictures it has at most."""
        reservoir = self._reservoir
        return None if reservoir is None else {"seen": reservoir.seen, "size": self._settings.size}
