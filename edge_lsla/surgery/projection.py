"""The query projection above an attention: query = source @ weight + bias, however it is spelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edge_lsla.surgery.topology import Topology, constant_value

Array = NDArray[Any]
RESHAPES = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}  # what leaves every number where it is


@dataclass(frozen=True)
class Projection:
    """A product of `source` [..., C] with a constant matrix: weight [C, C] (in, out), bias [C], the nodes it takes."""

    source: str
    weight: Array
    bias: Array
    nodes: tuple[NodeProto, ...]


def aliases(topology: Topology, name: str, channels: int) -> list[str]:
    """List a tensor and those above it that hold the same memory with the channels last, nearest first."""
    chain = [name]
    while (node := topology.producers.get(chain[-1])) is not None and node.op_type in RESHAPES:
        source = node.input[0]
        if not topology.ends_in(source, channels):
            break
        chain.append(source)
    return chain


def find_projection(topology: Topology, query: str, channels: int) -> Projection | str:
    """Follow the query up to its product with a constant matrix; factors and biases on the way are taken in."""
    gain, bias = np.ones(channels), np.zeros(channels)
    nodes: list[NodeProto] = []
    name = query
    while True:
        node = topology.producers.get(name)
        if node is None:
            return "the query is an input of the graph, not a projection"
        nodes.append(node)
        live = topology.inputs(node)
        if node.op_type in RESHAPES and aliases(topology, name, channels)[1:]:
            name = node.input[0]
            continue
        if node.op_type in ("MatMul", "Gemm"):
            break
        if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(live) != 1:
            return f"the query is made by {node.op_type}, not by a product with a constant matrix"
        constant = next(value for value in node.input if value not in live)
        row = _row(constant_value(topology, constant), channels)
        if row is None or (node.op_type in ("Sub", "Div") and node.input[0] == constant):
            return f"the query is changed by {node.op_type} in a way that no bias or factor explains"
        if node.op_type in ("Add", "Sub"):
            bias = bias + gain * (row if node.op_type == "Add" else -row)
        else:
            gain = gain * row if node.op_type == "Mul" else gain / row
        name = live[0]
    product = _product(topology, node, channels)
    if isinstance(product, str):
        return product
    weight, inner = product
    above = aliases(topology, node.input[0], channels)
    nodes.extend(topology.producers[name] for name in above[:-1])
    return Projection(above[-1], weight * gain, inner * gain + bias, tuple(nodes))


def _product(topology: Topology, node: NodeProto, channels: int) -> tuple[Array, Array] | str:
    """Return weight [C, C] (in, out) and bias [C] of a MatMul or Gemm, float64."""
    if node.input[0] in topology.constants or node.input[1] not in topology.constants:
        return f"the query is a {node.op_type} without a constant matrix"
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    weight = constant_value(topology, node.input[1]).astype(np.float64)
    if weight.shape != (channels, channels) or attributes.get("transA", 0):
        return f"the query's matrix is {list(weight.shape)}, not [{channels}, {channels}]"
    if attributes.get("transB", 0):
        weight = weight.T
    bias: Array | None = np.zeros(channels)
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in topology.constants:
            return "the query's bias is not constant"
        bias = _row(constant_value(topology, node.input[2]).astype(np.float64), channels)
        if bias is None:
            return "the query's bias is not one number a channel"
    return weight * attributes.get("alpha", 1.0), bias * attributes.get("beta", 1.0)


def _row(value: Array, channels: int) -> Array | None:
    """Return what a constant does to each channel, float64 [C]; None where it tells tokens apart."""
    if value.size not in (1, channels) or (value.size > 1 and value.shape[-1] != channels):
        return None
    row: Array = np.broadcast_to(value.astype(np.float64).reshape(-1), channels)
    return row
