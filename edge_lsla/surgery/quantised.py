"""From DequantizeLinear -> `LslaAttention` -> QuantizeLinear to what `QLslaAttention` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from edge_lsla.surgery.cut import View
from edge_lsla.surgery.match import Refusal
from edge_lsla.surgery.topology import Topology, constant_value

Array = NDArray[Any]


@dataclass(frozen=True)
class Quantised:
    """An attention between Q/DQ: its int8 x, query and y, its four parameters and three scales in operator's order."""

    attention: str  # the tensor that the LslaAttention makes
    x: View
    query: View
    y: View
    parameters: tuple[Array, ...]
    scales: tuple[float, ...]


def find_quantised(topology: Topology, node: NodeProto) -> Quantised | Refusal:
    """Return what lies around an `LslaAttention` node, or why the node stays as it is."""
    outcome = _examine(topology, node)
    return Refusal(node.name or node.output[0], outcome) if isinstance(outcome, str) else outcome


def _examine(topology: Topology, node: NodeProto) -> Quantised | str:
    shape = topology.per_image(node.output[0])
    if shape is None or len(shape) != 4:
        return "its feature map has no fixed size"
    tensors, scales = [], []
    for label, name in zip(("x", "query"), node.input):
        before = topology.producers.get(name)
        if before is None or before.op_type != "DequantizeLinear":
            return f"its {label} comes from {before.op_type if before else 'an input'}, not from DequantizeLinear"
        scale = _symmetric_scale(topology, before, before.input[0], label)
        if isinstance(scale, str):
            return scale
        tensors.append(before.input[0])
        scales.append(scale)
    readers = topology.consumers.get(node.output[0], [])
    kinds = [reader.op_type for reader in readers]
    if any(value.name == node.output[0] for value in topology.model.graph.output):
        kinds.append("an output of the graph")
    if kinds != ["QuantizeLinear"]:
        return f"its y goes to {' and '.join(kinds)}, not to QuantizeLinear alone"
    scale = _symmetric_scale(topology, readers[0], readers[0].output[0], "y")
    if isinstance(scale, str):
        return scale
    if any(name not in topology.constants for name in node.input[2:]):
        return "a parameter is not constant"
    x, query, y = (View(name, (-1, *shape[1:]), shape[1:]) for name in (*tensors, readers[0].output[0]))
    parameters = tuple(constant_value(topology, name) for name in node.input[2:])
    return Quantised(node.output[0], x, query, y, parameters, (*scales, scale))


def _symmetric_scale(topology: Topology, node: NodeProto, integers: str, label: str) -> float | str:
    """Return the scale of a Q or DQ node for symmetric int8 of a whole tensor, or why it is of another kind."""
    kind = topology.types.get(integers)
    if kind != TensorProto.INT8:
        name = TensorProto.DataType.Name(kind).lower() if kind else "an unknown type"
        return f"its {label} is {name}, not int8; Q/DQ for TensorRT is symmetric int8"
    if any(name and name not in topology.constants for name in node.input[1:]):
        return f"the scale or zero point of its {label} is not constant"
    scale = constant_value(topology, node.input[1])
    if scale.size != 1:
        return f"its {label} has {scale.size} scales, not one for the whole tensor"
    if len(node.input) > 2 and node.input[2] and np.any(constant_value(topology, node.input[2])):
        return f"its {label} is asymmetric: the zero point is not 0"
    value = float(scale.reshape(-1)[0])
    return value if value > 0 and np.isfinite(value) else f"the scale of its {label} is not a positive number"
