"""The parts of `make gpu-check` that need no GPU: yardsticks, counts, the harness's language, and its refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_lsla import operator
from plugins.gpu import enqueue, formulas
from plugins.gpu.cases import EPSILON, Shape, compute, random_case
from plugins.variants import Variant

ROOT = Path(__file__).parents[2]


def numbers(tensors: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


def test_the_yardstick_is_the_operator() -> None:
    """The PyTorch formula in float64 and the contract's NumPy reference were written apart."""
    case = random_case(Variant("attention", "fp32", 5, 16), Shape(2, 2, 3, 2), 0)
    expected = operator.reference(*numbers(case.real), num_heads=2, window=5)
    np.testing.assert_allclose(case.answer().numpy(), expected, rtol=1e-10, atol=1e-12)
    case = random_case(Variant("residual", "fp32", 4, 16, 48), Shape(2, 1, 2, 3), 0)
    expected = operator.residual_reference(*numbers(case.real), num_heads=3, window=4, epsilon=EPSILON)
    np.testing.assert_allclose(case.answer().numpy(), expected, rtol=1e-10, atol=1e-12)
    case = random_case(Variant("quantised", "int8", 4, 16), Shape(2, 1, 2, 3), 0)
    x, query, *rest = case.inputs
    expected, _ = operator.quantised_reference(x.numpy(), query.numpy(), *numbers(tuple(rest)), num_heads=3, window=4)
    np.testing.assert_allclose(case.answer(as_given=True).numpy(), expected, rtol=1e-6, atol=1e-8)  # float32 scales


def test_the_competitors_compute_the_same() -> None:
    case = random_case(Variant("attention", "fp32", 7, 32), Shape(2, 1, 2, 3), 1)
    x, query, weight, bias, inner, outer = (tensor.double() for tensor in case.real)
    index = formulas.relative(7, inner.device)
    whole = [formulas.expand(table, index) for table in (inner, outer)]
    y = formulas.attention_sdpa(x, query, (weight, bias, inner, outer), whole[0], whole[1], 7)
    torch.testing.assert_close(y, case.answer(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        compute(case.variant, case.real, torch.float32).double(), case.answer(), rtol=1e-4, atol=1e-5
    )


def test_work_is_counted_as_the_formula_has_it() -> None:
    timing = pytest.importorskip("plugins.gpu.timing")
    case = random_case(Variant("residual", "fp16", 7, 32, 96), Shape(2, 1, 3, 3), 0)
    work = timing.Work.of(case)
    tokens = 2 * 1 * 3 * 49
    assert work.exponentials == tokens * 49 * 3
    assert work.multiply_adds == tokens * 49 * 96 * 2 + tokens * 96 * 96
    parameters = 96 * 96 + 3 * 96 + 3 * 32 + 3 + 2 * 13**2 * 3
    assert work.bytes == 2 * (2 * tokens * 96 + parameters)


def test_a_case_is_written_in_the_harness_language() -> None:
    case = random_case(Variant("quantised", "int8", 7, 32), Shape(2, 1, 3, 3), 0)
    lines = enqueue.describe(case, graph=True, per_sample=20).splitlines()
    assert lines[0] == "operator QLslaAttention"
    assert "input x int8 2,7,21,96 x.bin" in lines
    assert "input scale_weight fp32 3,32 scale_weight.bin" in lines
    assert "input y_scale fp32 scalar y_scale.bin" in lines
    assert [line for line in lines if line.startswith("output")] == ["output y int8 2,7,21,96 y.bin"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: run make gpu-check")
def test_without_a_gpu_it_says_so() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "plugins.gpu.check"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert result.stderr.strip() == "gpu-check: PyTorch sees no CUDA GPU here; nothing was checked"
