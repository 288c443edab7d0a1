"""Finding attentions by structure: from each Softmax to the tensors that could be its `x`, `query` and `y`.

Names are never looked at. What is found here are candidates; `recover` and `verify` decide by numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from onnx import NodeProto, helper

from edge_lsla.surgery.cut import View
from edge_lsla.surgery.topology import Topology

MOVES = {"Reshape", "Transpose", "Cast", "Identity", "Squeeze", "Unsqueeze", "Flatten"}
SCALES = {"Mul", "Div"}
MIXES = {*MOVES, *SCALES, "Add", "Sub", "Where", "Dropout"}  # what may stand between a softmax and its products
PRODUCTS = {"MatMul", "Einsum"}
REACH = 16  # nodes between the value product and y


@dataclass(frozen=True)
class Refusal:
    """A softmax that looks like attention but is not this operator: which one, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Candidate:
    """Where an attention may begin and end; each choice of x, query and y remains to be proved."""

    where: str
    scores: str
    num_heads: int
    window: int
    x: tuple[View, ...]
    query: tuple[View, ...]
    y: tuple[View, ...]


def find_candidates(topology: Topology) -> Iterator[Candidate | Refusal]:
    """Give a candidate or a refusal for each softmax whose output reaches a matrix product; others are no attention."""
    for node in topology.model.graph.node:
        if node.op_type == "Softmax" and node.domain == "" and node.output[0] in topology.shapes:
            value = _value_product(topology, node.output[0])
            if value is not None:
                yield _examine(topology, node, *value)


def _examine(topology: Topology, softmax: NodeProto, product: NodeProto, values: str) -> Candidate | Refusal:
    where = softmax.name or softmax.output[0]
    scores = softmax.input[0]
    shape = topology.shapes[softmax.output[0]][0]
    axis = next((helper.get_attribute_value(a) for a in softmax.attribute if a.name == "axis"), -1)
    if axis % len(shape) != len(shape) - 1:
        return Refusal(where, "the softmax is not over the last axis")
    tokens = shape[-1]
    window = math.isqrt(tokens)
    if len(shape) < 3 or shape[-2] != tokens or window * window != tokens or tokens < 2:
        return Refusal(where, f"window partition is not recognised: scores are {list(shape)}, not [..., w*w, w*w]")
    dots = _score_product(topology, scores)
    if dots is None:
        return Refusal(where, "the scores are not a product of two tensors")
    value_chain = _chain(topology, values)
    sides = [(key, query) for key, query in (dots.input[::-1], dots.input[:2]) if _meet(topology, value_chain, key)]
    if not sides:
        return Refusal(where, "keys come from another tensor than values")
    key, query = next((pair for pair in sides if not _meet(topology, value_chain, pair[1])), sides[0])
    shared = _meet(topology, value_chain, key)
    heads_of = _heads(topology, shape, values)
    x = _views(topology, shared[::-1], window, heads_of)
    if not x:
        return Refusal(where, "window partition is not recognised: keys and values come from no [B, H, W, C] tensor")
    heads = heads_of(x[0].map[2])
    maps = {view.map for view in x}
    sources = [name for name in _sources(topology, query) if name not in value_chain]
    queries = tuple(view for view in _views(topology, sources, window, heads_of, maps) if view.map in maps)
    if not queries:
        return Refusal(where, "no query of the input's shape [B, H, W, C] is found")
    results = tuple(_views(topology, _downstream(topology, product), window, heads_of, maps))
    if not results:
        return Refusal(
            where, "window partition is not recognised: no output of the input's shape [B, H, W, C] is found"
        )
    return Candidate(where, scores, heads, window, x, queries, results)


def _value_product(topology: Topology, weights: str) -> tuple[NodeProto, str] | None:
    """Follow the softmax down to the product with the values; return it and the values' tensor."""
    todo, seen = [weights], {weights}
    while todo:
        name = todo.pop(0)
        for node in topology.consumers.get(name, []):
            if node.op_type in PRODUCTS and len(topology.inputs(node)) == 2:
                other = [value for value in node.input if value != name]
                return (node, other[0]) if other else None
            if node.op_type in MIXES and node.output[0] not in seen:
                seen.add(node.output[0])
                todo.append(node.output[0])
    return None


