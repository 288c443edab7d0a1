"""Cutting an attention out of its graph: a model of its own, from `x` and `query` to the tensors asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_lsla.surgery.topology import Topology

# Names that no exported graph uses: the graph's own tensors keep theirs inside the cut.
X, QUERY = "edge_lsla_x", "edge_lsla_query"


@dataclass(frozen=True)
class View:
    """A tensor that is [B, H, W, C] in memory; `shape` is what its graph calls it, [-1, ...]; `map` is (H, W, C)."""

    tensor: str
    shape: tuple[int, ...]
    map: tuple[int, int, int]

    @property
    def is_map(self) -> bool:
        """Whether the tensor is [B, H, W, C] in the graph too, so that no Reshape is needed."""
        return self.shape[1:] == self.map


@dataclass(frozen=True)
class Open:
    """The tensors asked for need something besides `x`, `query` and constants."""

    outside: str


def cut(topology: Topology, inputs: dict[str, View], outputs: list[str]) -> ModelProto | Open:
    """Return a model that computes `outputs` from `inputs`, or what else they need.

    Args:
        topology: of the graph to cut from.
        inputs: what the model takes, by name, `X` among them: tensors [B, H, W, C], B free.
        outputs: tensors of the graph.
    """
    graph_inputs = [
        helper.make_tensor_value_info(name, topology.types[view.tensor], ["batch", *view.map])
        for name, view in inputs.items()
    ]
    head = [helper.make_node("Shape", [X], ["edge_lsla_batch"], start=0, end=1)]
    weights: dict[str, TensorProto] = {}
    for name, view in inputs.items():
        shape = numpy_helper.from_array(np.array(view.shape, np.int64), f"{name}_shape")
        weights[shape.name] = shape
        head.append(helper.make_node("Reshape", [name, shape.name], [view.tensor]))
    nodes: dict[int, NodeProto] = {}
    done = {view.tensor for view in inputs.values()}
    todo = [name for name in outputs if name not in done]
    while todo:
        name = todo.pop()
        if name in done or not name:
            continue
        done.add(name)
        if name in topology.weights:
            weights[name] = topology.weights[name]
            continue
        node = topology.producers.get(name)
        if node is None or any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
            return Open(name)
        if node.op_type == "Shape" and node.input[0] in topology.shapes:
            head.extend(_shape_of(topology, node, weights))
            continue
        nodes[topology.order[id(node)]] = node
        todo.extend(node.input)
    body = [nodes[index] for index in sorted(nodes)]
    graph_outputs = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([*head, *body], "attention", graph_inputs, graph_outputs, list(weights.values()))
    for output, name in zip(graph.output, outputs):
        output.type.tensor_type.elem_type = topology.types[name]
    return helper.make_model(
        graph,
        opset_imports=topology.model.opset_import,
        functions=topology.model.functions,
        ir_version=topology.model.ir_version,
    )


def _shape_of(topology: Topology, node: NodeProto, weights: dict[str, TensorProto]) -> list[NodeProto]:
    """Rewrite a `Shape` node so that it needs no tensor but `x`: exporters ask any earlier tensor for the batch."""
    small, large = topology.shapes[node.input[0]]
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    span = slice(bounds.get("start"), bounds.get("end"))
    output = node.output[0]
    made: list[NodeProto] = []
    parts: list[str] = []
    for axis, (side, other) in enumerate(zip(small[span], large[span])):
        factor = side if side == other else side // topology.batches[0]
        part = numpy_helper.from_array(np.array([factor], np.int64), f"{output}_edge_lsla_{axis}")
        weights[part.name] = part
        parts.append(part.name)
        if side != other:
            made.append(helper.make_node("Mul", ["edge_lsla_batch", part.name], [f"{part.name}_batch"]))
            parts[-1] = f"{part.name}_batch"
    return [*made, helper.make_node("Concat", parts, [output], axis=0)]
