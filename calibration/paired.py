"""How much top-1 a second classifier loses on the pictures that a first one saw too, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import UsageError

CONFIDENCE = 0.95
MOST_IMAGES = 10**9


@dataclass(frozen=True)
class Paired:
    """The difference of two classifiers on the same pictures.

    Attributes:
        images: how many pictures.
        clusters: how many groups of pictures that are independent of each other (one a picture where none were named).
        drop: points of top-1 that the second loses; negative where it gains.
        low, high: 95 % confidence interval of the drop, points; how it is made says `difference`.
        flips_to_wrong, flips_to_right: pictures that only the first, or only the second, got right.
        design_effect: how many times larger the variance is than it would be if all pictures were independent.
    """

    images: int
    clusters: int
    drop: float
    low: float
    high: float
    flips_to_wrong: int
    flips_to_right: int
    design_effect: float = 1.0

    def images_needed(self, budget: float) -> int | None:
        """Return how many pictures would put the interval below `budget` points if all went on as it did here."""
        flips = (self.flips_to_wrong + self.flips_to_right) / self.images
        return images_needed(budget, self.drop, 100 * flips, self.design_effect, self.images / self.clusters)

    def too_few(self, budget: float) -> str | None:
        """Say, in a sentence, that these pictures are too few to be sure of a budget; None where they are enough."""
        if self.high <= budget:
            return None
        here = f"{self.images} pictures of {self.clusters} sources" if self.clusters < self.images else (
            f"{self.images} pictures"
        )  # fmt: skip
        said = f"the true drop may be as much as {self.high:.2f} points, the budget is {budget:g}"
        needed = self.images_needed(budget)
        if needed is None:
            return f"{said}; more pictures would not help, for the drop measured, {self.drop:.2f}, is no less itself"
        return f"{said}: {here} are too few to be sure, about {_rounded(needed):,} like these would do"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values, points to three places."""
        return {
            "images": self.images,
            "clusters": self.clusters,
            "drop": round(self.drop, 3),
            "interval": [round(self.low, 3), round(self.high, 3)],
            "flips_to_wrong": self.flips_to_wrong,
            "flips_to_right": self.flips_to_right,
            "design_effect": round(self.design_effect, 3),
        }


def difference(
    first_right: NDArray[np.bool_], second_right: NDArray[np.bool_], clusters: Sequence[Hashable] | None = None
) -> Paired:
    """Compare two classifiers picture by picture.

    The interval is that of D. G. Bonett and R. M. Price (J. Educ. Behav. Stat. 37(4), 2012) for the difference of
    paired proportions: Wald's, after adding one flip to wrong and one flip to right. It keeps its coverage with few
    flips, and with none it is about +-2.8/(n + 2), where the rule of three says 3/n, never [0, 0]; a bootstrap,
    which can only draw again what was seen, would be. Pictures of one cluster are not independent, so the variance is
    the cluster-robust one (K.-Y. Liang and S. L. Zeger, Biometrika 73, 1986) with the correction C/(C - 1) and
    Student's t with C - 1 degrees of freedom for C clusters; it is never taken to be smaller than that of independent
    pictures. With one picture a cluster this is Bonett and Price's interval, t aside. Where nothing flips, clusters do
    not show how alike their pictures are; then, as in the NCHS standards for proportions (2017), the pictures count as
    independent. Of one cluster nothing can be said: the interval is [-100, 100].

    Args:
        first_right, second_right: bool [N], whether each classifier named each picture's class.
        clusters: what each picture shares with others (artwork, source, video); None: nothing.

    Raises:
        UsageError: no picture, or lengths differ.
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    images = len(first)
    if first.ndim != 1 or not images or second.shape != first.shape:
        raise UsageError(
            f"answers are of {list(first.shape)} and {list(second.shape)} pictures",
            "paired comparison",
            "give the same",
        )
    names = range(images) if clusters is None else clusters
    if len(names) != images:
        raise UsageError(f"{images} pictures but {len(names)} clusters", "paired comparison", "name one a picture")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    count = len(numbers)
    lost = first.astype(np.float64) - second  # 1: flipped to wrong, -1: to right
    total = images + 2
    mean = float(lost.sum()) / total
    added = (1 - mean) ** 2 + (-1 - mean) ** 2  # the two flips that are added
    simple = (float(((lost - mean) ** 2).sum()) + added) / total**2
    half, effect = 1.0, 1.0
    if count > 1:
        sums = np.bincount(index, lost - mean, count)
        robust = (float((sums**2).sum()) * count / (count - 1) + added) / total**2
        effect = max(robust / simple, 1.0) if lost.any() else 1.0
        half = student_t(count - 1) * math.sqrt(effect * simple)
    return Paired(
        images=images,
        clusters=count,
        drop=100 * float(lost.sum()) / images,
        low=100 * max(mean - half, -1.0) if count > 1 else -100.0,
        high=100 * min(mean + half, 1.0) if count > 1 else 100.0,
        flips_to_wrong=int((lost > 0).sum()),
        flips_to_right=int((lost < 0).sum()),
        design_effect=effect,
    )


def images_needed(
    budget: float, drop: float = 0.0, flips: float = 0.0, design_effect: float = 1.0, per_cluster: float = 1.0
) -> int | None:
    """Return how many pictures put the upper end of the interval of `difference` at `budget` or below.

    Args:
        budget: points of top-1 that may be lost.
        drop: the drop expected, points.
        flips: pictures expected to flip either way, percent.
        design_effect: see `Paired`.
        per_cluster: pictures to a cluster.

    Returns:
        The number, or None where no number would do, because the drop itself reaches the budget.

    Raises:
        UsageError: the budget is not a positive number.
    """
    if not (math.isfinite(budget) and budget > 0):
        raise UsageError(f"budget {budget!r} is not a positive number of points", "budget", "correct it")
    if drop >= budget:
        return None
    share, rate = drop / 100, max(flips, abs(drop)) / 100

    def upper(images: int) -> float:
        total = images + 2
        mean = share * images / total
        variance = (rate * images + 2 - total * mean**2) / total**2
        degrees = max(images / per_cluster - 1, 1)
        return mean + student_t(degrees) * math.sqrt(design_effect * variance)

    low, high = 0, 1
    while upper(high) > budget / 100:
        low, high = high, 2 * high
        if high > MOST_IMAGES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper(middle) <= budget / 100 else (middle, high)
    return high


def _rounded(number: int) -> int:
    """Round up to two digits: more would look surer than an extrapolation is."""
    step = int(10 ** max(len(str(number)) - 2, 0))
    return -(-number // step) * step


def student_t(degrees: float) -> float:
    """Return the two-sided 95 % quantile of Student's t; within 0.8 % of the tables.

    One and two degrees of freedom have closed forms; above, the expansion of R. A. Fisher and E. A. Cornish
    (Technometrics 2, 1960) around the normal quantile is taken to its fourth term.
    """
    probability = (1 + CONFIDENCE) / 2
    if degrees < 2:
        return math.tan(math.pi * (probability - 0.5))
    if degrees < 3:
        tail = 4 * probability * (1 - probability)
        return 2 * (probability - 0.5) * math.sqrt(2 / tail)
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )
