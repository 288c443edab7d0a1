"""Watching for drift while the service runs: whether what the model sees is still what it was calibrated for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import UsageError
from edge_lsla.preprocessing import to_tensor

if TYPE_CHECKING:
    from edge_lsla.runner.drift import DriftCounter
    from edge_lsla.runner.model import Model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DriftSettings:
    """How often what the model sees is compared with what it was calibrated on: a second inference each time.

    Only a bundle that was built with `--counters` can tell; for others nothing is done.

    Attributes:
        enabled: watch for drift at all.
        every_seconds: one crop is counted as often.
        pictures: after so many a verdict is given, and counting begins anew.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    enabled: bool = True
    every_seconds: float = 60.0
    pictures: int = 60

    def __post_init__(self) -> None:
        if not 0.1 <= self.every_seconds <= 86400:
            raise UsageError("a picture is counted every 0.1 to 86400 seconds", "every_seconds", "correct it")
        if not 1 <= self.pictures <= 10_000:
            raise UsageError("a verdict takes 1 to 10000 pictures", "pictures", "correct it")


class DriftWatch:
    """Counts crops, one at a time, with the model that answers just now; see `edge_lsla.service.sampling.Taker`.

    Args:
        settings: see `DriftSettings`.
        model: returns the model that answers, None where it is none that can count.
    """

    def __init__(self, settings: DriftSettings, model: Callable[[], Model | None]) -> None:
        self._settings, self._model = settings, model
        self._counted: Model | None = None  # the model whose counter it is
        self._counter: DriftCounter | None = None
        self._verdict: dict[str, Any] | None = None
        self._verdicts = 0
        self.every_seconds, self.problem = settings.every_seconds, ""

    def take(self, crop: NDArray[np.uint8]) -> None:
        """Count a crop uint8 [h, w, 3]; a verdict that differs from the one before is logged."""
        model = self._model()
        if model is not self._counted:
            self._counted, self._counter, self._verdict, self._verdicts = model, _counter(model), None, 0
        counter = self._counter
        if model is None or counter is None:
            return
        try:
            counter.look([crop], lambda one: to_tensor(one, model.preprocessing))
        except UsageError:  # another model took its place in this moment, and it was closed
            self._counted = None
            return
        if counter.counted < self._settings.pictures:
            return
        before, self._verdict, self._verdicts = self._verdict, counter.to_dict(), self._verdicts + 1
        noted, noted_before = bool(self._verdict["noted"]), bool(before and before["noted"])
        if noted != noted_before:
            log.log(logging.WARNING if noted else logging.INFO, "%s", counter.sentence)
        self._counter = _counter(model)

    def close(self) -> None:
        """Nothing is open."""

    def facts(self) -> dict[str, Any] | None:
        """Return the last verdict, how many there were, and how many pictures the next one has.

        None where the model cannot count.
        """
        counter = self._counter
        if counter is None:
            return None
        verdict = self._verdict or {"noted": [], "worst": [], "sentence": "drift: not yet known"}
        shown = {key: verdict[key] for key in ("noted", "worst", "sentence")}
        return {**shown, "verdicts": self._verdicts, "pictures": counter.counted, "needed": self._settings.pictures}


def _counter(model: Model | None) -> DriftCounter | None:
    try:
        return None if model is None else model.drift_counter(every=1)
    except UsageError:  # it has no counters, or was closed in this moment
        return None
