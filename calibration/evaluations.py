"""What INT8 in some layers costs on the search pictures, measured once and remembered, also over interruptions."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.atomic import write_text
from edge_lsla.errors import DatasetError, EdgeLslaError, UsageError
from edge_lsla.reading import read_json

FORMAT = "edge-lsla precision search"
VERSION = 1

Evaluate = Callable[[NDArray[np.bool_]], NDArray[np.float32]]
"""From bool [K], the layers in INT8, to logits float32 [N, classes] of all search pictures, always in one order."""


@dataclass(frozen=True)
class Outcome:
    """How one assignment differs from float on the search pictures.

    Attributes:
        images: pictures. flips: those whose named class changed.
        flips_to_wrong, flips_to_right: those that only float, or only this assignment, names rightly.
        noise: power of the change of the logits over the power of the logits.
        change: mean |change of logits| over mean |logits|.
        expected_drop: see `expected_drop`, points.

    Raises:
        UsageError: a number cannot be right.
    """

    images: int
    flips: int
    flips_to_wrong: int
    flips_to_right: int
    noise: float
    change: float
    expected_drop: float

    def __post_init__(self) -> None:
        counts = (self.images, self.flips, self.flips_to_wrong, self.flips_to_right)
        measures = (self.noise, self.change, self.expected_drop)
        whole = all(type(count) is int and 0 <= count <= self.images for count in counts) and self.images > 0
        if not whole or self.flips_to_wrong + self.flips_to_right > self.flips:
            raise UsageError("counts cannot be right", "Outcome", "measure again")
        if not all(type(number) in (int, float) and math.isfinite(number) for number in measures) or self.noise < 0:
            raise UsageError("measures cannot be right", "Outcome", "measure again")

    @property
    def drop(self) -> float:
        """Points of top-1 lost; of agreement with float where there are no labels."""
        return 100 * (self.flips_to_wrong - self.flips_to_right) / self.images

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio of the logits in dB; infinite where they are equal."""
        return -10 * math.log10(self.noise) if self.noise else math.inf


