"""Everything that a calibration report shows, as plain values.

Points are percentage points of top-1. A loss is positive: a drop of 0.5 means that 0.5 points were lost. Intervals are
(low, high) at 95 %.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from calibration.report.fields import Checked
from edge_lsla.errors import UsageError

PERCENT = {"between": (0.0, 100.0)}
SHARE = {"between": (0.0, 1.0)}
COUNT = {"between": (0.0, math.inf)}
HISTOGRAM_BARS = 128

Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict(Checked):
    """What was decided, in sentences for people.

    Attributes:
        sentences: the first one is the report's headline.
        shipped: name of the form that ships; None where the gate refused all.
        budget: points of top-1 that may be lost; None where no gate was set.
        forced: the gate refused, and was overruled.
    """

    sentences: tuple[str, ...]
    shipped: str | None = None
    budget: float | None = field(default=None, metadata=COUNT)
    forced: bool = False

    def check(self) -> None:
        """Refuse a verdict that says nothing."""
        if not self.sentences:
            raise UsageError("a verdict needs a sentence", "Verdict.sentences", "say what ships and why")


@dataclass(frozen=True)
class Form(Checked):
    """One form of the model, such as fp32, fp16, int8 or mixed.

    Attributes:
        top1, interval: percent.
        drop, drop_interval: points lost against the reference, paired picture by picture; None for the reference.
        agreement: percent of pictures where it names the same class as the reference.
        size: bytes of the file. latency_ms: of one batch, as `ReportData.timed_on` says.
        int8_share: part of the layers that run in INT8, 0 to 1.
    """

    name: str
    top1: float | None = field(default=None, metadata=PERCENT)
    interval: Interval | None = None
    drop: float | None = None
    drop_interval: Interval | None = None
    agreement: float | None = field(default=None, metadata=PERCENT)
    size: int | None = field(default=None, metadata=COUNT)
    latency_ms: float | None = field(default=None, metadata=COUNT)
    int8_share: float | None = field(default=None, metadata=SHARE)


@dataclass(frozen=True)
class ClassChange(Checked):
    """How many pictures of one class were right `before` and `after`, of `images`."""

    label: str
    before: int = field(metadata=COUNT)
    after: int = field(metadata=COUNT)
    images: int = field(metadata=COUNT)

    def check(self) -> None:
        """Refuse more right answers than pictures."""
        if max(self.before, self.after) > self.images:
            raise UsageError(f"more right answers than {self.images} pictures", "ClassChange", "correct the counts")


@dataclass(frozen=True)
class Flip(Checked):
    """A picture whose answer changed.

    Attributes:
        name: of the file, relative to the data set.
        truth, before, after: class names. before_p, after_p: probability given to that answer, 0 to 1.
        picture: a small JPEG or PNG, see `pictures.thumbnail`; None where it is not to be shown.
    """

    name: str
    truth: str
    before: str
    before_p: float = field(metadata=SHARE)
    after: str
    after_p: float = field(metadata=SHARE)
    picture: bytes | None = None

    @property
    def kind(self) -> str:
        """Return "lost" (right before), "won" (right after) or "moved" (wrong both times)."""
        return "lost" if self.before == self.truth else "won" if self.after == self.truth else "moved"


def worst_first(flips: Sequence[Flip]) -> tuple[Flip, ...]:
    """Order flips: lost, moved, won; within each the surest answers first."""
    order = {"lost": 0, "moved": 1, "won": 2}
    return tuple(sorted(flips, key=lambda flip: (order[flip.kind], -flip.before_p - flip.after_p, flip.name)))


@dataclass(frozen=True)
class LayerDamage(Checked):
    """What happens when one layer alone runs in INT8.

    Attributes:
        layer: its name. precision: what it ended in: "int8", "fp16" or "fp32".
        snr_db: of the logits, decibels; None where they do not change or it was not measured.
        flips: pictures whose answer changed, of `ReportData.damage_images`.
    """

    layer: str
    precision: str
    snr_db: float | None = None
    flips: int | None = field(default=None, metadata=COUNT)

    def __post_init__(self) -> None:
        if self.snr_db == math.inf:
            object.__setattr__(self, "snr_db", None)
        super().__post_init__()


@dataclass(frozen=True)
class LayerHistogram(Checked):
    """The values that went into one layer while calibrating, and the range chosen for them.

    Attributes:
        layer, tensor: names.
        counts: of evenly wide bins from `low` to `high`.
        range_low, range_high: the chosen range. outside: part of the values beyond it, 0 to 1.
    """

    layer: str
    tensor: str
    counts: tuple[int, ...]
    low: float
    high: float
    range_low: float
    range_high: float
    outside: float = field(metadata=SHARE)

    @classmethod
    def of(
        cls,
        layer: str,
        tensor: str,
        counts: Sequence[int],
        low: float,
        high: float,
        chosen: Interval,
        outside: float | None = None,
        extremes: Interval = (-math.inf, math.inf),
    ) -> LayerHistogram:
        """Make one from a fine histogram: empty ends are cut off, and bins merged to at most 128.

        Args:
            outside: part of the values beyond the chosen range; without it, the bins are counted whose middle is.
            extremes: the least and the largest value, beyond which no bin's middle is sought.
        """
        filled = [index for index, count in enumerate(counts) if count]
        if not filled or not low < high:
            return cls(layer, tensor, (0,), low, high, *chosen, outside=outside or 0.0)
        width = (high - low) / len(counts)
        if outside is None:
            middles = [min(max(low + (index + 0.5) * width, extremes[0]), extremes[1]) for index in range(len(counts))]
            inside = slice(bisect.bisect_left(middles, chosen[0]), bisect.bisect_right(middles, chosen[1]))
            outside = float(1 - sum(counts[inside]) / sum(counts))
        start, stop = filled[0], filled[-1] + 1
        step = math.ceil((stop - start) / HISTOGRAM_BARS)
        merged = [int(sum(counts[index : index + step])) for index in range(start, stop, step)]
        first = low + start * width
        last = first + len(merged) * step * width
        return cls(layer, tensor, tuple(merged), first, last, *chosen, outside=outside)

    def check(self) -> None:
        """Refuse bins that cannot be drawn."""
        if not self.counts or min(self.counts) < 0 or self.low > self.high or self.range_low > self.range_high:
            raise UsageError("a histogram has no bins, or its ends are exchanged", "LayerHistogram", "correct it")


@dataclass(frozen=True)
class CurvePoint(Checked):
    """Signal to quantisation noise of what one layer makes, in decibels; None where nothing differs."""

    layer: str
    sqnr_db: float | None

    def __post_init__(self) -> None:
        if self.sqnr_db == math.inf:
            object.__setattr__(self, "sqnr_db", None)
        super().__post_init__()


@dataclass(frozen=True)
class Curve(Checked):
    """The error of one form layer by layer, in the order of the network; every form has the same layers."""

    form: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class SearchStep(Checked):
    """One assignment that the search tried.

    Attributes:
        int8_share: part of the layers (or of their cost) in INT8, 0 to 1.
        drop, interval: points lost on the search split.
        accepted: whether the search went on from here.
        change: what was tried, in words.
    """

    int8_share: float = field(metadata=SHARE)
    drop: float
    accepted: bool
    interval: Interval | None = None
    change: str = ""


@dataclass(frozen=True)
class Making(Checked):
    """How the build was made: pairs (name, value), shown in this order, and warnings as sentences."""

    facts: tuple[tuple[str, str], ...] = ()
    digests: tuple[tuple[str, str], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportData(Checked):
    """A whole report; what is empty is left out of the page.

    Attributes:
        model: its name.
        forms: the first one without a `drop` is the reference that the others are compared with.
        measured_on: the pictures behind accuracy, classes and flips. timed_on: device, backend and batch of latency.
        compared: names of the forms that `classes` and `flips` call before and after.
        damage_images: pictures that `damages` were measured on.
    """

    model: str
    verdict: Verdict
    forms: tuple[Form, ...] = ()
    measured_on: str = ""
    timed_on: str = ""
    compared: tuple[str, str] = ("fp32", "int8")
    classes: tuple[ClassChange, ...] = ()
    flips: tuple[Flip, ...] = ()
    damages: tuple[LayerDamage, ...] = ()
    damage_images: int | None = field(default=None, metadata=COUNT)
    histograms: tuple[LayerHistogram, ...] = ()
    curves: tuple[Curve, ...] = ()
    search: tuple[SearchStep, ...] = ()
    making: Making = Making()

    def check(self) -> None:
        """Refuse curves over different layers."""
        layers = {tuple(point.layer for point in curve.points) for curve in self.curves}
        if len(layers) > 1:
            raise UsageError("error curves have different layers", "ReportData.curves", "give one point a layer")

    @property
    def reference(self) -> Form | None:
        """The form that the others are compared with."""
        return next((form for form in self.forms if form.drop is None), None)

    @property
    def shipped(self) -> Form | None:
        """The form that ships."""
        return next((form for form in self.forms if form.name == self.verdict.shipped), None)
