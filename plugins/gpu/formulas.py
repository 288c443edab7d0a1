"""The operators in PyTorch, in whatever type and on whatever device the tensors are: yardstick and competitor.

Formulas: edge_lsla/operator.py. In float64 they are what kernels are measured against; in float16 and float32, eager or
compiled, what they are timed against.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_lsla.operator import relative_index

Parameters = tuple[Tensor, Tensor, Tensor, Tensor]  # scale_weight, scale_bias, inner_bias, outer_bias


def partition(x: Tensor, heads: int, window: int) -> Tensor:
    """Cut [B, H, W, C] into [N, heads, T, d]."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, heads, channels // heads)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, window * window, channels // heads)


def merge(x: Tensor, height: int, width: int, window: int) -> Tensor:
    """Put [N, heads, T, d] back into [B, H, W, C]."""
    heads, head_width = x.shape[1], x.shape[3]
    x = x.reshape(-1, height // window, width // window, heads, window, window, head_width)
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, height, width, heads * head_width)


def relative(window: int, device: torch.device) -> Tensor:
    """Return rel(i, j), int64 [T, T]; made beforehand, because a CUDA graph cannot capture copies from the host."""
    return torch.from_numpy(relative_index(window)).to(device)


def expand(table: Tensor, index: Tensor) -> Tensor:
    """Look a table [(2w - 1)^2, heads] up at rel(i, j): [heads, T, T]."""
    return table[index].permute(2, 0, 1)


def dynamic_scale(keys: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return s, [N, heads, T, 1]."""
    logit = (keys * weight[:, None, :]).sum(-1, keepdim=True) + bias[:, None, None]
    return F.softplus(logit) / math.sqrt(keys.shape[-1])


def attention(x: Tensor, query: Tensor, parameters: Parameters, window: int, index: Tensor) -> Tensor:
    """Compute `LslaAttention`: x, query, y [B, H, W, C]; index [T, T]; tables are looked up as the model does."""
    weight, bias, inner, outer = parameters
    keys, queries = (partition(tensor, weight.shape[0], window) for tensor in (x, query))
    scores = (queries * dynamic_scale(keys, weight, bias)) @ keys.transpose(-1, -2) + expand(inner, index)
    mixed = (scores.softmax(-1) + expand(outer, index)) @ keys
    return merge(mixed, x.shape[1], x.shape[2], window)


def attention_sdpa(
    x: Tensor, query: Tensor, parameters: Parameters, inner: Tensor, outer: Tensor, window: int
) -> Tensor:
    """Compute it as scaled_dot_product_attention plus one product for the outer bias; both biases [heads, T, T]."""
    weight, bias = parameters[:2]
    keys, queries = (partition(tensor, weight.shape[0], window) for tensor in (x, query))
    scaled = queries * dynamic_scale(keys, weight, bias)
    mixed = F.scaled_dot_product_attention(scaled, keys, keys, attn_mask=inner[None], scale=1.0) + outer @ keys
    return merge(mixed, x.shape[1], x.shape[2], window)


def residual(
    x: Tensor,
    norm: tuple[Tensor, Tensor],
    projection: tuple[Tensor, Tensor],
    parameters: Parameters,
    window: int,
    epsilon: float,
    index: Tensor,
) -> Tensor:
    """Compute `LslaResidualAttention`: norm is (weight, bias), projection (weight [in, out], bias)."""
    n = F.layer_norm(x, x.shape[-1:], *norm, eps=epsilon)
    return x + attention(n, n @ projection[0] + projection[1], parameters, window, index)
