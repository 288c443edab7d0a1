"""From an `LslaAttention` node to the whole residual branch: LayerNorm, query projection, attention, Add.

Found by structure, proved by numbers. Tensors may be reshaped on the way, as long as channels stay the last axis: a
Reshape never moves anything in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edge_lsla.operator import residual_reference
from edge_lsla.surgery.compare import allowed_difference
from edge_lsla.surgery.cut import Open, View, X, cut
from edge_lsla.surgery.match import Refusal
from edge_lsla.surgery.norm import Norm, measure_norm, read_norm
from edge_lsla.surgery.projection import RESHAPES, aliases, find_projection
from edge_lsla.surgery.topology import Topology, constant_value, session

Array = NDArray[Any]
NORM_PARTS = {*RESHAPES, "ReduceMean", "ReduceSum", "Sub", "Add", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Cast"}
PARAMETERS = ("norm_weight", "norm_bias", "query_weight", "query_bias")


@dataclass(frozen=True)
class Residual:
    """A proved residual branch: where it begins and ends, and what `LslaResidualAttention` takes beside x."""

    attention: str  # the tensor that the LslaAttention makes
    x: View
    y: View
    epsilon: float
    norm_weight: Array
    norm_bias: Array
    query_weight: Array
    query_bias: Array
    shapes: dict[str, str]  # of tensors that will be gone: a Shape node's output, and a tensor that has the same shape
    max_error: float


def find_residual(topology: Topology, node: NodeProto, channels: Collection[int] | None) -> Residual | Refusal:
    """Return the residual branch around an `LslaAttention` node, or why the node stays as it is."""
    outcome = _examine(topology, node, channels)
    return Refusal(node.name or node.output[0], outcome) if isinstance(outcome, str) else outcome


def _examine(topology: Topology, node: NodeProto, wanted: Collection[int] | None) -> Residual | str:
    shape = topology.per_image(node.output[0])
    if shape is None or len(shape) != 4:
        return "its feature map has no fixed size"
    height, width, channels = shape[1:]
    if wanted is not None and channels not in wanted:
        return f"{channels} channels are not among those to merge: {', '.join(map(str, sorted(wanted)))}"
    normed = aliases(topology, node.input[0], channels)
    n = normed[-1]
    projection = find_projection(topology, node.input[1], channels)
    if isinstance(projection, str):
        return projection
    if projection.source != n:
        return f"the query is projected from another tensor than the attention's input: {projection.source}"
    addition = _find_addition(topology, node.output[0], channels)
    if isinstance(addition, str):
        return addition
    adding, other = addition
    sources = aliases(topology, other, channels)
    if n in sources:
        return "what is added is the attention's own input, not the tensor before the LayerNorm"
    region = _region(topology, n, set(sources))
    if isinstance(region, str):
        return region
    making = [topology.producers[name] for name in normed[:-1]]
    merged = [*region, *making, *projection.nodes, node, *adding]
    shapes = _read_outside(topology, merged, sources)
    if isinstance(shapes, str):
        return shapes

    def view(name: str) -> View:
        return View(name, (-1, *(topology.per_image(name) or ())[1:]), (height, width, channels))

    views = [view(name) for name in (*sources, adding[-1].output[0])]
    if any(len(item.shape) < 2 for item in views):
        return "the batch is not the first axis of the tensor that is added"
    source, y = views[-2:]
    norm = _find_norm(topology, n, source)
    if isinstance(norm, str):
        return norm
    if any(name not in topology.constants for name in node.input[2:]):
        return "a parameter of the attention is not constant"
    dtype = helper.tensor_dtype_to_np_dtype(topology.types[source.tensor])
    residual = Residual(
        attention=node.output[0],
        x=next((item for item in views[:-1] if item.is_map), source),
        y=y,
        epsilon=norm.epsilon,
        norm_weight=norm.weight.astype(dtype),
        norm_bias=norm.bias.astype(dtype),
        query_weight=projection.weight.astype(dtype),
        query_bias=projection.bias.astype(dtype),
        shapes=shapes,
        max_error=0.0,
    )
    return _prove(topology, node, source, residual)


def _find_addition(topology: Topology, name: str, channels: int) -> tuple[list[NodeProto], str] | str:
    """Follow the attention's result to the residual Add: the nodes on the way, the Add last, and what is added."""
    nodes: list[NodeProto] = []
    while True:
        readers = [reader for reader in topology.consumers.get(name, []) if reader.op_type != "Shape"]
        if len(readers) != 1:
            return f"the attention's result is read {len(readers)} times, not by one Add"
        node = readers[0]
        nodes.append(node)
        output = node.output[0]
        if node.op_type in RESHAPES and topology.ends_in(output, channels):
            name = output
        elif node.op_type == "Add":
            other = node.input[1] if node.input[0] == name else node.input[0]
            if other == name or other in topology.constants:
                return "the attention's result is not added to another tensor"
            shapes = {topology.shapes.get(value) for value in (name, other, output)}
            if len(shapes) != 1 or None in shapes:
                return "the attention's result is added to a tensor of another shape"
            return nodes, other
        else:
            return f"the attention's result goes to {node.op_type}, not to a residual Add"


