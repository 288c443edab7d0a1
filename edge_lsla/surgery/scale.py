"""Recovering the dynamic scale s_i = gain * softplus(<x_i, scale_weight> + scale_bias) from the scores alone.

Softplus may be whole, decomposed or replaced by a constant; a constant scale c is scale_weight 0 and scale_bias
softplus^-1(c / gain). Values measured this way carry rounding, so that the graph's own constants, where one fits, win.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from edge_lsla.surgery.probe import Probe

Array = NDArray[Any]
STEP = 64.0  # length of the probing tokens: far into softplus's linear part, exact in float16
QUERY = 256.0  # makes the scale stand out against the inner bias, and fits float16


def measure_scale(probe: Probe) -> Array | str:
    """Measure s_i for the tokens 0, STEP e_k and -STEP e_k: float64 [heads, 1 + 2 d]; or say why that fails."""
    width, last = probe.head_width, probe.tokens - 1
    tokens = np.concatenate([np.zeros((1, width)), STEP * np.eye(width), -STEP * np.eye(width)])
    count = -(-len(tokens) // last)
    x, query = probe.zeros(count), probe.zeros(count)
    x[:, :, last, 0] = 1  # the key of every question
    base, _ = probe.windows(x, query)
    for number, token in enumerate(tokens):
        x[number // last, :, number % last, :] = token
    query[..., 0] = QUERY
    scores, _ = probe.windows(x, query)
    gained = (scores[..., last].astype(np.float64) - base[..., last].astype(np.float64)) / QUERY  # [N, heads, T]
    scale: Array = gained[..., :last].transpose(1, 0, 2).reshape(probe.num_heads, -1)[:, : len(tokens)]
    if not np.isfinite(scale).all() or not (scale[:, 0] > 0).all():
        return "the scale of the scores is not positive"
    return scale


def solve_scale(scale: Array, gain: float) -> tuple[Array, Array]:
    """Return scale_weight [heads, d], scale_bias [heads], float64, that explain `measure_scale`'s answer."""
    width = (scale.shape[1] - 1) // 2
    with np.errstate(divide="ignore"):
        logit = _inverse_softplus(np.maximum(scale / gain, 0.0))
    bias = logit[:, 0]
    up, down = logit[:, 1 : 1 + width], logit[:, 1 + width :]
    # Of the two directions, the one with the larger scale is the better measured.
    weight = np.where(up >= down, up - bias[:, None], bias[:, None] - down) / STEP
    if np.abs(weight).max() < 1e-7:
        weight = np.zeros_like(weight)
    return weight, bias


def _inverse_softplus(value: Array) -> Array:
    inverse: Array = value + np.log(-np.expm1(-value))
    return inverse


def snap(values: Array, constants: list[Array], tolerance: float) -> Array:
    """Return the constant that equals `values` within `tolerance`, in its shape and order, else `values`."""
    for constant in constants:
        if constant.size != values.size:
            continue
        for ordered in (constant.reshape(values.shape), constant.reshape(values.shape[::-1]).T):
            if np.abs(ordered - values).max() <= tolerance * max(1.0, float(np.abs(values).max())):
                return ordered
    return values


def float_constants(model: ModelProto) -> list[Array]:
    """Return the floating-point initializers and `Constant` values of a model."""
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors.extend(attribute.t for attribute in node.attribute if attribute.name == "value")
    arrays = [numpy_helper.to_array(tensor) for tensor in tensors]
    return [array for array in arrays if np.issubdtype(array.dtype, np.floating)]
