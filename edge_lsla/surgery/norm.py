"""Recovering a LayerNorm over the channels: its weight, bias and epsilon, however the exporter wrote it.

A LayerNormalization node is read. Anything else is asked: zeros give the bias, large values the weight, small ones
epsilon; measured values carry rounding, so that the graph's own constants, where one fits, win.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from edge_lsla.surgery.cut import X
from edge_lsla.surgery.scale import float_constants, snap
from edge_lsla.surgery.topology import Topology, constant_value, session

Array = NDArray[Any]
LARGE = 16.0  # its square hides any usual epsilon and fits a float16
SMALL = 2.0**-9  # its square is near the usual 1e-5, so that epsilon shows


@dataclass(frozen=True)
class Norm:
    """A LayerNorm over the last axis: weight [C], bias [C], epsilon."""

    weight: Array
    bias: Array
    epsilon: float


def read_norm(topology: Topology, node: NodeProto, channels: int) -> Norm | str:
    """Read a LayerNormalization node, or say why it is not the one of the operator."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    rank = len(topology.shapes[node.output[0]][0])
    if attributes.get("axis", -1) % rank != rank - 1:
        return "the LayerNorm is over more than the channels"
    if attributes.get("stash_type", TensorProto.FLOAT) != TensorProto.FLOAT:
        return "the statistics of the LayerNorm are not float32"
    names = [name for name in node.input[1:] if name]
    if any(name not in topology.constants for name in names):
        return "the weight or bias of the LayerNorm is not constant"
    values = [constant_value(topology, name).reshape(-1) for name in names]
    if any(value.size not in (1, channels) for value in values):
        return "the weight or bias of the LayerNorm is not one number a channel"
    weight, bias = (np.broadcast_to(value, channels) for value in (*values, np.zeros(1, values[0].dtype))[:2])
    return Norm(weight, bias, float(attributes.get("epsilon", 1e-5)))


def measure_norm(model: ModelProto, batch: int) -> Norm | str:
    """Measure a LayerNorm that is written in smaller operators.

    Args:
        model: input `X` [B, H, W, C], output the same size: what `cut` gives.
        batch: a batch size that the model takes.
    """
    value = model.graph.input[0].type.tensor_type
    height, width, channels = (dim.dim_value for dim in value.shape.dim[1:])
    dtype = helper.tensor_dtype_to_np_dtype(value.elem_type)
    run = session(model, optimise=False)

    def ask(row: Array) -> Array:
        """Give every token the same channels; return those of one token, float64 [C]."""
        x = np.broadcast_to(row.astype(dtype), (batch, height, width, channels))
        answer: Array = run.run(None, {X: np.ascontiguousarray(x)})[0].reshape(-1, channels)[0].astype(np.float64)
        return answer

    sign = np.where(np.arange(channels) % 2, -1.0, 1.0)
    centred = sign - sign.mean()
    spread = float(np.mean(centred**2))
    constants = float_constants(model)
    bias = ask(np.zeros(channels))
    weight = (ask(LARGE * sign) - bias) * np.sqrt(spread) / centred
    if not (np.isfinite(bias).all() and np.isfinite(weight).all()):
        return "it is not finite"
    tolerance = 2e-2 if dtype == np.float16 else 2e-5
    weight = snap(weight, constants, tolerance).astype(dtype)
    strongest = int(np.abs(weight).argmax())
    if not weight[strongest]:
        return "its weight is zero"
    # answer / (weight * centred) = SMALL / sqrt(SMALL^2 * spread + epsilon)
    found = (ask(SMALL * sign) - bias)[strongest] / (float(weight[strongest]) * centred[strongest])
    if not found > 0:
        return "small values do not come out in proportion"
    epsilon = SMALL**2 * (1 / found**2 - spread)
    scalars = [float(constant.reshape(-1)[0]) for constant in constants if constant.size == 1]
    allowed = 10 * tolerance * (SMALL**2 * spread + epsilon)
    near = [value for value in scalars if value > 0 and abs(value - epsilon) <= allowed]
    return Norm(
        weight, bias.astype(dtype), min(near, key=lambda value: abs(value - epsilon), default=max(epsilon, 0.0))
    )