def _region(topology: Topology, n: str, sources: set[str]) -> list[NodeProto] | str:
    """List the nodes that make the normalised tensor n from one of `sources`, or say why that is no LayerNorm."""
    found: dict[int, NodeProto] = {}
    todo = [n]
    while todo:
        name = todo.pop()
        if name in sources:
            continue
        node = topology.producers.get(name)
        if node is None:
            return f"the attention's input depends on another tensor than the one that is added: {name}"
        if node.op_type not in NORM_PARTS and not (name == n and node.op_type == "LayerNormalization"):
            return f"the attention's input is made by {node.op_type}, not by a LayerNorm of what is added"
        found[topology.order[id(node)]] = node
        live = topology.inputs(node)
        todo.extend(live[:1] if node.op_type in RESHAPES else live)
    return list(found.values())


def _read_outside(topology: Topology, merged: list[NodeProto], sources: list[str]) -> dict[str, str] | str:
    """Say which tensor inside the branch is needed outside it, for it will be gone.

    Exporters ask any tensor for its shape: where another has the same, give the Shape nodes' outputs and that tensor.
    """
    shapes: dict[str, str] = {}
    inside = {id(node) for node in merged}
    outputs = {value.name for value in topology.model.graph.output}
    for node in merged[:-1]:  # the last is the Add, whose result stays
        for name in node.output:
            if name in outputs:
                return f"{name} is an output of the graph"
            for reader in topology.consumers.get(name, []):
                same = [other for other in sources if topology.shapes[other] == topology.shapes.get(name)]
                if reader.op_type == "Shape" and same:
                    shapes[reader.output[0]] = same[0]
                elif id(reader) not in inside:
                    return f"{name} is also read by {reader.op_type} {reader.name or reader.output[0]}"
    return shapes


def _find_norm(topology: Topology, n: str, source: View) -> Norm | str:
    """Return the LayerNorm that makes n from `source`."""
    maker = topology.producers[n]
    if maker.op_type == "LayerNormalization":
        return read_norm(topology, maker, source.map[2])
    model = cut(topology, {X: source}, [n])
    if isinstance(model, Open):
        return f"the attention's input depends on another tensor than the one that is added: {model.outside}"
    norm = measure_norm(model, topology.batches[0])
    return f"the attention's input is not a LayerNorm of what is added: {norm}" if isinstance(norm, str) else norm


def _prove(topology: Topology, node: NodeProto, source: View, residual: Residual) -> Residual | str:
    """Compare the branch with the operator's formula in float64, on tokens from faint to strong."""
    model = cut(topology, {X: source}, [residual.y.tensor])
    if isinstance(model, Open):
        return f"the branch depends on another tensor than the one that is added: {model.outside}"
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    dtype = residual.norm_weight.dtype
    generator = np.random.default_rng(4)
    shape = (topology.batches[0], *source.map)
    strength = 10.0 ** generator.uniform(-3, 0, (*shape[:-1], 1))  # where tokens are faint, epsilon shows
    tokens = (strength * generator.standard_normal(shape)).astype(dtype)
    found = session(model, optimise=False).run(None, {X: tokens})[0].reshape(shape).astype(np.float64)
    scale_weight, scale_bias, inner_bias, outer_bias = (constant_value(topology, name) for name in node.input[2:])
    expected = residual_reference(
        tokens,
        **{name: getattr(residual, name) for name in PARAMETERS},
        scale_weight=scale_weight,
        scale_bias=scale_bias,
        inner_bias=inner_bias,
        outer_bias=outer_bias,
        num_heads=attributes["num_heads"],
        window=attributes["window"],
        epsilon=residual.epsilon,
    )
    error = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
    # In float16, n and the query are rounded between nodes, and not in the operator.
    allowed = allowed_difference(dtype)
    if not error <= allowed:  # written so that nan is refused too
        return f"the branch differs from the operator's formula by {error:.2g}, {allowed:g} is allowed"
    return dataclasses.replace(residual, max_error=error)
