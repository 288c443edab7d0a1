"""The drawings of a report; each returns an <svg> element."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from calibration.report.data import (
    ClassChange,
    Curve,
    Form,
    LayerDamage,
    LayerHistogram,
    SearchStep,
)
from calibration.report.elements import NARROW
from calibration.report.svg import COLOURS, TEXT, draw
from calibration.report.wording import (
    count,
    cut,
    cut_apart,
    megabytes,
    milliseconds,
    noise_percent,
    number,
    percent,
    short,
    signed,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 22.0  # pixels a bar takes with its gap
NAME = 20  # columns of a name beside an axis
CEILING_DB = 60.0  # where nothing differs: an error of 0.1 % and less all look alike


def rounding() -> Element:
    """Draw what INT8 does to a value, with so few steps that they can be seen; nothing here is measured."""
    steps, places = 3, [index / 400 for index in range(401)]
    exact = [1.3 * math.sin(2 * math.pi * place) for place in places]
    rounded = [max(-steps, min(steps, round(value * steps))) / steps for value in exact]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhspan(-1, 1, color=COLOURS["band"], linewidth=0)
        axes.plot(places, exact, color=COLOURS["fp32"], linewidth=2, label="exact")
        axes.plot(places, rounded, color=COLOURS["int8"], linewidth=2, label="rounded to steps")
        axes.annotate("cut off at the range", (0.25, 1.0), (0.52, 1.12), color=COLOURS["bad"], va="center")
        axes.annotate("the range", (0.02, -0.85), color=COLOURS["muted"])
        axes.set_axis_off()
        figure.legend(loc="outside lower center", ncols=2, borderpad=0)

    return draw("rounding", NARROW, 170, "a smooth curve, and the same rounded to steps and cut off at a range", paint)


def drops(forms: Sequence[Form], budget: float | None) -> Element:
    """Draw the loss of each form as a dot in its interval, with the budget."""
    shown = [form for form in forms if form.drop is not None]

    def paint(figure: Figure) -> None:
        axes = _rows(figure, [_name(form.name) for form in shown])
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        if budget is not None:
            axes.axvline(budget, color=COLOURS["bad"], linewidth=1.5, linestyle="--")
            _above(axes, budget, f"budget {number(budget, 2)}", "bad")
        for row, form in enumerate(shown):
            drop = form.drop or 0.0
            colour = COLOURS["bad" if budget is not None and drop > budget else "int8"]
            if form.drop_interval is not None:
                axes.plot(form.drop_interval, (row, row), color=colour, linewidth=7, alpha=0.3)
            axes.plot([drop], [row], "o", color=colour, markersize=9)
        _under(figure, "points lost (to the left of 0: gained)")
        axes.margins(x=0.12)

    return draw("drops", NARROW, 74 + 30 * len(shown), "points of top-1 that each form loses", paint)


def class_changes(classes: Sequence[ClassChange]) -> Element:
    """Draw how many pictures of each class were won or lost, in the order given."""

    def paint(figure: Figure) -> None:
        axes = _rows(figure, cut_apart([entry.label for entry in classes], NAME))
        changes = [entry.after - entry.before for entry in classes]
        colours = [COLOURS["good" if change > 0 else "bad"] for change in changes]
        axes.barh(range(len(changes)), changes, color=colours, height=0.62)
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        for row, change in enumerate(changes):
            _beside(axes, change, row, signed(change, 0), left=change < 0)
        axes.margins(x=0.18)
        _whole_numbers(axes)
        _under(figure, "pictures: lost on the left, won on the right")

    return draw("classes", NARROW, 56 + ROW * len(classes), "pictures won and lost by class", paint)


def damages(layers: Sequence[LayerDamage], images: int | None, width: float) -> Element:
    """Draw the damage of each layer, in the order given: shift of the logits, or flips where that is unknown."""
    by_flips = all(entry.snr_db is None for entry in layers)
    values = [
        float(entry.flips or 0) if by_flips else 0.0 if entry.snr_db is None else noise_percent(entry.snr_db)
        for entry in layers
    ]

    def paint(figure: Figure) -> None:
        from matplotlib.patches import Patch

        axes = _rows(figure, cut_apart([entry.layer for entry in layers], NAME))
        axes.barh(range(len(values)), values, color=[COLOURS[_precision(e)] for e in layers], height=0.62)
        for row, (value, entry) in enumerate(zip(values, layers)):
            flips = f", {count(entry.flips, 'flip')}" if entry.flips and not by_flips else ""
            _beside(axes, value, row, (number(value, 0) if by_flips else percent(value)) + flips)
        axes.margins(x=0.3)
        of = f" of {images:,}" if images else ""
        _under(figure, f"answers flipped{of}" if by_flips else "shift of the answers' scores, %")
        present = dict.fromkeys(_precision(entry) for entry in layers)
        marks = [Patch(color=COLOURS[name], label=f"ended {title(name)}") for name in present]
        figure.legend(handles=marks, loc="outside upper left", ncols=3, borderpad=0, handlelength=1)

    return draw(f"damages{width:.0f}", width, 84 + ROW * len(layers), "damage done by each layer alone", paint)


def histogram(entry: LayerHistogram, name: str) -> Element:
    """Draw the values that went into one layer, on a logarithmic axis, and the range chosen for them."""
    bars = len(entry.counts)
    edges = [entry.low + (entry.high - entry.low) * index / bars for index in range(bars + 1)]
    middles = [entry.low + (entry.high - entry.low) * (index + 0.5) / bars for index in range(bars)]
    inside = [entry.range_low <= middle <= entry.range_high for middle in middles]

    def paint(figure: Figure) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

        axes = figure.add_subplot()
        axes.axvspan(entry.range_low, entry.range_high, color=COLOURS["band"], linewidth=0)
        for within, colour in ((True, COLOURS["int8"]), (False, COLOURS["bad"])):
            counts = [float(c) if where is within else 0.0 for c, where in zip(entry.counts, inside)]
            if any(counts):
                axes.stairs(counts, edges, baseline=0.5, fill=True, color=colour, linewidth=0)
        for edge in (entry.range_low, entry.range_high):
            axes.axvline(edge, color=COLOURS["ink"], linewidth=1.2)
        axes.set_yscale("log")
        axes.set_ylim(0.5, max(10, *entry.counts) * 2)
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.yaxis.minorticks_off()
        axes.xaxis.set_major_locator(MaxNLocator(4))

    return draw(name, 290, 150, f"values that enter {entry.layer}, and their range", paint)


def error_curves(curves: Sequence[Curve], width: float) -> Element:
    """Draw the signal-to-noise ratio of each form along the network, with the same as a share of the signal."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for curve, (colour, dashes) in zip(curves, itertools.cycle(_LINES)):
            values = [CEILING_DB if p.sqnr_db is None else min(p.sqnr_db, CEILING_DB) for p in curve.points]
            places = range(1, len(values) + 1)
            axes.plot(places, values, dashes, color=COLOURS[colour], marker="o", markersize=4, label=_name(curve.form))
        axes.grid(axis="y")
        axes.set(xlabel="layer, from the picture to the answer", ylabel="signal to error, dB")
        axes.set_ylim(top=CEILING_DB + 3)
        axes.set_xlim(0.5, len(curves[0].points) + 0.5)
        _whole_numbers(axes)
        share = axes.secondary_yaxis("right")
        share.spines["right"].set_visible(False)
        share.set_yticks([0, 20, 40, 60], labels=["100 %", "10 %", "1 %", "0.1 %"])
        share.set_ylabel("error's share of the signal")
        if len(curves) > 1:
            figure.legend(loc="outside upper left", ncols=4, borderpad=0)

    return draw(f"curve{width:.0f}", width, 270, "signal to error ratio layer by layer", paint)


