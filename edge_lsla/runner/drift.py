"""Drift: how much more often than when it was calibrated a model's values lie at the ends of their integer ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import UsageError

BASELINE = "saturation"  # of a bundle's `calibration`: the shares measured when it was built, by activation
# A smaller share at calibration counts as this one: a range that holds every value measured has one value at its end.
SMALLEST_BASELINE = 1e-4
# The demo model on held-out artwork, other artists' samples and photos has no activation that is beyond both; pictures
# with too much light or contrast have.
NOTED_SHARE, NOTED_RATIO = 1e-3, 2.0
SHOWN = 5  # activations in a summary

Item = TypeVar("Item")


@dataclass(frozen=True)
class Drift:
    """One activation's drift.

    Attributes:
        name: the layer that reads it, or makes it.
        share: of its values that were at an end of their range, 0..1.
        baseline: the same when the model was calibrated.
    """

    name: str
    share: float
    baseline: float

    @property
    def ratio(self) -> float:
        """How many times the baseline the share is; the baseline counts as one value in ten thousand at least."""
        return self.share / max(self.baseline, SMALLEST_BASELINE)

    @property
    def noted(self) -> bool:
        """Whether so much is cut off, and so much more than at calibration, that it should be calibrated again."""
        return self.share >= NOTED_SHARE and self.ratio >= NOTED_RATIO

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the ratio as JSON-ready values."""
        return {
            "name": self.name,
            "share": round(self.share, 8),
            "baseline": round(self.baseline, 8),
            "ratio": round(self.ratio, 3),
        }


def compare(shares: Mapping[str, float], baseline: Mapping[str, float]) -> tuple[Drift, ...]:
    """Set shares beside those of the same activations at calibration, the largest ratio first."""
    found = [Drift(name, share, baseline[name]) for name, share in shares.items()]
    return tuple(sorted(found, key=lambda drift: (-drift.ratio, drift.name)))


def read_baseline(calibration: Mapping[str, Any] | None, names: Sequence[str], where: object) -> dict[str, float]:
    """Return the shares that a bundle records, of these activations.

    Args:
        calibration: of the bundle's manifest.
        names: of the activations that are counted.
        where: the bundle, for the error.

    Raises:
        UsageError: it records none, or none that could be right.
    """
    recorded = (calibration or {}).get(BASELINE)
    if not isinstance(recorded, Mapping):
        raise UsageError("the bundle records no shares to compare with", where, "build it again with --counters")
    for name in names:
        share = recorded.get(name)
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise UsageError(f"the bundle records no share of {name}", where, "build it again with --counters")
    return {name: float(recorded[name]) for name in names}


class DriftCounter:
    """Counts on every n-th picture, and sums up.

    Attributes:
        counted: pictures so far.

    Args:
        count: shares by activation of images float32 [1, 3, S, S], such as `Model.saturation`.
        baseline: the same at calibration.
        every: 1 counts every picture.

    Raises:
        UsageError: `every` is below 1.
    """

    def __init__(
        self, count: Callable[[NDArray[np.float32]], Mapping[str, float]], baseline: Mapping[str, float], every: int
    ) -> None:
        if every < 1:
            raise UsageError("every how many pictures are counted is 1 or more", str(every), "give a larger number")
        self._count, self._baseline, self._every = count, baseline, every
        self._seen = self.counted = 0
        self._sums = dict.fromkeys(baseline, 0.0)

    def look(self, items: Sequence[Item], prepare: Callable[[Item], NDArray[np.float32]]) -> None:
        """Take the next pictures; those whose turn it is are prepared, float32 [3, S, S], and counted."""
        for item in items:
            if self._seen % self._every == 0:
                for name, share in self._count(prepare(item)[None]).items():
                    self._sums[name] += share
                self.counted += 1
            self._seen += 1

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Drift of every activation over the pictures counted, the largest ratio first; none without pictures."""
        if not self.counted:
            return ()
        return compare({name: share / self.counted for name, share in self._sums.items()}, self._baseline)

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        noted = [drift for drift in self.drifts if drift.noted]
        if not self.counted:
            return "drift: no picture was counted"
        if not noted:
            return f"drift: none in {self.counted} pictures, values keep to their ranges as when it was calibrated"
        worst, others = noted[0], len(noted) - 1
        least = "at least " if worst.baseline < SMALLEST_BASELINE else ""
        ratio = f"{worst.ratio:.0f}" if worst.ratio >= 10 else f"{worst.ratio:.1f}"
        also = f", and so it is with {others} more" if others else ""
        return (
            f"drift: values left the range of {worst.name} {least}{ratio} times as often as when it was calibrated, "
            f"{worst.share:.2%} of them{also}: calibrate again with pictures from this place"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what was found, JSON-ready: the worst five, and the names of all that are noted."""
        drifts = self.drifts
        return {
            "pictures": self.counted,
            "every": self._every,
            "noted": [drift.name for drift in drifts if drift.noted],
            "worst": [drift.to_dict() for drift in drifts[:SHOWN]],
            "sentence": self.sentence,
        }
