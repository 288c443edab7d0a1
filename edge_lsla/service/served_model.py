"""A bundle in a slot, as the service runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.predictions import Prediction

if TYPE_CHECKING:
    from edge_lsla.runner.model import Model, SelfTest

TOP = 3  # classes named of each crop


class ServedModel:
    """A model that was opened from a slot; see `edge_lsla.slots.comparison.LoadedModel`."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.model.manifest.name

    @property
    def digest(self) -> str:
        """SHA-256 of the artifact that runs."""
        return self.model.artifact.sha256

    @property
    def precision(self) -> str:
        """The precision in which it runs."""
        return self.model.artifact.precision

    @property
    def threshold(self) -> float:
        """The least confidence that the bundle was calibrated for, 0 where it was for none."""
        return self.model.manifest.threshold

    def classify(self, crops: Sequence[NDArray[np.uint8]]) -> tuple[tuple[Prediction, ...], ...]:
        """Name what is in crops uint8 [h, w, 3]: a tuple for each, likeliest first."""
        return self.model(list(crops), top=TOP)

    def selftest(self) -> SelfTest:
        """Run the bundle's golden set."""
        return self.model.selftest()

    def describe(self) -> dict[str, Any]:
        """Return name, digest, precision and backend, JSON-ready."""
        facts = self.model.describe()
        return {
            "name": self.name,
            "digest": self.digest,
            "precision": facts["precision"],
            "backend": facts["backend"],
        }

    def close(self) -> None:
        """Give back the engine's memory."""
        self.model.close()


def opener(
    backend: str, precision: str | None, threads: int | None, batch: int, rebuild: bool
) -> Callable[[Path], ServedModel]:
    """Return what opens a slot's file, as `infer` would with these options.

    Threads that are not given are all cores but one, which cameras, tracks and records have to themselves.
    """
    chosen = threads or max(1, len(os.sched_getaffinity(0)) - 1)

    def open_slot(path: Path) -> ServedModel:
        from edge_lsla.engine_building import rebuild_here
        from edge_lsla.runner.model import load

        building = rebuild_here if rebuild else None
        return ServedModel(
            load(
                path,
                backend=backend,
                precision=precision,
                threads=chosen,
                spinning=False,
                batch=batch,
                rebuild=building,
            )
        )

    return open_slot
