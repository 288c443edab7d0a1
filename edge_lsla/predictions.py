"""What a classification says: plain, frozen, JSON-ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import UsageError


@dataclass(frozen=True)
class Prediction:
    """One class and its probability for one picture.

    Attributes:
        index: position of the class in the bundle's labels.
        label: its name.
        probability: softmax of the logits, in 0..1.
    """

    index: int
    label: str
    probability: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {"index": self.index, "label": self.label, "probability": round(self.probability, 6)}


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax over the last axis, same shape and type."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]  # numpy's operators are untyped here


def rank(logits: NDArray[np.float32], labels: tuple[str, ...], top: int = 5) -> tuple[tuple[Prediction, ...], ...]:
    """Return the `top` likeliest classes of each row of logits [N, classes], likeliest first.

    Raises:
        UsageError: `top` is below 1.
    """
    if top < 1:
        raise UsageError("at least one class must be named", "top", "give 1 or more")
    probabilities = softmax(logits)
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
    return tuple(
        tuple(Prediction(int(i), labels[i], float(row[i])) for i in picks) for row, picks in zip(probabilities, order)
    )
