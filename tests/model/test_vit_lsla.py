from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_lsla import operator
from edge_lsla.model.config import VIT_LSLA_DEMO, VIT_LSLA_T, VitLslaConfig
from edge_lsla.model.profile import count
from edge_lsla.model.vit_lsla import LslaAttention, VitLsla


@pytest.mark.parametrize(
    ("window", "width", "head_width", "shape"),
    [(2, 32, 32, (1, 2, 2)), (3, 64, 16, (2, 6, 9)), (7, 96, 32, (2, 7, 14)), (4, 64, 64, (3, 8, 4))],
)
def test_attention_is_the_formula(window: int, width: int, head_width: int, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(window)
    attention = LslaAttention(width, window, head_width).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(*shape, width, dtype=torch.float64)
    with torch.no_grad():
        actual = attention(x).numpy()
        fields = {name: getattr(attention, name).numpy() for name in operator.INPUTS[2:]}
        query = attention.query(x).numpy()
    expected = operator.reference(x.numpy(), query, **fields, num_heads=width // head_width, window=window)
    assert np.abs(actual - expected).max() < 1e-12 * np.abs(expected).max()  # both float64


def test_the_formula_by_loops() -> None:
    """The reference itself against the docstring's formula, token by token."""
    rng = np.random.default_rng(0)
    window, heads, width = 2, 2, 4
    x, query = rng.normal(size=(2, 1, 4, 2, heads * width))
    weight, bias = rng.normal(size=(heads, width)), rng.normal(size=heads)
    inner, outer = rng.normal(size=(2, (2 * window - 1) ** 2, heads))
    y = operator.reference(x, query, weight, bias, inner, outer, num_heads=heads, window=window)
    for top in (0, 2):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            places = [(top + r, c) for r in range(2) for c in range(2)]
            for row, column in places:
                x_i = x[0, row, column, part]
                scale = np.log1p(np.exp(x_i @ weight[head] + bias[head])) / np.sqrt(width)
                index = [(row - r + 1) * 3 + (column - c + 1) for r, c in places]
                scores = [scale * (query[0, row, column, part] @ x[0, r, c, part]) for r, c in places]
                powers = np.exp(np.array(scores) + inner[index, head])
                share = powers / powers.sum() + outer[index, head]
                expected = sum(p * x[0, r, c, part] for p, (r, c) in zip(share, places))
                assert np.abs(y[0, row, column, part] - expected).max() < 1e-12


def test_sizes_are_the_papers() -> None:
    counts = count(VitLsla(VIT_LSLA_T), 224)[""]
    assert 18.85e6 <= counts.parameters <= 18.95e6
    assert 3.45e9 <= counts.multiply_adds <= 3.55e9


def test_counts_add_up_over_the_stages() -> None:
    counts = count(VitLsla(VIT_LSLA_DEMO), 96)
    parts = ["stem", "stages.0", "stages.1", "stages.2", "norm", "head"]
    assert sum(counts[part].parameters for part in parts) == counts[""].parameters
    assert sum(counts[part].multiply_adds for part in parts) == counts[""].multiply_adds


@pytest.mark.parametrize("off", ["dynamic_scale", "inner_bias", "outer_bias"])
def test_a_switched_off_term_is_no_weight_and_has_no_effect(off: str) -> None:
    attention = LslaAttention(32, 2, **{off: False})
    names = {"dynamic_scale": ("scale_weight", "scale_bias")}.get(off, (off,))
    assert not set(names) & set(attention.state_dict())
    if off == "dynamic_scale":
        dot = attention.scale_bias
        assert torch.allclose(torch.nn.functional.softplus(dot), torch.ones_like(dot), atol=1e-6)
    else:
        assert not getattr(attention, off).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows": (5, 2)}, "stage 1 has a 8x8 feature map, which window 5 does not divide"),
        ({"widths": (48, 64)}, "stage 1 has 48 channels"),
        ({"depths": (1,)}, "differ in length"),
        ({"classes": 0}, "classes"),
        ({"widths": "ab"}, "widths"),
        ({"mlp_ratio": -1}, "mlp_ratio"),
        ({"dynamic_scale": 1}, "dynamic_scale"),
    ],
)
def test_impossible_configurations_are_refused_by_name(change: dict[str, object], message: str) -> None:
    from edge_lsla.errors import UsageError

    good = VitLslaConfig("tiny", 3, 32, widths=(32, 64), depths=(1, 1), windows=(4, 2))
    with pytest.raises(UsageError, match=message):
        good.with_(**change)