def search(steps: Sequence[SearchStep], budget: float | None, width: float) -> Element:
    """Draw what the search tried: the share of INT8 across, points lost upwards, the way it went as a line."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        taken = [step for step in steps if step.accepted]
        axes.plot([100 * s.int8_share for s in taken], [s.drop for s in taken], color=COLOURS["good"], linewidth=1.5)
        for accepted, colour, label in ((True, "good", "kept"), (False, "bad", "rejected")):
            chosen = [step for step in steps if step.accepted is accepted]
            for step in chosen:
                if step.interval is not None:
                    across = 100 * step.int8_share
                    axes.plot((across, across), step.interval, color=COLOURS[colour], linewidth=5, alpha=0.15)
            if chosen:
                places = [100 * step.int8_share for step in chosen], [step.drop for step in chosen]
                face = COLOURS[colour] if accepted else "none"
                axes.plot(*places, "o", color=COLOURS[colour], markerfacecolor=face, label=label)
        axes.axhline(0, color=COLOURS["muted"], linewidth=1)
        if budget is not None:
            axes.axhline(budget, color=COLOURS["bad"], linewidth=1.5, linestyle="--", label=f"budget {budget:g}")
        axes.set(xlabel="share in INT8, %", ylabel="points lost")
        axes.grid()
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=3, borderpad=0)

    return draw(f"search{width:.0f}", width, 290, "share of INT8 against points lost, for each step", paint)


def sizes(forms: Sequence[Form]) -> Element:
    """Draw the size of each form."""
    shown = [form for form in forms if form.size is not None]
    return _amounts("sizes", shown, [form.size or 0 for form in shown], megabytes, "size of each form")


def latencies(forms: Sequence[Form]) -> Element:
    """Draw the latency of each form."""
    shown = [form for form in forms if form.latency_ms is not None]
    values = [form.latency_ms or 0.0 for form in shown]
    return _amounts("latencies", shown, values, milliseconds, "latency of each form")


_LINES = (("int8", "-"), ("good", "-"), ("fp16", "--"), ("bad", ":"), ("fp32", "-."))


def _amounts(
    name: str, forms: Sequence[Form], values: Sequence[float], word: Callable[[float], str], description: str
) -> Element:
    def paint(figure: Figure) -> None:
        axes = _rows(figure, [_name(form.name) for form in forms])
        axes.barh(range(len(values)), values, color=[COLOURS[_family(form.name)] for form in forms], height=0.62)
        for row, value in enumerate(values):
            _beside(axes, value, row, word(value))
        axes.margins(x=0.3)
        axes.set_xlim(left=0)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)

    return draw(name, NARROW, 16 + 28 * len(forms), description, paint)


def _rows(figure: Figure, names: Sequence[str]) -> Axes:
    """Add axes with a row for each name, the first one on top."""
    axes = figure.add_subplot()
    axes.set_yticks(range(len(names)), labels=names, color=COLOURS["ink"])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    return axes


def _under(figure: Figure, text: str) -> None:
    """Name the axis across the whole figure: beside long names, the axes are narrower than the text."""
    figure.supxlabel(text, fontsize=TEXT, color=COLOURS["muted"])


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _beside(axes: Axes, value: float, row: int, text: str, left: bool = False) -> None:
    away: dict[str, Any] = {"xytext": (-5 if left else 5, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (value, row), ha="right" if left else "left", fontsize=11, **away)


def _above(axes: Axes, value: float, text: str, colour: str) -> None:
    axes.annotate(
        text,
        (value, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=11,
        color=COLOURS[colour],
    )


def _name(form: str) -> str:
    return cut(title(form), NAME)


def _precision(entry: LayerDamage) -> str:
    return entry.precision if entry.precision in ("int8", "fp16") else "fp32"


def _family(form: str) -> str:
    """Return the colour of a form; a mixed one is mostly INT8's."""
    return next((name for name in ("fp32", "fp16") if form.endswith(name)), "int8")
