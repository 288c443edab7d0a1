"""What `compare` found, JSON-ready."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from calibration.differences import TensorError, finite


@dataclass(frozen=True)
class ImageDifference:
    """One image: its place in the order given, the largest difference of a logit, and the class each model names.

    The difference is infinite, and the class None, where logits are not finite.
    """

    index: int
    max_abs: float
    first: int | None
    second: int | None


@dataclass(frozen=True)
class Parting:
    """A tensor, and the worst of the compared tensors that it is made from; None where there is none."""

    at: TensorError
    before: TensorError | None

    def __str__(self) -> str:
        """Say "layer (operator, in module): SQNR; before it ..."."""
        place = ", ".join(filter(None, (self.at.op, self.at.module and f"in {self.at.module}")))
        text = f"{self.at.layer}{f' ({place})' if place else ''}: {_decibels(self.at)}"
        if self.before is None:
            return f"{text}; nothing that was compared comes before it"
        return f"{text}; before it {self.before.layer}: {_decibels(self.before)}"


@dataclass(frozen=True)
class NotFinite:
    """The first tensor of a model that held NaN or infinity.

    Attributes:
        side: the model's name. name, layer, op, module: the tensor, as in `TensorError`.
        index: the image on which it was seen first. values: how many on that image or in its batch.
    """

    side: str
    name: str
    layer: str
    op: str
    module: str
    index: int
    values: int


@dataclass(frozen=True)
class Comparison:
    """How two models differ.

    Attributes:
        names, precisions: of the first and the second model.
        images: how many were run.
        matched: tensors that both have, in the order in which the first makes them; those that only move values about
            are left out. The logits are apart.
        unmatched: tensors that only the first has, that only the second has.
        other_shape: tensors of one name and different shapes.
        logits: of all images together.
        disagreements: images for which the two name different classes, or one has logits that are not finite.
        worst: the images whose logits differ most, worst first.
        threshold_db: the SQNR below which the models part.
        first_parting: the first tensor below it, None where there is none.
        steepest: the tensor whose relative error rises most above what it is made from; None where the two are equal.
        not_finite: where NaN or infinity appeared first, for each model that has some.
        notes: what a reader of the numbers must know.
    """

    names: tuple[str, str]
    precisions: tuple[str, str]
    images: int
    matched: tuple[TensorError, ...]
    unmatched: tuple[int, int]
    other_shape: tuple[str, ...]
    logits: TensorError
    disagreements: int
    worst: tuple[ImageDifference, ...]
    threshold_db: float
    first_parting: Parting | None
    steepest: Parting | None
    not_finite: tuple[NotFinite, ...]
    notes: tuple[str, ...]

    @property
    def top1_agreement(self) -> float:
        """Images for which both name the same class, percent."""
        return 100 * (self.images - self.disagreements) / self.images

    @property
    def verdict(self) -> str:
        """Where the two part, in a sentence that states the threshold."""
        limit = f"{self.threshold_db:g} dB"
        if self.first_parting is None:
            return f"no tensor has an SQNR below {limit}"
        return f"they part, with an SQNR below {limit}, at {self.first_parting}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values; a number that is not finite is null."""
        plain = ("images", "unmatched", "other_shape", "disagreements", "threshold_db", "notes")
        return {
            **{name: finite(getattr(self, name)) for name in plain},
            "top1_agreement": round(self.top1_agreement, 3),
            "matched": [error.to_dict() for error in self.matched],
            "logits": self.logits.to_dict(),
            "worst": [{key: finite(value) for key, value in vars(one).items()} for one in self.worst],
            "verdict": self.verdict,
            "first_parting": _named(self.first_parting),
            "steepest": _named(self.steepest),
            "not_finite": [vars(one) for one in self.not_finite],
        }


def _decibels(error: TensorError) -> str:
    if any(error.not_finite):
        return "NaN or infinity"
    return "no error" if error.sqnr_db == math.inf else f"{error.sqnr_db:.1f} dB"


def _named(parting: Parting | None) -> dict[str, Any] | None:
    if parting is None:
        return None
    return {"at": parting.at.to_dict(), "before": parting.before and parting.before.to_dict()}
