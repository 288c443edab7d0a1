"""`LslaResidualAttention` and `QLslaAttention` in Triton's interpreter against float64."""

from __future__ import annotations

import pytest
from kernel_launch import INT8, check, ordinary

from plugins.variants import HEAD_WIDTHS, WINDOWS, Variant, shipped

# Triton 3.6 takes loop bounds from arrays of one element; NumPy 2.4 ends that, hence the pin in pyproject.toml.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


@pytest.mark.parametrize("width", HEAD_WIDTHS)
@pytest.mark.parametrize("window", WINDOWS)
def test_int8_attention(window: int, width: int) -> None:
    check(ordinary(Variant("quantised", "int8", window, width)))


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize(("window", "width", "channels"), [(2, 16, 48), (4, 32, 32), (5, 64, 128), (7, 32, 96),
                                                           (7, 16, 16), (9, 32, 96), (14, 32, 96)])  # fmt: skip
def test_residual_attention(window: int, width: int, channels: int, dtype: str) -> None:
    check(ordinary(Variant("residual", dtype, window, width, channels)))


@pytest.mark.parametrize("variant", shipped(), ids=lambda variant: variant.name)
def test_shipped_variants_on_other_data(variant: Variant) -> None:
    error = check(ordinary(variant, seed=1))
    assert error <= INT8
