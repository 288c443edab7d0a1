"""What each layer of a model takes, in the form that every runner gives it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_lsla.errors import UsageError

MOST_REPEATS = 1000  # ONNX Runtime keeps no more than a million events
WARM_UP = 3  # inferences before those that count


@dataclass(frozen=True)
class LayerTime:
    """The time of one layer in one inference.

    Attributes:
        name: as the runtime calls it; a node of the graph where the runtime left it one.
        kind: its operator or type; "" where the runtime does not say.
        precision: "fp32", "fp16", "int8" or another type; "" where the runtime does not say.
        milliseconds: median over the inferences.
        calls: kernels, or reports of the runtime, in one inference.
        nodes: the graph's nodes that it computes, as far as they are known.
    """

    name: str
    kind: str
    precision: str
    milliseconds: float
    calls: int = 1
    nodes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "milliseconds": round(self.milliseconds, 6), "nodes": list(self.nodes)}


def check_profile(images: int, repeats: object) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: no images, or `repeats` is no number from 1 to `MOST_REPEATS`.
    """
    if images < 1:
        raise UsageError("there are no images to measure with", "images", "give at least one")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= MOST_REPEATS:
        raise UsageError(f"repeats is not a number from 1 to {MOST_REPEATS}", "repeats", "correct it")


def medians(rounds: Iterable[Sequence[tuple[str, float]]]) -> dict[str, tuple[float, int]]:
    """Return the median of each layer, and how often one inference reports it.

    Args:
        rounds: for each inference, (layer, milliseconds) in the order of the report; one that comes twice counts with
            the sum.
    """
    sums: list[dict[str, float]] = []
    calls: Counter[str] = Counter()
    for reports in rounds:
        of: dict[str, float] = {}
        for name, milliseconds in reports:
            of[name] = of.get(name, 0.0) + milliseconds
        sums.append(of)
        calls |= Counter(name for name, _ in reports)  # the most in one inference
    names = dict.fromkeys(name for of in sums for name in of)
    return {name: (statistics.median(of.get(name, 0.0) for of in sums), calls[name]) for name in names}
