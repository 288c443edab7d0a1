"""A picture of the time per layer."""

from __future__ import annotations

from pathlib import Path

from edge_lsla.atomic import atomic_path
from edge_lsla.errors import EdgeLslaError, MissingComponentError
from edge_lsla.layer_times import Measured

SHOWN = 30
# Told apart by those who see few colours too (Paul Tol's bright scheme).
COLOURS = {"fp32": "#4477aa", "fp16": "#228833", "int8": "#ee6677", "bf16": "#ccbb44"}
OTHER = "#aa3377"
LONGEST_NAME = 48  # letters; TensorRT's names of fused layers fill a page


def check_drawing() -> None:
    """Refuse to draw where matplotlib is absent; asked before anything is measured.

    Raises:
        MissingComponentError: it is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401  # costs half a second
    except ImportError as error:
        raise MissingComponentError(
            "drawing needs matplotlib", "this Python", "pip install matplotlib, or let the output end in .csv"
        ) from error


def draw_times(measured: Measured, path: Path) -> None:
    """Draw the slowest layers as bars, coloured by precision, as a PNG.

    Raises:
        MissingComponentError: matplotlib is not installed.
        EdgeLslaError: nothing was measured, or the file cannot be written.
    """
    check_drawing()
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not measured.layers:
        raise EdgeLslaError("no layer was reported", measured.artifact, "profile another artifact")
    slowest, rest = measured.slowest[:SHOWN], measured.slowest[SHOWN:]
    names = [_short(layer.name) for layer in slowest]
    values = [layer.milliseconds for layer in slowest]
    colours = [COLOURS.get(layer.precision, OTHER) for layer in slowest]
    notes = [f"{layer.milliseconds:.3f} ms, {layer.kind}".rstrip(", ") for layer in slowest]
    figure = Figure(figsize=(10, 1.4 + 0.26 * len(names)), layout="constrained")
    axes = figure.subplots()
    # By number: two layers may have the same short name.
    bars = axes.barh(range(len(names)), values, color=colours)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.bar_label(bars, notes, padding=3, fontsize=7, parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.3, y=0.01)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    # As a bar they would dwarf the others.
    taken = sum(layer.milliseconds for layer in rest)
    others = f"; {len(rest)} layers that are not shown take {taken:.3f} ms together" if rest else ""
    axes.set_xlabel(f"median time of one inference, ms{others}")
    device = measured.runner.get("device", measured.backend)
    figure.suptitle(
        f"{measured.artifact} on {device}, batch {measured.batch}: {measured.total_ms:.3f} ms in "
        f"{len(measured.layers)} layers, {measured.inference_ms:.3f} ms an inference when not profiled",
        fontsize=10, parse_math=False,
    )  # fmt: skip
    shown = dict.fromkeys(layer.precision for layer in slowest)
    handles = [Patch(color=COLOURS.get(name, OTHER), label=name or "unknown") for name in shown]
    axes.legend(handles=handles, loc="lower right", title="precision")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 + 1 :]}"
