"""The operator `edge_lsla::LslaAttention`, version 1: its name, its fields and its formula in NumPy.

Formula (one head of width d, one window of T = w*w tokens, x_i the head's slice of the input):

    s_i  = softplus(<x_i, scale_weight> + scale_bias) / sqrt(d)
    S_ij = s_i <query_i, x_j> + inner_bias[rel(i, j)]
    y_i  = sum_j (softmax_j(S)_ij + outer_bias[rel(i, j)]) x_j
    rel(i, j) = (row_i - row_j + w - 1)(2w - 1) + (col_i - col_j + w - 1)

Source: this project's reconstruction of ViT-LSLA (arXiv 2210.17115); see docs/model-card.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DOMAIN = "edge_lsla"
NAME = "LslaAttention"
VERSION = 1
INPUTS = ("x", "query", "scale_weight", "scale_bias", "inner_bias", "outer_bias")
ATTRIBUTES = ("num_heads", "window", "plugin_version", "plugin_namespace")

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
    """Compute the operator in float64, the yardstick for every other implementation.

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
