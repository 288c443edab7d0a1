"""`LslaAttention` in Triton's interpreter against float64: every window, head width and type."""

from __future__ import annotations

import pytest
from kernel_launch import check, ordinary

from plugins.variants import HEAD_WIDTHS, WINDOWS, Variant

# Triton 3.6 takes loop bounds from arrays of one element; NumPy 2.4 ends that, hence the pin in pyproject.toml.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("width", HEAD_WIDTHS)
@pytest.mark.parametrize("window", WINDOWS)
def test_attention(window: int, width: int, dtype: str) -> None:
    check(ordinary(Variant("attention", dtype, window, width)))
