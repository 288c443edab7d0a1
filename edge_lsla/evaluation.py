"""How good a classifier is on labelled pictures; NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_lsla.errors import DatasetError
from edge_lsla.predictions import Prediction

Answers = Sequence[Sequence[Prediction]]
NORMAL_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Score:
    """Accuracy on a data set.

    Attributes:
        images: pictures that were classified. skipped: pictures that could not be read.
        top1, top5: percent of the classified ones.
        interval: 95 % confidence interval of top1, percent (Wilson's).
        per_class: for each class (right, pictures).
        confused: the most frequent mistakes (true class, named class, how often), at most ten.
    """

    images: int
    skipped: int
    top1: float
    top5: float
    interval: tuple[float, float]
    per_class: dict[str, tuple[int, int]]
    confused: tuple[tuple[str, str, int], ...]

    @classmethod
    def of(cls, answers: Answers, labels: Sequence[int], classes: Sequence[str]) -> Score:
        """Compare answers (likeliest first; empty where a picture could not be read) with the true class indices.

        Raises:
            DatasetError: no picture could be read.
        """
        pairs = [(answer, label) for answer, label in zip(answers, labels) if answer]
        if not pairs:
            raise DatasetError("no picture of the data set can be read", None, "check the files")
        per_class: dict[str, tuple[int, int]] = {}
        mistakes: dict[tuple[str, str], int] = {}
        for answer, label in pairs:
            right, seen = per_class.get(classes[label], (0, 0))
            hit = answer[0].index == label
            per_class[classes[label]] = (right + hit, seen + 1)
            if not hit:
                key = (classes[label], answer[0].label)
                mistakes[key] = mistakes.get(key, 0) + 1
        top1 = sum(answer[0].index == label for answer, label in pairs)
        top5 = sum(any(p.index == label for p in answer[:5]) for answer, label in pairs)
        most = sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))[:10]
        return cls(
            images=len(pairs),
            skipped=len(answers) - len(pairs),
            top1=100 * top1 / len(pairs),
            top5=100 * top5 / len(pairs),
            interval=wilson(top1, len(pairs)),
            per_class=per_class,
            confused=tuple((true, named, times) for (true, named), times in most),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {
            "images": self.images,
            "skipped": self.skipped,
            "top1": round(self.top1, 3),
            "top5": round(self.top5, 3),
            "interval": [round(bound, 3) for bound in self.interval],
            "per_class": {name: {"right": right, "images": seen} for name, (right, seen) in self.per_class.items()},
        }


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, in percent (E. B. Wilson, JASA 22, 1927)."""
    share, z2 = right / total, NORMAL_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def agreement(first: Answers, second: Answers) -> float:
    """Return how often two models name the same class first, in percent of the pictures that both could read."""
    both = [(a, b) for a, b in zip(first, second) if a and b]
    return 100 * sum(a[0].index == b[0].index for a, b in both) / len(both) if both else 0.0
