"""The float64 references against the same formulas in other hands: PyTorch, loops and paper arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_lsla.operator import layer_norm, quantised_reference, reference, relative_index, residual_reference


def random(*shape: int, std: float = 1.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape) * std


def parameters(heads: int, d: int, window: int) -> dict[str, np.ndarray]:
    rows = (2 * window - 1) ** 2
    return {
        "scale_weight": random(heads, d, std=0.2),
        "scale_bias": random(heads),
        "inner_bias": random(rows, heads, seed=2),
        "outer_bias": random(rows, heads, std=0.3, seed=3),
    }


def test_attention_is_its_formula_token_by_token() -> None:
    heads, d, w = 2, 4, 3
    x, query, p = random(2, 6, 9, heads * d), random(2, 6, 9, heads * d, seed=4), parameters(heads, d, w)
    y = reference(x, query, **p, num_heads=heads, window=w)
    index = relative_index(w)
    for image, top, left, head in [(0, 0, 0, 0), (1, 3, 6, 1), (0, 3, 3, 1)]:
        window = np.s_[image, top : top + w, left : left + w, head * d : (head + 1) * d]
        tokens, queries = x[window].reshape(-1, d), query[window].reshape(-1, d)
        for i in (0, 4, 8):
            dot = sum(tokens[i] * p["scale_weight"][head]) + p["scale_bias"][head]
            scale = np.log(1 + np.exp(dot)) / d**0.5
            scores = [scale * sum(queries[i] * tokens[j]) + p["inner_bias"][index[i, j], head] for j in range(w * w)]
            weights = np.exp(scores) / np.exp(scores).sum()
            mixed = sum((weights[j] + p["outer_bias"][index[i, j], head]) * tokens[j] for j in range(w * w))
            np.testing.assert_allclose(y[window].reshape(-1, d)[i], mixed, rtol=1e-12, atol=1e-12)


def test_layer_norm_is_pytorchs() -> None:
    x, weight, bias = random(3, 5, 24) * 1e-2 + 3, random(24), random(24, seed=2)
    expected = torch.nn.functional.layer_norm(
        torch.from_numpy(x), (24,), torch.from_numpy(weight), torch.from_numpy(bias), 1e-3
    )
    np.testing.assert_allclose(layer_norm(x, weight, bias, 1e-3), expected.numpy(), rtol=1e-10, atol=1e-12)


def test_the_residual_operator_is_its_parts() -> None:
    heads, d, w = 2, 8, 2
    c = heads * d
    x, p = random(2, 4, 6, c), parameters(heads, d, w)
    norm, linear = torch.nn.LayerNorm(c, eps=1e-2).double(), torch.nn.Linear(c, c).double()
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(random(c)))
        norm.bias.copy_(torch.from_numpy(random(c, seed=2)))
        n = norm(torch.from_numpy(x))
        query = linear(n).numpy()
    expected = x + reference(n.numpy(), query, **p, num_heads=heads, window=w)
    found = residual_reference(
        x,
        norm.weight.detach().numpy(),
        norm.bias.detach().numpy(),
        linear.weight.detach().numpy().T,
        linear.bias.detach().numpy(),
        **p,
        num_heads=heads,
        window=w,
        epsilon=1e-2,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("value", "ratio", "expected"),
    [(1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (100, 0.5, 127), (-100, 0.5, -128), (-64, 0.5, -128)],
)
def test_int8_is_rounded_half_to_even_and_clamped(value: int, ratio: float, expected: int) -> None:
    # in a window of one token, attention without an outer bias gives just that token
    x = np.full((1, 2, 2, 4), value, np.int8)
    p = {**parameters(1, 4, 1), "outer_bias": np.zeros((1, 1))}
    real, y = quantised_reference(x, x, **p, x_scale=0.25, query_scale=0.5, y_scale=0.25 * ratio, num_heads=1, window=1)
    np.testing.assert_array_equal(real, value * 0.25)
    assert y.dtype == np.int8
    assert (y == expected).all()


def test_int8_operands_are_their_scale_times_the_integers() -> None:
    generator = np.random.default_rng(3)
    x, query = (generator.integers(-128, 128, (1, 4, 4, 16)).astype(np.int8) for _ in range(2))
    p = parameters(2, 8, 2)
    real, y = quantised_reference(x, query, **p, x_scale=0.02, query_scale=0.03, y_scale=0.04, num_heads=2, window=2)
    expected = reference(x * 0.02, query * 0.03, **p, num_heads=2, window=2)
    np.testing.assert_array_equal(real, expected)
    assert np.abs(y * 0.04 - np.clip(expected, -128 * 0.04, 127 * 0.04)).max() <= 0.02 + 1e-12
