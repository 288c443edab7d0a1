"""Sections about layers: damage, ranges, the error along the network; each is None where its data is absent."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from calibration.report import plots
from calibration.report.data import Curve, LayerDamage, LayerHistogram, ReportData
from calibration.report.elements import either_width, folded, section, table, tag
from calibration.report.wording import (
    ABSENT,
    count,
    decibels,
    noise_percent,
    number,
    percent,
    small_share,
    title,
)

LAYERS_DRAWN = 24
HISTOGRAMS_SHOWN = 12
KEYS = (("kept", "values inside the range"), ("cutoff", "values cut to its edge"), ("covered", "the range chosen"))


def sensitivity(data: ReportData) -> Element | None:
    """Rank the layers by the damage that each does alone."""
    if all(entry.snr_db is None and entry.flips is None for entry in data.damages):
        return None
    ranked = sorted(data.damages, key=lambda e: (_decibels(e), -(e.flips or 0), e.layer))
    int8 = sum(entry.precision == "int8" for entry in ranked)
    rows = [
        (
            entry.layer,
            ABSENT if entry.snr_db is None else percent(noise_percent(entry.snr_db)),
            decibels(entry.snr_db),
            ABSENT if entry.flips is None else f"{entry.flips:,}",
            title(entry.precision),
        )
        for entry in ranked
    ]
    images = f", on {count(data.damage_images, 'picture')}" if data.damage_images else ""
    by_flips = all(entry.snr_db is None for entry in ranked)
    bar = "how many answers change" if by_flips else "how far the answers' scores shift, in percent of their size"
    worst = f" The {LAYERS_DRAWN} worst are drawn." if len(ranked) > LAYERS_DRAWN else ""
    heads = ("layer", "shift", "signal to noise", "flips", "ended in")
    return section(
        "sensitivity",
        "Which layers suffer",
        f"One layer at a time is put into INT8 while all others stay exact{images}. The bar shows {bar}: "
        f"the longer, the more that layer suffers. {int8} of {count(len(ranked), 'layer')} ended in INT8.{worst}",
        *either_width(lambda width: plots.damages(ranked[:LAYERS_DRAWN], data.damage_images, width)),
        folded("All layers in numbers", table(heads, rows, "worst first", "cards")),
    )


def histograms(data: ReportData) -> Element | None:
    """Show the values of the most damaging and most clipped layers, with the ranges chosen."""
    if not data.histograms:
        return None
    shown = choose_histograms(data.histograms, data.damages, HISTOGRAMS_SHOWN)
    cards = [
        tag(
            "figure",
            plots.histogram(entry, f"histogram{index}"),
            tag(
                "figcaption",
                tag("b", entry.layer),
                f": {small_share(entry.outside)} outside; range {_value(entry.range_low)} to "
                f"{_value(entry.range_high)} (tensor {entry.tensor})",
            ),
        )
        for index, entry in enumerate(shown)
    ]
    left = len(data.histograms) - len(shown)
    more = f" The {len(shown)} most damaging or most clipped of {len(data.histograms)} are shown." if left else ""
    return section(
        "histograms",
        "Where the ranges lie",
        "How often each value went into a layer while calibrating. The scale is logarithmic: the same height up means "
        "the same number of times as often. The two lines are the range that INT8's 256 steps are spread over. Values "
        "beyond it are cut to its edge; a range much wider than the values leaves only coarse steps for most of them."
        + more,
        tag(
            "p",
            *(tag("span", text, class_=f"key {key}") for key, text in KEYS),
            class_="keys",
        ),
        tag("div", *cards, class_="multiples"),
    )


def curves(data: ReportData) -> Element | None:
    """Show the error layer by layer."""
    drawn = [curve for curve in data.curves if curve.points]
    if not drawn:
        return None
    layers = [point.layer for point in drawn[0].points]
    rows = [
        (str(place + 1), layer, *(_signal(curve.points[place].sqnr_db) for curve in drawn))
        for place, layer in enumerate(layers)
    ]
    heads = ("place", "layer", *(title(curve.form) for curve in drawn))
    return section(
        "curve",
        "How the error grows through the network",
        "What each layer makes is compared with the exact model: higher is better. At 40 dB the error is 1 % of the "
        "signal, at 20 dB 10 %, at 0 dB as large as the signal itself; 60 dB and better is drawn at the top. A sudden "
        "fall marks a layer where something goes wrong; a gentle slope is rounding that adds up.",
        *either_width(lambda width: plots.error_curves(drawn, width)),
        tag("ul", *(tag("li", _lowest(curve)) for curve in drawn)),
        folded("All layers in numbers", table(heads, rows, "signal to error, dB", "cards")),
    )


def choose_histograms(
    found: Sequence[LayerHistogram], damages: Sequence[LayerDamage], most: int
) -> tuple[LayerHistogram, ...]:
    """Take half by damage and the rest by how much is cut off, in the order of the network."""
    damage = {entry.layer: _decibels(entry) for entry in damages if entry.snr_db is not None}
    indices = range(len(found))
    by_damage = sorted((i for i in indices if found[i].layer in damage), key=lambda i: damage[found[i].layer])
    by_clipping = sorted(indices, key=lambda i: -found[i].outside)
    chosen = dict.fromkeys((*by_damage[: most // 2], *by_clipping))
    return tuple(found[index] for index in sorted(list(chosen)[:most]))


def _lowest(curve: Curve) -> str:
    """Name the layer of the largest error."""
    measured = [(p.sqnr_db, place, p.layer) for place, p in enumerate(curve.points, 1) if p.sqnr_db is not None]
    if not measured:
        return f"{title(curve.form)}: no layer differs."
    lowest, place, layer = min(measured)
    return (
        f"{title(curve.form)}: the largest error is at layer {place}, {layer}, with {decibels(lowest)} "
        f"({percent(noise_percent(lowest), 1)} of the signal)."
    )


def _decibels(entry: LayerDamage) -> float:
    return float("inf") if entry.snr_db is None else entry.snr_db


def _signal(ratio: float | None) -> str:
    return "no difference" if ratio is None else decibels(ratio)


def _value(value: float) -> str:
    return number(value, 2 if abs(value) >= 0.1 or value == 0 else 4)
