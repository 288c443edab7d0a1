"""Two models side by side on the same images: each tensor that both have, the logits, and where they part first."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.comparison import Comparison, ImageDifference, NotFinite, Parting
from calibration.differences import Sums, TensorError, not_finite, sqnr_db
from calibration.tensors import BEFORE, LOGITS, Known, Made, Side
from edge_lsla.errors import DatasetError, GraphError, UsageError

# Models part where the SQNR of a tensor falls below this, in dB; the coarser precision of the two decides. fp32: 1e-4,
# what `export` allows; another order of sums stays below. fp16: 1 %, some twenty roundings. int8: 10 %.
THRESHOLDS_DB = {"fp32": 80.0, "fp16": 40.0, "int8": 20.0}
UNKNOWN = Made("", "", "", (), False)
_UNMATCHED = "no tensor has a name that both know, so only the logits are compared"


@dataclass(frozen=True)
class CompareSettings:
    """How two models are compared.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    threshold_db: float | None = field(
        default=None, metadata={"help": "SQNR below which models part, dB; default: by the coarser precision"}
    )
    worst: int = field(default=10, metadata={"help": "how many images to name"})

    def __post_init__(self) -> None:
        limit = self.threshold_db
        if limit is not None and not (isinstance(limit, (int, float)) and math.isfinite(limit)):
            raise UsageError(f"not a number of dB: {limit!r}", "threshold_db", "give one, such as 20")
        if isinstance(self.worst, bool) or not isinstance(self.worst, int) or self.worst < 0:
            raise UsageError(f"not a number of images: {self.worst!r}", "worst", "give 0 or more")


def compare(
    first: Side,
    second: Side,
    batches: Iterable[NDArray[np.float32]],
    progress: Callable[[int], None] | None = None,
    settings: CompareSettings | None = None,
) -> Comparison:
    """Run both models on every batch and compare what they make of it; only sums are kept.

    Args:
        first, second: the models; the first is the reference.
        batches: float32 [n, 3, S, S], normalised as the models expect; one image each takes least memory.
        progress: called with the number of images done after each batch.
        settings: the threshold, and how many images to name.

    Raises:
        DatasetError: no images, or an image holds NaN or infinity.
        GraphError: the logits have different shapes, or ONNX Runtime cannot run a graph.
    """
    settings = settings or CompareSettings()
    work = _Work(first, second, settings.worst)
    for batch in batches:
        bad = [row for row, image in enumerate(batch) if not_finite(image)]
        if bad:
            raise DatasetError("an image holds NaN or infinity", f"image {work.images + bad[0]}", "remove it")
        work.add(batch)
        if progress is not None:
            progress(work.images)
    if not work.images:
        raise DatasetError("no images to compare on", None, "give a folder that holds some")
    return work.result(settings.threshold_db)