class Evaluations:
    """Measures assignments by name, each once.

    Args:
        names: the layers that can be switched, in the order of masks.
        evaluate: runs the search pictures; see `Evaluate`.
        labels: class indices [N]; None for pictures without labels. Then what float says stands for the truth, and each
            flip counts as a loss.
        state: a JSON file that results are kept in, and taken from; None keeps them in memory only.
        key: digests of all that decides the results: model, ranges, settings, data, labels. A file with another key is
            ignored, and `notice` says so.

    Attributes:
        reference: logits of float, float32 [N, classes].
        notice: why a state file was not used, or cannot be written; None where there is nothing to tell.

    Raises:
        DatasetError: no picture. UsageError: labels do not fit.
        EdgeLslaError: logits are not finite, where the message says in which layers.
    """

    def __init__(
        self,
        names: Sequence[str],
        evaluate: Evaluate,
        labels: NDArray[np.integer[Any]] | Sequence[int] | None = None,
        state: Path | None = None,
        key: Mapping[str, str] | None = None,
    ) -> None:
        self.names = tuple(names)
        self._evaluate, self._state = evaluate, state
        self._key = {**(key or {}), "layers": " ".join(self.names)}
        self.notice: str | None = None
        self.reference = self._logits(np.zeros(len(self.names), bool))
        self._known: dict[str, Outcome] = self._load()
        count, classes = self.reference.shape
        if not count:
            raise DatasetError("no picture to search with", None, "give a folder that holds some")
        self.labels = self.reference.argmax(axis=1) if labels is None else np.asarray(labels)
        if self.labels.shape != (count,) or self.labels.min() < 0 or self.labels.max() >= classes:
            raise UsageError(f"labels do not fit {count} pictures of {classes} classes", "labels", "give one a picture")

    @property
    def images(self) -> int:
        """How many pictures each measurement takes."""
        return len(self.reference)

    def known(self, int8: Collection[str]) -> bool:
        """Say whether an assignment has been measured."""
        return self._name(int8) in self._known

    def measure(self, int8: Collection[str]) -> Outcome:
        """Return what these layers in INT8 do.

        Raises:
            UsageError: a name is unknown.
            EdgeLslaError: the logits are not finite.
        """
        name = self._name(int8)
        if name not in self._known:
            mask = np.array([layer in int8 for layer in self.names], bool)
            self._known[name] = compare_logits(self.reference, self._logits(mask), self.labels)
            self._save()
        return self._known[name]

    def _name(self, int8: Collection[str]) -> str:
        """Return a mask as hexadecimal digits, the first layer the lowest bit."""
        place = {layer: i for i, layer in enumerate(self.names)}
        unknown = sorted(set(int8) - set(place))
        if unknown:
            raise UsageError("no such layer to switch", unknown[0], "take names from `switched_names`")
        return f"{sum(1 << place[layer] for layer in set(int8)):x}"

    def _logits(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        logits = self._evaluate(mask)
        if not np.isfinite(logits).all():
            where = ", ".join(name for name, on in zip(self.names, mask) if on)[:200]
            raise EdgeLslaError(
                "logits hold NaN or infinity", f"INT8 in {where}" if where else "float", "check model and pictures"
            )
        return logits

    def _load(self) -> dict[str, Outcome]:
        if self._state is None or not self._state.exists():
            return {}
        try:
            fields = read_json(self._state, "state file", UsageError)
            if not isinstance(fields, dict) or (fields.get("format"), fields.get("version")) != (FORMAT, VERSION):
                raise UsageError("not a state file of this version", self._state)
            key = fields["key"]
            other = sorted(name for name in {*key, *self._key} if key.get(name) != self._key.get(name))
            if other:
                raise UsageError(f"it was made with other {', '.join(other)}", self._state)
            found = {name: Outcome(**values) for name, values in fields["evaluations"].items()}
            if not all(re.fullmatch("[0-9a-f]+", name) and one.images == self.images for name, one in found.items()):
                raise UsageError("it is damaged", self._state)
            return found
        except (EdgeLslaError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            reason = error.what if isinstance(error, EdgeLslaError) else "it is damaged"
            self.notice = f"the state file {self._state} is ignored and written anew: {reason}"
            return {}

    def _save(self) -> None:
        """Remember what was measured; where that fails, as on a full disk, the search goes on without."""
        if self._state is not None:
            head = {"format": FORMAT, "version": VERSION, "key": self._key}
            lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
            rows = [f'    "{name}": {json.dumps(dataclasses.asdict(found))}' for name, found in self._known.items()]
            lines.append('  "evaluations": {\n' + ",\n".join(rows) + "\n  }")
            try:
                write_text(self._state, "{\n" + ",\n".join(lines) + "\n}\n")
            except EdgeLslaError as error:
                self.notice = f"an interrupted search will begin anew, for its results cannot be kept: {error}"
                self._state = None


def compare_logits(
    reference: NDArray[np.float32], found: NDArray[np.float32], labels: NDArray[np.integer[Any]]
) -> Outcome:
    """Compare logits float32 [N, classes] of float and of an assignment, with class indices [N]."""
    change = found.astype(np.float64) - reference
    before, after = reference.argmax(axis=1), found.argmax(axis=1)
    power, size = float(np.square(reference, dtype=np.float64).sum()), float(np.abs(reference, dtype=np.float64).sum())
    return Outcome(
        images=len(labels),
        flips=int((before != after).sum()),
        flips_to_wrong=int(((before == labels) & (after != labels)).sum()),
        flips_to_right=int(((before != labels) & (after == labels)).sum()),
        noise=float(np.square(change).sum()) / power if power else 0.0,
        change=float(np.abs(change).sum()) / size if size else 0.0,
        expected_drop=expected_drop(margins(reference, labels), margins(found, labels)),
    )


def margins(logits: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return by how much the true class's logit exceeds the largest of the others, [N]; positive where it is right."""
    rows = np.arange(len(labels))
    others = logits.astype(np.float64)
    true = others[rows, labels]
    others[rows, labels] = -np.inf
    return true - others.max(axis=1)  # type: ignore[no-any-return]  # numpy's operators are untyped here


def expected_drop(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Return the drop of top-1, in points, that margins [N] let expect.

    Counting flips is too coarse for small budgets: with 280 pictures one flip is 0.36 points, and whether the few
    pictures nearest to a border fall on this side or that is luck. Here every picture's margin meets every picture's
    change of margin, N * N pairs in all, as if the change had nothing to do with the picture; the drop of the share of
    positive margins is the expectation of the drop under such shuffling. It grows smoothly with the noise.
    """
    count = len(before)
    ordered = np.sort(before)
    right = count - np.searchsorted(ordered, before - after, side="right")  # pictures that stay right, for each change
    return 100 * (float((before > 0).mean()) - float(right.mean()) / count)
