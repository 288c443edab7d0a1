"""How far a kernel's result may lie from float64, by the type it computes in."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.gpu.cases import Case, compute

# Of fp32: a multiple of what the same formula loses in PyTorch; two roundings of a result are let pass where PyTorch
# happens to be exact.
TIMES_TORCH = 4
FLOOR = 2 * torch.finfo(torch.float32).eps
FP16 = 1e-3
# Of int8: what the kernel's own int8 weights may add to the loss by rounding x, query and y. On the data of `cases`
# that loss is 1 to 2 %, on small maps with a heavy tail up to 2.6 %.
TIMES_FORMAT = 1.15


def relative_error(value: Tensor, answer: Tensor) -> float:
    """Return |value - answer| / |answer| in the Euclidean norm; NaN where anything is."""
    return float((value.double() - answer).norm() / answer.norm())


def error_of(case: Case, y: Tensor) -> float:
    """Return the relative error of a kernel's output against the operator in float64."""
    return relative_error(case.value(y), case.answer())


def format_error(case: Case) -> float:
    """Return what rounding x, query and y to int8 costs, everything between being float64."""
    step = case.inputs[-1].double()
    y = (case.answer(as_given=True) / step).round().clamp(-128, 127) * step
    return relative_error(y, case.answer())


def allowed(case: Case) -> float:
    """Return the largest relative error that a right kernel makes on a case of ordinary values."""
    if case.variant.dtype == "int8":
        return TIMES_FORMAT * format_error(case)
    if case.variant.dtype == "fp16":
        return FP16
    return max(TIMES_TORCH * relative_error(compute(case.variant, case.real, torch.float32), case.answer()), FLOOR)
