"""Any map, number of heads and windows per program; and values at the edges of their types."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_launch import check, launch, ordinary

from plugins.gpu.bounds import relative_error
from plugins.gpu.cases import Case, Shape, random_case
from plugins.variants import INPUTS, Variant

# Triton 3.6 takes loop bounds from arrays of one element; NumPy 2.4 ends that, hence the pin in pyproject.toml.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

KERNELS = [("attention", "fp16"), ("attention", "fp32"), ("quantised", "int8"), ("residual", "fp32")]


@settings(max_examples=20, deadline=None)
@given(
    kernel=st.sampled_from(KERNELS),
    window=st.integers(2, 9),
    batch=st.integers(1, 2),
    down=st.integers(1, 3),
    across=st.integers(1, 3),
    heads=st.integers(1, 3),
    per_program=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_any_map(
    kernel: tuple[str, str], window: int, batch: int, down: int, across: int, heads: int, per_program: int, seed: int
) -> None:
    name, dtype = kernel
    variant = Variant(name, dtype, window, 16, heads * 16 if name == "residual" else 0)
    check(random_case(variant, Shape(batch, down, across, heads), seed), per_program)


def changed(case: Case, **replaced: torch.Tensor) -> Case:
    """Return the case with other tensors for some of its inputs."""
    names = INPUTS[case.variant.kernel]
    inputs = tuple(replaced.get(name, tensor) for name, tensor in zip(names, case.inputs))
    return Case(case.variant, case.shape, inputs, inputs)


@pytest.mark.parametrize("variant", [Variant("attention", "fp32", 7, 32), Variant("attention", "fp32", 9, 32)],
                         ids=lambda v: v.name)  # fmt: skip
def test_scores_in_the_thousands_take_the_largest_key(variant: Variant) -> None:
    case = random_case(variant, Shape(1, 1, 2, 2), 3, spread=60.0)
    y = launch(case)
    # Scores reach 10^4, whose float32 rounding is 10^-3: where two keys are that close, weights differ by as much.
    assert relative_error(y, case.answer()) <= 1e-3
    assert y.isfinite().all()


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("window", [7, 9])
def test_zero_input_gives_zero(window: int, dtype: str) -> None:
    case = ordinary(Variant("attention", dtype, window, 32))
    y = launch(changed(case, x=torch.zeros_like(case.inputs[0])))
    assert torch.equal(y, torch.zeros_like(y))


@pytest.mark.parametrize("window", [7, 9])
def test_half_precision_at_its_edge_stays_finite(window: int) -> None:
    """x of 60000 everywhere: scores of 10^11 in float32, and results that float16 still holds."""
    case = ordinary(Variant("attention", "fp16", window, 32))
    full = torch.full_like(case.inputs[0], 60000.0)
    case = changed(case, x=full, query=full, outer_bias=torch.zeros_like(case.inputs[5]))
    y = launch(case)
    assert y.isfinite().all()
    # All keys are equal, so y is x, but for the rounding of float16 weights that should add up to 1.
    assert relative_error(y, full.double()) <= 1e-3


@pytest.mark.parametrize("window", [7, 9])
def test_a_scale_of_nearly_nothing_keeps_its_digits(window: int) -> None:
    """softplus(-40) is 4e-18: with queries of 1e18 the scores are ordinary, and wrong unless log1p is exact."""
    case = ordinary(Variant("attention", "fp32", window, 32))
    query, weight, bias = case.inputs[1:4]
    case = changed(case, query=query * 1e18, scale_weight=weight * 0, scale_bias=bias * 0 - 40)
    assert relative_error(launch(case), case.answer()) <= 1e-5


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning", "ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.parametrize(("kernel", "dtype"), [("attention", "fp16"), ("residual", "fp16")])
def test_a_bad_window_spoils_no_other(kernel: str, dtype: str) -> None:
    variant = Variant(kernel, dtype, 5, 16, 32 if kernel == "residual" else 0)
    case = random_case(variant, Shape(1, 1, 3, 2), 5)
    clean = launch(case, per_program=1)
    x = case.inputs[0].clone()
    x[0, 2, 7] = float("nan")  # of the second window
    y = launch(changed(case, x=x), per_program=3)
    assert y[:, :, 5:10].isnan().any()
    assert torch.equal(y[:, :, :5], clean[:, :, :5])
    assert torch.equal(y[:, :, 10:], clean[:, :, 10:])


def test_a_constant_feature_map_has_no_variance() -> None:
    """LayerNorm of equal channels is 0 / sqrt(epsilon): y is x plus the attention of the norm's bias."""
    case = ordinary(Variant("residual", "fp32", 5, 16, 48))
    case = changed(case, x=torch.full_like(case.inputs[0], 1000.0))
    assert relative_error(launch(case), case.answer()) <= 1e-6


def test_a_large_mean_costs_layernorm_no_digits() -> None:
    case = ordinary(Variant("residual", "fp32", 5, 16, 48))
    case = changed(case, x=case.inputs[0] + 1000.0)
    # float32 holds x itself to 6e-5 of its deviation here, and y - x to no better.
    moved = case.inputs[0].double()
    assert relative_error(launch(case) - moved, case.answer() - moved) <= 1e-3


@pytest.mark.parametrize("window", [7, 9])
def test_int8_extremes(window: int) -> None:
    """-128 everywhere and no query; a y scale so small that y saturates at both ends."""
    case = ordinary(Variant("quantised", "int8", window, 32))
    x, query, y_scale = case.inputs[0], case.inputs[1], case.inputs[-1]
    least = changed(case, x=torch.full_like(x, -128), query=torch.zeros_like(query))
    error = relative_error(least.value(launch(least)), least.answer(as_given=True).clamp(-128 * y_scale, 127 * y_scale))
    assert error <= 2e-2
    saturated = launch(changed(case, y_scale=y_scale * 1e-4))
    assert {-128, 127} <= set(saturated.unique().tolist())
    signs = case.answer(as_given=True)
    clear = signs.abs() > signs.abs().mean()
    assert torch.equal(saturated[clear] > 0, signs[clear] > 0)
