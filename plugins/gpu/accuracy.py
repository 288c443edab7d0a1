"""The kernels on this GPU against float64: through the driver, and through the plugin's enqueue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from edge_lsla.errors import EdgeLslaError
from plugins.gpu import enqueue
from plugins.gpu.bounds import allowed, error_of
from plugins.gpu.cases import Shape, random_case
from plugins.gpu.driver import Kernel
from plugins.variants import Variant

SHAPES = ((1, 1, 1), (3, 1, 2), (2, 3, 1), (33, 2, 2))  # batch, windows down, across
PER_SAMPLE = 20  # enqueues between two events


def through_the_driver(kernels: Mapping[Variant, Kernel], seed: int) -> Iterator[dict[str, Any]]:
    """Launch each kernel on odd shapes with fresh data and a poisoned output; give a row each, the worst case's."""
    for variant, kernel in kernels.items():
        rows = []
        for number, (batch, down, across) in enumerate(SHAPES):
            shape = Shape(batch, down, across, variant.channels // variant.head_width or 5)
            case = random_case(variant, shape, seed + number, device="cuda")
            y = case.output()
            kernel(case, y)
            torch.cuda.synchronize()
            rows.append(_row(variant, error_of(case, y), allowed(case)) | {"image": kernel.entry.kind})
        yield max(rows, key=lambda row: (not row["ok"], row["error"] / row["allowed"]))


def through_the_plugin(
    kernels: Mapping[Variant, Kernel], library: Path, harness: Path, seed: int
) -> Iterator[dict[str, Any]]:
    """Have the harness make and enqueue the plugin for each variant, eagerly and from a CUDA graph."""
    for variant in kernels:
        shape = Shape(2, 1, 2, variant.channels // variant.head_width or 6)
        case = random_case(variant, shape, seed, device="cuda")
        for graph in (False, True):
            try:
                y, took = enqueue.run(harness, library, case, graph=graph, per_sample=PER_SAMPLE)
                row = _row(variant, error_of(case, y.cuda()), allowed(case)) | {"enqueue_us": took}
            except EdgeLslaError as failure:
                row = {"variant": variant.name, "ok": False, "why": str(failure)}
            yield row | {"graph": graph}


def _row(variant: Variant, error: float, most: float) -> dict[str, Any]:
    # Written so that NaN is a failure.
    return {"variant": variant.name, "error": error, "allowed": most, "ok": bool(error <= most)}
