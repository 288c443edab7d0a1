"""Times on a GPU, and what they are measured against: copy bandwidth, matrix rate and exp rate of the same device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from plugins.gpu.cases import Case
from plugins.variants import Variant

LAUNCHES = 20  # in one captured graph
REPLAYS = 25
WARM_SECONDS = 0.1
EXPONENTIALS = 256  # for each element of the exp kernel


def median_us(calls: list[Callable[[], object]]) -> float:
    """Return the median time of one call in microseconds.

    The calls do the same on different data, so that nothing stays in the cache that would not stay there in use. They
    are captured into a CUDA graph: launches from Python take longer than small kernels run.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())  # the data were made there
    with torch.cuda.stream(stream):
        for call in calls:  # compiles, loads, allocates
            call()
            call()
    stream.synchronize()
    count = -(-LAUNCHES // len(calls)) * len(calls)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for number in range(count):
            calls[number % len(calls)]()
    until = time.monotonic() + WARM_SECONDS  # a GPU lowers its clock while it waits for a compiler
    while time.monotonic() < until:
        graph.replay()
        torch.cuda.synchronize()
    times: list[float] = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / count)
    return statistics.median(times)


@triton.jit  # type: ignore[untyped-decorator]
def _exponentials(values: Any, TIMES: tl.constexpr) -> None:
    places = tl.program_id(0) * 1024 + tl.arange(0, 1024)
    value = tl.load(values + places)
    for _ in range(TIMES):
        value = tl.exp2(value) - 1.0
    tl.store(values + places, value)


@dataclass(frozen=True)
class Ceilings:
    """What this device does at most, measured.

    Attributes:
        bandwidth: bytes read plus bytes written by a copy of 1 GiB, per second.
        products: multiply-adds per second of a large matrix product, by type.
        exponentials: exp2 per second.
    """

    bandwidth: float
    products: dict[str, float]
    exponentials: float

    def time_us(self, case: Case) -> tuple[float, str]:
        """Return the least time that a case can take, and what bounds it."""
        work = Work.of(case)
        bounds = {
            "bandwidth": work.bytes / self.bandwidth,
            "products": work.multiply_adds / self.products[case.variant.dtype],
            "exp": work.exponentials / self.exponentials,
        }
        bound = max(bounds, key=lambda name: bounds[name])
        return bounds[bound] * 1e6, bound


@dataclass(frozen=True)
class Work:
    """What a case must do at least: bytes (each input read once, y written once), multiply-adds, exponentials."""

    bytes: int
    multiply_adds: int
    exponentials: int

    @classmethod
    def of(cls, case: Case) -> Work:
        """Count the mathematical form: two products of [T, T] by d for each head and window."""
        variant, shape = case.variant, case.shape
        tensors = (*case.inputs, case.inputs[0])  # y is as large as x
        pairs = shape.num_windows * shape.heads * variant.tokens**2
        products = 2 * pairs * variant.head_width
        if variant.kernel == "residual":
            products += shape.num_windows * variant.tokens * variant.channels**2
        return cls(sum(tensor.nbytes for tensor in tensors), products, pairs)


def measure_ceilings(variants: tuple[Variant, ...]) -> Ceilings:
    """Measure the device: about a second."""
    values = torch.rand(1 << 22, device="cuda")
    programs = values.numel() // 1024
    exp_us = median_us([lambda: _exponentials[(programs,)](values, TIMES=EXPONENTIALS)])
    products = {dtype: _products(dtype) for dtype in sorted({variant.dtype for variant in variants})}
    return Ceilings(_bandwidth(), products, values.numel() * EXPONENTIALS / (exp_us * 1e-6))


def _bandwidth() -> float:
    source = torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (median_us([lambda: target.copy_(source)]) * 1e-6)


def _products(dtype: str) -> float:
    side = 8192 if dtype != "fp32" else 4096
    kinds = {"fp16": torch.float16, "fp32": torch.float32, "int8": torch.int8}
    a, b = (torch.randint(-100, 100, (side, side), device="cuda").to(kinds[dtype]) for _ in range(2))
    if dtype == "int8":
        multiply: Callable[[], object] = lambda: torch._int_mm(a, b.t())  # noqa: E731
    else:
        a, b = a / 100, b / 100
        multiply = lambda: a @ b  # noqa: E731
    return float(side**3 / (median_us([multiply]) * 1e-6))
