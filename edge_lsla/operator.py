"""The operators of domain `edge_lsla`, version 1: names, inputs, attributes and formulas, and these in NumPy.

| operator | output | reference |
| --- | --- | --- |
| `LslaAttention` | y of x's type | `reference` |
| `LslaResidualAttention` | y of x's type | `residual_reference` |
| `QLslaAttention` | y int8 | `quantised_reference` |

Every x, query and y is [B, H, W, C], channels last, H and W multiples of `window`, C of `num_heads`.

LslaAttention (one head of width d, one window of T = w*w tokens, x_i the head's slice of the input):

    s_i  = softplus(<x_i, scale_weight> + scale_bias) / sqrt(d)
    S_ij = s_i <query_i, x_j> + inner_bias[rel(i, j)]
    y_i  = sum_j (softmax_j(S)_ij + outer_bias[rel(i, j)]) x_j
    rel(i, j) = (row_i - row_j + w - 1)(2w - 1) + (col_i - col_j + w - 1)

LslaResidualAttention (LayerNorm over the last axis, its statistics in float32):

    n = (x - mean(x)) / sqrt(var(x) + epsilon) * norm_weight + norm_bias
    y = x + LslaAttention(n, n @ query_weight + query_bias)

QLslaAttention (symmetric int8, a scale for each whole tensor; the four parameters stay float32):

    y = clamp(round_half_even(LslaAttention(x_scale x, query_scale query) / y_scale), -128, 127)

Scores, softmax and accumulation are float32 in every implementation, whatever the tensors are.
Source: this project's reconstruction of ViT-LSLA (arXiv 2210.17115); see docs/model-card.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DOMAIN = "edge_lsla"
VERSION = 1
PARAMETERS = ("scale_weight", "scale_bias", "inner_bias", "outer_bias")

NAME = "LslaAttention"
INPUTS = ("x", "query", *PARAMETERS)
ATTRIBUTES = ("num_heads", "window", "plugin_version", "plugin_namespace")

RESIDUAL_NAME = "LslaResidualAttention"
RESIDUAL_INPUTS = ("x", "norm_weight", "norm_bias", "query_weight", "query_bias", *PARAMETERS)
RESIDUAL_ATTRIBUTES = (*ATTRIBUTES, "epsilon")

QUANTISED_NAME = "QLslaAttention"
SCALES = ("x_scale", "query_scale", "y_scale")
QUANTISED_INPUTS = ("x", "query", *PARAMETERS, *SCALES)
QUANTISED_ATTRIBUTES = ATTRIBUTES

Array = NDArray[Any]


def relative_index(window: int) -> NDArray[np.int64]:
    """Return rel(i, j) as int64 [T, T] with T = window * window, tokens in row-major order."""
    row, column = np.divmod(np.arange(window * window), window)
    rows = row[:, None] - row[None, :] + window - 1
    columns = column[:, None] - column[None, :] + window - 1
    index: NDArray[np.int64] = rows * (2 * window - 1) + columns
    return index


def partition(x: Array, num_heads: int, window: int) -> Array:
    """Cut [B, H, W, C] into windows: [B * windows, heads, T, d]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, num_heads, channels // num_heads)
    windows: Array = x.transpose(0, 1, 3, 5, 2, 4, 6).reshape(-1, num_heads, window * window, channels // num_heads)
    return windows


def merge(windows: Array, shape: tuple[int, int, int, int], window: int) -> Array:
    """Put windows [B * windows, heads, T, d] back into [B, H, W, C] of the given shape."""
    batch, height, width, channels = shape
    heads, head_width = windows.shape[1], windows.shape[3]
    x = windows.reshape(batch, height // window, width // window, heads, window, window, head_width)
    merged: Array = x.transpose(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, channels)
    return merged


def reference(
    x: Array,
    query: Array,
    scale_weight: Array,
    scale_bias: Array,
    inner_bias: Array,
    outer_bias: Array,
    *,
    num_heads: int,
    window: int,
) -> NDArray[np.float64]:
    """Compute `LslaAttention` in float64, the yardstick for every other implementation.

    Args:
        x, query: [B, H, W, C]; H and W are multiples of `window`, C of `num_heads`.
        scale_weight: [heads, d]; scale_bias: [heads].
        inner_bias, outer_bias: [(2 * window - 1) ** 2, heads].

    Returns:
        y, float64 [B, H, W, C].
    """
    tokens = partition(x.astype(np.float64), num_heads, window)
    queries = partition(query.astype(np.float64), num_heads, window)
    head_width = tokens.shape[-1]
    logit = np.einsum("bhtd,hd->bht", tokens, scale_weight.astype(np.float64)) + scale_bias.astype(np.float64)[:, None]
    scale = np.logaddexp(0.0, logit) / np.sqrt(head_width)
    index = relative_index(window)
    inner = inner_bias.astype(np.float64)[index].transpose(2, 0, 1)
    outer = outer_bias.astype(np.float64)[index].transpose(2, 0, 1)
    scores = scale[..., None] * (queries @ tokens.swapaxes(-1, -2)) + inner
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = scores / scores.sum(axis=-1, keepdims=True) + outer
    shape = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
    return merge(weights @ tokens, shape, window)


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> NDArray[np.float64]:
    """Normalise the last axis of x [..., C] in float64; weight, bias: [C]."""
    centred = x.astype(np.float64) - x.mean(axis=-1, keepdims=True, dtype=np.float64)
    variance = np.mean(centred**2, axis=-1, keepdims=True)
    normed: NDArray[np.float64] = centred / np.sqrt(variance + epsilon)
    return normed * weight.astype(np.float64) + bias.astype(np.float64)


def residual_reference(
    x: Array,
    norm_weight: Array,
    norm_bias: Array,
    query_weight: Array,
    query_bias: Array,
    scale_weight: Array,
    scale_bias: Array,
    inner_bias: Array,
    outer_bias: Array,
    *,
    num_heads: int,
    window: int,
    epsilon: float,
) -> NDArray[np.float64]:
    """Compute `LslaResidualAttention` in float64.

    Args:
        x: [B, H, W, C]; H and W are multiples of `window`, C of `num_heads`.
        norm_weight, norm_bias, query_bias: [C]. query_weight: [C, C], input channel first.
        scale_weight, scale_bias, inner_bias, outer_bias: as `reference` takes them.
        epsilon: of the LayerNorm.

    Returns:
        y, float64 [B, H, W, C].
    """
    n = layer_norm(x, norm_weight, norm_bias, epsilon)
    query = n @ query_weight.astype(np.float64) + query_bias.astype(np.float64)
    y = reference(n, query, scale_weight, scale_bias, inner_bias, outer_bias, num_heads=num_heads, window=window)
    return x.astype(np.float64) + y


def quantised_reference(
    x: NDArray[np.int8],
    query: NDArray[np.int8],
    scale_weight: Array,
    scale_bias: Array,
    inner_bias: Array,
    outer_bias: Array,
    x_scale: Array | float,
    query_scale: Array | float,
    y_scale: Array | float,
    *,
    num_heads: int,
    window: int,
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Compute `QLslaAttention` in float64.

    Args:
        x, query: int8 [B, H, W, C]; the real numbers are these times their scale.
        scale_weight, scale_bias, inner_bias, outer_bias: as `reference` takes them.
        x_scale, query_scale, y_scale: positive scalars.

    Returns:
        The real result before it is quantised, float64 [B, H, W, C], and y, int8 of the same shape.
    """
    real = reference(
        x.astype(np.float64) * float(x_scale),
        query.astype(np.float64) * float(query_scale),
        scale_weight,
        scale_bias,
        inner_bias,
        outer_bias,
        num_heads=num_heads,
        window=window,
    )
    return real, np.clip(np.rint(real / float(y_scale)), -128, 127).astype(np.int8)
