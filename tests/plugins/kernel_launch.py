"""Running the kernels in Triton's interpreter: NumPy on the CPU, program by program, no compiler."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from plugins.gpu.cases import EPSILON, Case, Shape, compute, random_case
from plugins.variants import Variant

pytest.importorskip("triton", reason="the kernels need Triton")

# The bounds asked of a kernel on ordinary values. Of fp32: a multiple of what the same formula loses in PyTorch; two
# roundings of a result are let pass where PyTorch happens to be exact.
TIMES_TORCH = 4
FLOOR = 2 * torch.finfo(torch.float32).eps
FP16 = 1e-3
INT8 = (
    2e-2  # int8 inputs, weights and output together, against the real inputs; some data lose more by the format alone
)
TIMES_FORMAT = 1.15  # what the int8 weights of the kernel may add to that


def launch(case: Case, per_program: int = 1) -> Tensor:
    """Run a case; the output lies between two guard strips, which nothing may write."""
    variant, shape = case.variant, case.shape
    kernel: Any = getattr(importlib.import_module(variant.module), variant.function)
    poisoned = case.output()
    poison = poisoned.reshape(-1)[0].item()
    guard = 4096
    memory = torch.full((poisoned.numel() + 2 * guard,), poison, dtype=poisoned.dtype)
    y = memory[guard:-guard].view(poisoned.shape)
    numbers: list[Any] = [EPSILON] if variant.kernel == "residual" else []
    numbers += [shape.num_windows, shape.down, shape.across, shape.heads, per_program]
    grid = variant.grid(shape.num_windows, shape.heads, per_program)
    kernel[(grid,)](*case.inputs, y, *numbers, **variant.constants)
    for strip in (memory[:guard], memory[-guard:]):
        assert torch.equal(strip, torch.full_like(strip, poison)) or strip.isnan().all(), "wrote outside its output"
    return y


def relative_error(value: Tensor, answer: Tensor) -> float:
    """Return |value - answer| / |answer| in the Euclidean norm; NaN where anything is."""
    return float((value.double() - answer).norm() / answer.norm())


def format_error(case: Case) -> float:
    """Return what rounding x, query and y to int8 costs, everything between being float64."""
    step = case.inputs[-1].double()
    y = (case.answer(as_given=True) / step).round().clamp(-128, 127) * step
    return relative_error(y, case.answer())


def check(case: Case, per_program: int = 1) -> float:
    """Run a case of ordinary values, hold its error to the bound, and return it."""
    y = launch(case, per_program)
    error = relative_error(case.value(y), case.answer())
    if case.variant.dtype == "fp32":
        torchs = relative_error(compute(case.variant, case.real, torch.float32), case.answer())
        assert error <= max(TIMES_TORCH * torchs, FLOOR)
    elif case.variant.dtype == "fp16":
        assert error <= FP16
    else:
        assert error <= TIMES_FORMAT * format_error(case)
    return error


def ordinary(variant: Variant, seed: int = 0) -> Case:
    """Two images of 1 x 2 windows for small windows, one for large: strides of all kinds, few programs."""
    heads = variant.channels // variant.head_width if variant.channels else 2
    return random_case(variant, Shape(2 if variant.window < 9 else 1, 1, 2, heads), seed)
