"""Times of the kernels at the stages of vit_lsla_t, as shares of the device's ceilings, beside PyTorch's."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plugins.gpu.cases import Case, Shape, random_case
from plugins.gpu.competitors import competitors
from plugins.gpu.driver import Kernel
from plugins.gpu.timing import Ceilings, Work, median_us
from plugins.variants import Variant

STAGES = {(96, 14): 4, (192, 14): 2, (384, 14): 1, (768, 7): 1}  # (C, window) -> windows down and across
HEAD_WIDTH = 32
TIMES_CACHE = 3  # data in rotation, so that no cache holds them all
MOST_SETS = 512
COMPILED_BATCHES = (1, 32)  # compiling a formula takes seconds


@dataclass(frozen=True)
class Point:
    """One kernel at one size."""

    variant: Variant
    shape: Shape

    @property
    def rival(self) -> tuple[object, ...]:
        """What the competitors depend on: int8 competes with float16, PyTorch's nearest."""
        kind = "fp16" if self.variant.dtype == "int8" else self.variant.dtype
        return self.variant.kernel == "residual", kind, self.variant.window, self.shape


def points(variants: Mapping[Variant, Kernel], batches: tuple[int, ...]) -> list[Point]:
    """List the stages that each kernel fits, at each batch."""
    return [
        Point(variant, Shape(batch, side, side, channels // HEAD_WIDTH))
        for variant in variants
        for (channels, window), side in STAGES.items()
        if (variant.window, variant.head_width) == (window, HEAD_WIDTH) and variant.channels in (0, channels)
        for batch in batches
    ]


def ours(
    kernels: Mapping[Variant, Kernel], todo: list[Point], ceilings: Ceilings, seed: int
) -> Iterator[dict[str, Any]]:
    """Time our kernels: a row each."""
    for point in todo:
        cases = rotation(random_case(point.variant, point.shape, seed, device="cuda"))
        us = median_us(_calls(cases, kernels[point.variant]))
        work, (least, bound) = Work.of(cases[0]), ceilings.time_us(cases[0])
        rate = work.bytes / us * 1e6
        yield {
            "variant": point.variant.name,
            "channels": point.shape.heads * HEAD_WIDTH,
            "batch": point.shape.batch,
            "us": us,
            "bytes_per_s": rate,
            "of_copy": rate / ceilings.bandwidth,
            "of_ceiling": least / us,
            "bound": bound,
            "data_sets": len(cases),
        }


def others(
    kernels: Mapping[Variant, Kernel], todo: list[Point], names: tuple[str, ...], seed: int, deadline: float
) -> Iterator[tuple[Point, str, float | str]]:
    """Time PyTorch's ways by name, where they can compute a point; a failure is its reason. Ends at the deadline."""
    known: dict[tuple[object, ...], float | str] = {}
    for name in names:
        for point in todo:
            if name == "compile" and point.shape.batch not in COMPILED_BATCHES:
                continue
            key = (*point.rival, name)
            if key not in known:
                if time.monotonic() > deadline:
                    return
                cases = rotation(random_case(point.variant, point.shape, seed, device="cuda"))
                way = competitors(point.variant, cases, kernels).get(name)
                if way is None:
                    continue
                try:
                    known[key] = median_us(_calls(cases, way))
                except Exception as error:  # a competitor that fails must not cost our own figures
                    known[key] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
                    torch.cuda.synchronize()
            yield point, name, known[key]


def rotation(case: Case) -> list[Case]:
    """Return enough copies of a case with other data that together they are several times the cache."""
    data = 2 if case.variant.kernel != "residual" else 1  # of the inputs: x and query
    size = sum(tensor.nbytes for tensor in (*case.inputs[:data], case.inputs[0]))
    cache = torch.cuda.get_device_properties(0).L2_cache_size if case.inputs[0].is_cuda else 0
    count = max(1, min(MOST_SETS, -(-TIMES_CACHE * cache // size)))
    rolled = [
        tuple(tensor.roll(shift, 0).roll(shift, -1) for tensor in case.inputs[:data]) for shift in range(1, count)
    ]
    copies = [
        dataclasses.replace(
            case,
            inputs=(*new, *case.inputs[data:]),
            real=(*(t.to(r.dtype) for t, r in zip(new, case.real)), *case.real[data:]),
        )
        for new in rolled
    ]
    return [case, *copies]


def _calls(cases: list[Case], run: Callable[[Case, Tensor], object]) -> list[Callable[[], object]]:
    outputs = [case.output() for case in cases]
    return [lambda c=case, y=y: run(c, y) for case, y in zip(cases, outputs)]  # type: ignore[misc]
