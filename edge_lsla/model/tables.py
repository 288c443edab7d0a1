"""Tables of a model's size, made with rich."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from edge_lsla.model.config import VitLslaConfig
from edge_lsla.model.profile import Counts

SWIN_T = ("Swin-T, arXiv 2103.14030, 1000 classes", 28.3e6, 4.5e9)
PAPER = ("ViT-LSLA, arXiv 2210.17115, 102 classes", 18.9e6, 3.5e9)
SWIN_T_PAPER = ("Swin-T, arXiv 2210.17115, 102 classes", 27.6e6, 4.5e9)


@dataclass(frozen=True)
class StageRow:
    """One row of the stage table."""

    stage: str
    feature_map: str
    width: int
    depth: int
    heads: int
    window: int
    parameters: int
    multiply_adds: int


def stage_rows(config: VitLslaConfig, counts: Mapping[str, Counts]) -> list[StageRow]:
    """Return the stem, each stage (with the convolution before it) and the head."""
    side = config.feature_map(1)
    rows = [StageRow("stem", f"{side}x{side}", config.widths[0], 0, 0, 0, *_pair(counts["stem"]))]
    for index, (width, depth, window) in enumerate(zip(config.widths, config.depths, config.windows)):
        side, heads = config.feature_map(index + 1), width // config.head_width
        pair = _pair(counts[f"stages.{index}"])
        rows.append(StageRow(f"stage {index + 1}", f"{side}x{side}", width, depth, heads, window, *pair))
    head = Counts(counts["norm"].parameters + counts["head"].parameters, counts["head"].multiply_adds)
    rows.append(StageRow("head", "1x1", config.classes, 0, 0, 0, *_pair(head)))
    return rows


def stages(config: VitLslaConfig, rows: list[StageRow]) -> Table:
    """Lay out the stage table."""
    table = Table(title=f"{config.name}, {config.image_size} px, {config.classes} classes", title_justify="left")
    for name in ("", "map", "width", "blocks", "heads", "window", "parameters", "mult-adds"):
        table.add_column(name, justify="left" if name == "" else "right")
    for row in rows:
        blocks = [str(v) if v else "" for v in (row.depth, row.heads, row.window)]
        size = (f"{row.parameters / 1e6:.3f} M", f"{row.multiply_adds / 1e9:.3f} G")
        table.add_row(row.stage, row.feature_map, str(row.width), *blocks, *size)
    return table


def comparison(config: VitLslaConfig, counts: Counts) -> Table:
    """Lay the model beside the published figures."""
    table = Table(title="beside published figures", title_justify="left")
    for name in ("", "parameters", "multiply-adds"):
        table.add_column(name, justify="left" if name == "" else "right")
    mine = (f"{config.name}, counted here, {config.classes} classes", counts.parameters, counts.multiply_adds)
    for name, parameters, multiply_adds in (mine, PAPER, SWIN_T_PAPER, SWIN_T):
        table.add_row(name, f"{parameters / 1e6:.2f} M", f"{multiply_adds / 1e9:.2f} G")
    return table


def _pair(counts: Counts) -> tuple[int, int]:
    return counts.parameters, counts.multiply_adds
