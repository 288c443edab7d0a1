"""The table of `compare`, made with rich."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edge_lsla.comparing import FormsCompared

if TYPE_CHECKING:
    from calibration.comparison import Comparison
    from calibration.differences import TensorError

ROWS = 24
SHOWN_IMAGES = 5
UNLIMITED = 10_000  # columns


def comparison(result: FormsCompared) -> RenderableType:
    """Lay out a comparison: the logits, where the two part, the layers that add most error, and the worst pictures."""
    found = result.comparison
    parts: list[RenderableType] = [
        Text(f"{result.first['name']} and {result.second['name']} on {found.images} images", style="bold"),
        f"logits: {_number(found.logits.max_abs)} apart at most, SQNR {_decibels(found.logits)} dB; "
        f"top-1 agreement {found.top1_agreement:.2f} % ({found.disagreements} differ)",
        Text(found.verdict, style="red" if found.first_parting else "green"),
    ]
    if found.steepest is not None:
        parts.append(f"the relative error rises most at {found.steepest}")
    for one in found.not_finite:
        place = f"{one.layer} ({one.op})" if one.op else one.name
        text = f"NaN or infinity in {one.side}: first at {place}, {one.values} values, image {one.index}"
        parts.append(Text(text, style="bold red"))
    if found.matched:
        parts.append(_layers(found))
    if result.worst:
        parts.append(_images(result))
    parts += [Text(note, style="yellow") for note in result.notes]
    parts += [Text(f"skipped: {error}", style="yellow") for error in result.skipped]
    return Group(*parts)


def _layers(found: Comparison) -> RenderableType:
    rows = _choose(found)
    more = f"the first has {found.unmatched[0]} more, the second {found.unmatched[1]}"
    of = f"{len(found.matched)} tensors that both have ({more})"
    title = of if len(rows) == len(found.matched) else f"{len(rows)} of {of}, those with the largest rises of error"
    table = Table(title=title, title_justify="left")
    for column in ("layer", "operator", "module"):
        table.add_column(column, no_wrap=True)
    for column in ("SQNR dB", "rel. error", "max |diff|", "rise"):
        table.add_column(column, justify="right", no_wrap=True)
    parted = found.first_parting and found.first_parting.at
    for error in (*rows, found.logits):
        name = "logits" if error is found.logits else error.layer
        numbers = (_number(error.rel_l2), _number(error.max_abs), _number(error.rise) if error.rise > 0 else "")
        style = "red" if error is parted else None
        table.add_row(name, error.op, error.module, _decibels(error), *numbers, style=style)
    # A name in pieces is no name: on a narrow terminal lines are longer than it is.
    table.width = Console(width=UNLIMITED).measure(table).maximum
    return table


def _choose(found: Comparison) -> Sequence[TensorError]:
    """Keep graph order, and of many tensors those where error rises most, around the place where the two part."""
    if len(found.matched) <= ROWS:
        return found.matched
    kept = {error.name for error in sorted(found.matched, key=lambda error: -error.rise)[: ROWS - 2]}
    if found.first_parting is not None:
        kept |= {one.name for one in (found.first_parting.at, found.first_parting.before) if one is not None}
    return [error for error in found.matched if error.name in kept]


def _images(result: FormsCompared) -> RenderableType:
    table = Table(title="pictures whose logits differ most", title_justify="left")
    table.add_column("picture", overflow="fold")
    table.add_column("max |diff|", justify="right")
    for side in (result.first, result.second):
        table.add_column(side["name"], overflow="fold")
    for one, (path, first, second) in list(zip(result.comparison.worst, result.worst))[:SHOWN_IMAGES]:
        style = "red" if one.first != one.second else None
        table.add_row(f"{path.parent.name}/{path.name}", _number(one.max_abs), first, second, style=style)
    return table


def _decibels(error: TensorError) -> str:
    if math.isfinite(error.sqnr_db):
        return f"{error.sqnr_db:.1f}"
    return "equal" if error.sqnr_db > 0 else "NaN/Inf" if any(error.not_finite) else "-inf"


def _number(value: float) -> str:
    return f"{value:.2e}" if math.isfinite(value) else "inf"
