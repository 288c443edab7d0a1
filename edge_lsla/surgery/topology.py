"""What surgery must know about a graph: who makes and who reads a tensor, what is constant, and every shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_lsla.errors import GraphError

BATCHES = (2, 3)  # a dimension that differs between the two runs follows the batch
Shape = tuple[int, ...]


def session(model: ModelProto, *, optimise: bool = True) -> Any:
    """Open a model in ONNX Runtime on the CPU.

    Raises:
        GraphError: ONNX Runtime refuses it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # These runs are small and many: threads that spin for work cost more than they bring on a busy machine.
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes live in a private module
        raise GraphError("ONNX Runtime refuses the graph", str(error).splitlines()[0][:200]) from error


def random_inputs(model: ModelProto, batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Draw one array for each graph input: standard normal floats, zeros for other types; symbolic first axis = batch.

    Raises:
        GraphError: another axis than the first is symbolic.
    """
    generator = np.random.default_rng(seed)
    weights = {tensor.name for tensor in model.graph.initializer}
    feed: dict[str, NDArray[Any]] = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in value.type.tensor_type.shape.dim]
        if dims and dims[0] == 0:
            dims[0] = batch
        if 0 in dims:
            raise GraphError("the input's size is not fixed", value.name, "export with a fixed image size")
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        is_float = np.issubdtype(dtype, np.floating)
        feed[value.name] = (generator.standard_normal(dims) if is_float else np.zeros(dims)).astype(dtype)
    return feed


@dataclass(frozen=True)
class Topology:
    """One graph, indexed; shapes are those of a run at each of two batch sizes (equal where the batch is frozen)."""

    model: ModelProto
    order: dict[int, int]
    producers: dict[str, NodeProto]
    consumers: dict[str, list[NodeProto]]
    weights: dict[str, TensorProto]
    constants: frozenset[str]
    types: dict[str, int]
    shapes: dict[str, tuple[Shape, Shape]]
    batches: tuple[int, int]

    def inputs(self, node: NodeProto) -> list[str]:
        """Return the inputs of a node that are not constants."""
        return [name for name in node.input if name and name not in self.constants]

    def ends_in(self, name: str, channels: int) -> bool:
        """Tell whether the last axis of a tensor has this size."""
        return name in self.shapes and self.shapes[name][0][-1:] == (channels,)

    def per_image(self, name: str) -> Shape | None:
        """Return the shape with its first axis divided by the batch, None where that has no meaning."""
        if name not in self.shapes:
            return None
        small, large = self.shapes[name]
        if len(small) != len(large) or not small or small[1:] != large[1:]:
            return None
        images = small[0] // self.batches[0]
        if (images * self.batches[0], images * self.batches[1]) != (small[0], large[0]):
            return None
        return (images, *small[1:])


def constant_value(topology: Topology, name: str) -> NDArray[Any]:
    """Return the values of a constant tensor: an initializer, or what nodes make of initializers and `Constant`s."""
    if name in topology.weights:
        array: NDArray[Any] = numpy_helper.to_array(topology.weights[name])
        return array
    nodes: dict[int, NodeProto] = {}
    weights: dict[str, TensorProto] = {}
    todo = [name]
    while todo:
        source = todo.pop()
        if source in topology.weights:
            weights[source] = topology.weights[source]
        elif source:
            node = topology.producers[source]
            nodes[topology.order[id(node)]] = node
            todo.extend(node.input)
    output = helper.make_tensor_value_info(name, topology.types[name], None)
    graph = helper.make_graph([nodes[i] for i in sorted(nodes)], "constant", [], [output], list(weights.values()))
    model = helper.make_model(graph, opset_imports=topology.model.opset_import, ir_version=topology.model.ir_version)
    value: NDArray[Any] = session(model, optimise=False).run(None, {})[0]
    return value


def survey(model: ModelProto) -> Topology:
    """Index a graph and run it to learn every shape.

    Raises:
        GraphError: the graph does not run.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output if name}
    consumers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            consumers.setdefault(name, []).append(node)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    constants = set(weights)
    for node in graph.node:
        random = node.op_type.startswith("Random") or node.op_type in ("Multinomial", "Bernoulli")
        nested = any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)
        if not random and not nested and all(name in constants for name in node.input if name):
            constants.update(node.output)
    frozen = [
        value.type.tensor_type.shape.dim[0].dim_value
        for value in graph.input
        if value.name not in weights and value.type.tensor_type.shape.dim
    ]
    batches = (frozen[0], frozen[0]) if frozen and frozen[0] else BATCHES
    types = _types(model)
    names = [name for name in producers if name not in constants and name in types]
    first, second = (_shapes(model, names, batch) for batch in batches)
    return Topology(
        model=model,
        order={id(node): index for index, node in enumerate(graph.node)},
        producers=producers,
        consumers=consumers,
        weights=weights,
        constants=frozenset(constants),
        types=types,
        shapes={name: (first[name], second[name]) for name in first},
        batches=batches,
    )


def _types(model: ModelProto) -> dict[str, int]:
    """Return the element type of every tensor that shape inference understands."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:  # InferenceError is defined in C++
        raise GraphError("shapes cannot be inferred", str(error).splitlines()[0][:200]) from error
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values if value.type.HasField("tensor_type")}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _shapes(model: ModelProto, names: list[str], batch: int) -> dict[str, Shape]:
    """Run the graph once with a `Shape` node on every tensor."""
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    feed = random_inputs(model, batch)
    for index, name in enumerate(names):
        output = f"edge_lsla_shape_{index}"
        probe.graph.node.append(helper.make_node("Shape", [name], [output]))
        probe.graph.output.append(helper.make_tensor_value_info(output, TensorProto.INT64, None))
    try:
        values = session(probe, optimise=False).run(None, feed)
    except GraphError:
        raise
    except Exception as error:  # onnxruntime's classes live in a private module
        raise GraphError(f"the graph does not run at batch {batch}", str(error).splitlines()[0][:200]) from error
    shapes = {name: tuple(int(side) for side in value) for name, value in zip(names, values)}
    return shapes | {name: value.shape for name, value in feed.items()}
