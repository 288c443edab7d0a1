"""Running the kernels in Triton's interpreter: NumPy on the CPU, program by program, no compiler."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from plugins.gpu.bounds import allowed, error_of
from plugins.gpu.cases import EPSILON, Case, Shape, random_case
from plugins.variants import Variant

pytest.importorskip("triton", reason="the kernels need Triton")

INT8 = 2e-2  # int8 inputs, weights and output together, against the real inputs, of the shipped variants


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


def check(case: Case, per_program: int = 1) -> float:
    """Run a case of ordinary values, hold its error to the bound, and return it."""
    error = error_of(case, launch(case, per_program))
    assert error <= allowed(case)
    return error


def ordinary(variant: Variant, seed: int = 0) -> Case:
    """Two images of 1 x 2 windows for small windows, one for large: strides of all kinds, few programs."""
    heads = variant.channels // variant.head_width if variant.channels else 2
    return random_case(variant, Shape(2 if variant.window < 9 else 1, 1, 2, heads), seed)
