"""When a classifier had better say "unknown": the least probability from which on enough of its answers are right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.data.folders import load_split
from edge_lsla.errors import DatasetError, ImageError, UsageError
from edge_lsla.evaluation import Answers, wilson
from edge_lsla.predictions import Prediction, rank
from edge_lsla.preprocessing import Preprocessing, to_tensor

ASKED = 0.95  # share of the accepted answers that should be right, where nothing else is asked
LEAST_ACCEPTED = 20  # answers; a share of fewer says nothing
LEAST_HELD_OUT, MOST_HELD_OUT = 100, 1000  # pictures that a bundle's threshold is chosen on
STEP = 10_000  # thresholds have four decimals, rounded down, so that what is written is what was judged


@dataclass(frozen=True)
class Abstention:
    """A threshold and what it does on the pictures that it was judged on.

    Attributes:
        threshold: answers with a lower probability are "unknown".
        right: share of the accepted answers that are right, 0 to 1.
        interval: its 95 % confidence interval (Wilson's).
        coverage: share of the pictures whose answer is accepted.
        images: pictures, also those that show nothing known.
        accepted: of these, whose answer is accepted.
    """

    threshold: float
    right: float
    interval: tuple[float, float]
    coverage: float
    images: int
    accepted: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {
            "threshold": self.threshold,
            "right": round(self.right, 4),
            "interval": [round(bound, 4) for bound in self.interval],
            "coverage": round(self.coverage, 4),
            "images": self.images,
            "accepted": self.accepted,
        }

    def recorded(self) -> dict[str, Any]:
        """Return what a bundle's manifest records."""
        return {name: self.to_dict()[name] for name in ("threshold", "right", "coverage", "images")}


def judged(answers: Answers, labels: Sequence[int], nothing: Answers = ()) -> tuple[list[float], list[bool]]:
    """Return the probability of each likeliest class, and whether it is right.

    Args:
        answers: likeliest first; empty ones, of pictures that could not be read, are left out.
        labels: true class indices.
        nothing: answers to pictures that show no known class, where every name is wrong.
    """
    read = [(answer[0], label) for answer, label in zip(answers, labels) if answer]
    others = [answer[0] for answer in nothing if answer]
    probabilities = [first.probability for first, _ in read] + [first.probability for first in others]
    return probabilities, [first.index == label for first, label in read] + [False] * len(others)


def apply_threshold(threshold: float, probabilities: Sequence[float], rights: Sequence[bool]) -> Abstention:
    """Return what a threshold does; the share of right ones among no accepted answers is 1.

    Raises:
        UsageError: there are no answers.
    """
    if not probabilities:
        raise UsageError("a threshold is judged on pictures", "probabilities", "give some")
    kept = [right for probability, right in zip(probabilities, rights) if probability >= threshold]
    total = len(probabilities)
    low, high = wilson(sum(kept), len(kept)) if kept else (0.0, 100.0)
    share = sum(kept) / len(kept) if kept else 1.0
    return Abstention(threshold, share, (low / 100, high / 100), len(kept) / total, total, len(kept))


def choose_threshold(
    probabilities: Sequence[float], rights: Sequence[bool], asked: float = ASKED, *, sure: bool = False
) -> Abstention | None:
    """Return the smallest threshold whose accepted answers are right often enough; None where there is none.

    The share is that of the very pictures which chose the threshold: on others it is a little lower.

    Args:
        probabilities: of each picture's likeliest class.
        rights: whether it is the true one.
        asked: share of the accepted answers that must be right, 0 to 1.
        sure: the lower end of the share's 95 % interval must reach it, not only the share.

    Raises:
        UsageError: `asked` is no share, or there are no answers.
    """
    if not 0 < asked <= 1:
        raise UsageError("a share of right answers is above 0 and at most 1", "asked", "correct it")
    floored = [math.floor(probability * STEP) / STEP for probability in probabilities]
    for threshold in sorted(set(floored)):
        found = apply_threshold(threshold, probabilities, rights)
        if found.accepted < LEAST_ACCEPTED:
            return None
        if (found.interval[0] if sure else found.right) >= asked:
            return found
    return None


def held_out_abstention(
    compute: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    data: Path,
) -> Abstention | None:
    """Choose a threshold on a data set's labelled pictures that nothing was learned from, those of `val`.

    Args:
        compute: images float32 [1, 3, S, S] to logits float32 [1, classes].
        labels: the model's class names.
        preprocessing: of the model.
        data: a data set; at most 1000 pictures of it are looked at, spread evenly.

    Returns:
        None where the data set has no such pictures, has too few, or no threshold is good enough.
    """
    try:
        pictures = load_split(data, "val")
        if not pictures.divided or len(pictures) < LEAST_HELD_OUT:
            return None
        pictures = pictures.ordered_as(labels)
    except DatasetError:  # no data set with classes, or other classes
        return None
    answers: list[tuple[Prediction, ...]] = []
    places = range(0, len(pictures), math.ceil(len(pictures) / MOST_HELD_OUT))
    for place in places:
        try:
            answers.append(rank(compute(to_tensor(pictures.paths[place], preprocessing)[None]), labels, 1)[0])
        except ImageError:
            answers.append(())
    given = judged(answers, [pictures.labels[place] for place in places])
    return choose_threshold(*given) if given[0] else None