def _score_product(topology: Topology, scores: str) -> NodeProto | None:
    """Follow the scores up to the nearest product of two tensors that are not constants."""
    todo, seen = [scores], {scores}
    while todo:
        node = topology.producers.get(todo.pop(0))
        if node is None:
            continue
        if node.op_type in PRODUCTS and len(topology.inputs(node)) == 2:
            return node
        if node.op_type in MIXES:
            fresh = [name for name in topology.inputs(node) if name not in seen]
            seen.update(fresh)
            todo.extend(fresh)
    return None


def _chain(topology: Topology, name: str) -> list[str]:
    """List a tensor and those above it of which it is a rearranged (and perhaps scaled) copy, nearest first."""
    chain = [name]
    while (node := topology.producers.get(chain[-1])) is not None:
        live = topology.inputs(node)
        if node.op_type in MOVES and node.input[0] in live:
            chain.append(node.input[0])
        elif node.op_type in SCALES and len(live) == 1:
            chain.append(live[0])
        else:
            break
    return chain


def _meet(topology: Topology, chain: list[str], name: str) -> list[str]:
    """List the tensors of a chain from which another tensor is copied too, nearest first."""
    return [tensor for tensor in _chain(topology, name) if tensor in chain]


def _sources(topology: Topology, name: str) -> list[str]:
    """List the tensors above the query operand up to whatever computes them, outermost first."""
    found, todo = [name], [name]
    while todo:
        node = topology.producers.get(todo.pop(0))
        if node is not None and node.op_type in MOVES | SCALES:
            fresh = [value for value in topology.inputs(node) if value not in found]
            found.extend(fresh)
            todo.extend(fresh)
    return found[::-1]


def _downstream(topology: Topology, product: NodeProto) -> list[str]:
    """List the tensors below the value product, nearest first."""
    found = [product.output[0]]
    for name in found:
        if len(found) > REACH:
            break
        for node in topology.consumers.get(name, []):
            if node.op_type in MIXES and node.output[0] not in found:
                found.append(node.output[0])
    return found


def _heads(topology: Topology, scores: tuple[int, ...], values: str) -> Callable[[int], int]:
    """Return heads as a function of channels: the scores' axis before the tokens, or channels / head width."""
    axis = scores[-3] if len(scores) > 3 else None
    width = topology.shapes[values][0][-1]

    def heads_of(channels: int) -> int:
        heads = axis if axis is not None else channels // width
        return heads if heads and channels % heads == 0 else 0

    return heads_of


def _views(
    topology: Topology,
    names: list[str],
    window: int,
    heads_of: Callable[[int], int],
    maps: set[tuple[int, int, int]] | None = None,
) -> tuple[View, ...]:
    """Keep the tensors that are [B, H, W, C] or the same memory as [B, L, C] or [B * L, C]; the former first."""
    whole: list[View] = []
    flat: list[View] = []
    for name in names:
        shape = topology.per_image(name)
        if shape is None or len(shape) not in (2, 3, 4):
            continue
        channels = shape[-1]
        if len(shape) == 4 and shape[0] == 1:
            candidates = [(shape[1], shape[2])]
        elif (len(shape) == 3 and shape[0] == 1) or len(shape) == 2:
            length = shape[0] * (shape[1] if len(shape) == 3 else 1)
            side = math.isqrt(length)
            known = [(h, w) for h, w, c in sorted(maps or ()) if h * w == length and c == channels]
            candidates = known or ([(side, side)] if side * side == length else [])
        else:
            continue
        for height, width in candidates:
            if height % window or width % window or not heads_of(channels):
                continue
            view = View(name, (-1, *shape[1:]), (height, width, channels))
            if maps is None or view.map in maps:
                (whole if len(shape) == 4 else flat).append(view)
    return (*whole, *flat)