class _Work:
    """What is found out batch by batch."""

    def __init__(self, first: Side, second: Side, worst: int) -> None:
        self.sides, self.keep = (first, second), worst
        self.matched = _match(first.made, second.made)
        self.sums = {name: Sums() for name in (*self.matched, LOGITS)}
        self.other_shape: dict[str, None] = {}
        self.images = self.disagreements = 0
        self.worst: list[tuple[float, int, ImageDifference]] = []  # a heap, the least of them first
        self.not_finite: dict[int, NotFinite] = {}
        # A NaN cannot appear first where values are only moved about.
        self.wanted = [
            [name for name, known in side.made.items() if not known.moves or name in self.sums] for side in self.sides
        ]

    def add(self, batch: NDArray[np.float32]) -> None:
        held = {}
        for name, second in self.sides[1].tensors(batch, self.wanted[1]):
            self._look_for_nan(1, name, second)
            if name in self.sums:
                held[name] = second
        for name, first in self.sides[0].tensors(batch, self.wanted[0]):
            self._look_for_nan(0, name, first)
            if name not in self.sums:
                continue
            second = held.pop(name)
            if name == LOGITS:
                self._add_logits(first, second)
            elif first.shape != second.shape:
                self.other_shape[name] = None
                continue
            self.sums[name].add(first, second)
        self.images += len(batch)

    def _look_for_nan(self, number: int, name: str, value: NDArray[Any]) -> None:
        if number not in self.not_finite and (count := not_finite(value)):
            side = self.sides[number]
            known = side.made.get(name, UNKNOWN)
            self.not_finite[number] = NotFinite(
                side.name, name, known.layer, known.op, known.module, self.images, count
            )

    def _add_logits(self, first: NDArray[Any], second: NDArray[Any]) -> None:
        if first.shape != second.shape:
            names = " and ".join(side.name for side in self.sides)
            shapes = f"{list(first.shape)} and {list(second.shape)}"
            raise GraphError(f"the models give logits {shapes}", names, "compare models of the same classes")
        for row, pair in enumerate(zip(first, second)):
            self._add_image(self.images + row, *pair)

    def _add_image(self, index: int, first: NDArray[Any], second: NDArray[Any]) -> None:
        named = [int(row.argmax()) if not not_finite(row) else None for row in (first, second)]
        usable = None not in named
        difference = float(np.abs(second - first).max()) if usable else math.inf
        self.disagreements += not usable or named[0] != named[1]
        entry = (difference, -index, ImageDifference(index, difference, *named))
        if len(self.worst) < self.keep:
            heapq.heappush(self.worst, entry)
        elif self.worst:
            heapq.heappushpop(self.worst, entry)

    def result(self, threshold_db: float | None) -> Comparison:
        first, second = self.sides
        errors = self._errors()
        if threshold_db is None:
            threshold_db = min(THRESHOLDS_DB[side.precision] for side in self.sides)
        parted = next((error for error in errors.values() if error.sqnr_db < threshold_db), None)
        steepest = max(errors.values(), key=lambda error: error.rise)
        unmatchable = bool(first.made and second.made and not self.matched)
        matched = tuple(error for name, error in errors.items() if name != LOGITS)
        return Comparison(
            names=(first.name, second.name),
            precisions=(first.precision, second.precision),
            images=self.images,
            matched=matched,
            unmatched=(_left_over(first.made, second.made), _left_over(second.made, first.made)),
            other_shape=tuple(self.other_shape),
            logits=errors[LOGITS],
            disagreements=self.disagreements,
            worst=tuple(entry[2] for entry in sorted(self.worst, reverse=True)),
            threshold_db=float(threshold_db),
            first_parting=self._parting(parted, errors) if parted else None,
            steepest=self._parting(steepest, errors) if steepest.rise > 0 else None,
            not_finite=tuple(self.not_finite[number] for number in sorted(self.not_finite)),
            notes=(*(_UNMATCHED,) * unmatchable, *first.notes, *second.notes),
        )

    def _errors(self) -> dict[str, TensorError]:
        errors: dict[str, TensorError] = {}
        for name, sums in self.sums.items():
            if name in self.other_shape:
                continue
            before = max((errors[one].rel_l2 for one in self._sources(name) if one in errors), default=0.0)
            rise = sums.rel_l2 - before if math.isfinite(before) else 0.0
            known = [side.made.get(name, UNKNOWN) for side in self.sides]
            errors[name] = TensorError(
                name=name,
                layer=known[1].layer or known[0].layer,
                op=known[1].op or known[0].op,
                module=known[0].module or known[1].module,
                max_abs=sums.max_abs,
                rel_l2=sums.rel_l2,
                sqnr_db=sqnr_db(sums.rel_l2),
                rise=rise,
                not_finite=(sums.not_finite[0], sums.not_finite[1]),
            )
        return errors

    def _sources(self, name: str) -> list[str]:
        """Name the nearest compared tensors that one is made from, in the first model's graph."""
        made = self.sides[0].made
        found: list[str] = []
        seen: set[str] = set()
        waiting = list(made[name].inputs) if name in made else []
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            if one in self.sums and one not in self.other_shape:
                found.append(one)
            elif one in made:
                waiting += made[one].inputs
        return found

    def _parting(self, at: TensorError, errors: dict[str, TensorError]) -> Parting:
        before = [errors[name] for name in self._sources(at.name) if name in errors]
        return Parting(at, max(before, key=lambda error: error.rel_l2, default=None))


def _match(first: Mapping[str, Known], second: Mapping[str, Known]) -> tuple[str, ...]:
    """Name the tensors to compare, in the first's order; what both only move about is compared where it is made."""
    matched = [name for name in first if name in second and name != LOGITS]
    roots = {name: (_root(name, first), _root(name, second)) for name in matched}
    return tuple(n for n, (root, other) in roots.items() if n in (root, other) or root != other or root not in roots)


def _root(name: str, made: Mapping[str, Known]) -> str:
    """Name the tensor whose values one has, in another order or shape."""
    while made[name].moves and made[name].inputs:
        name = made[name].inputs[0]
    return name


def _left_over(made: Mapping[str, Known], other: Mapping[str, Known]) -> int:
    return sum(name not in other and not known.moves and not name.endswith(BEFORE) for name, known in made.items())
