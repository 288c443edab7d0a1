"""Which layers can run in INT8, and which of their tensors have to be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edge_lsla.errors import GraphError
from edge_lsla.operator import DOMAIN, NAME

BEFORE_BIAS = "_before_bias"
STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Layer:
    """One Conv, MatMul or Gemm with a constant weight.

    Attributes:
        name: the node's name, or its output's where the node has none of its own.
        op: "Conv", "MatMul" or "Gemm".
        activation: the tensor to quantise.
        weight: the constant's tensor.
        axis: the axis of the weight that counts output channels.
        output: the tensor the node makes.
        raw_output: of a Conv or Gemm, the same before the bias (see `biases.split_biases`); `output` where there is
            no bias, None where the bias is computed. None for MatMul.
    """

    name: str
    op: str
    activation: str
    weight: str
    axis: int
    output: str
    raw_output: str | None = None


@dataclass(frozen=True)
class Attention:
    """One `LslaAttention` node: its name, and the tensors x, query and y, which can be quantised around it."""

    name: str
    x: str
    query: str
    y: str


@dataclass(frozen=True)
class Norm:
    """One LayerNormalization node: its name, and the tensor x that it reads, which can be quantised."""

    name: str
    x: str


def find_layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """List the layers that can run in INT8, in graph order.

    Left alone: attention (LslaAttention nodes, MatMuls of two activations), LayerNorm, softmax, biases, everything in
    the bodies of model-local functions.

    Raises:
        GraphError: the graph is quantised already, or its weights are float16.
    """
    refuse_quantised(model)
    constants = find_constants(model.graph)
    names = layer_names(model.graph)
    layers = []
    for node in model.graph.node:
        layer = _layer(node, names[node.output[0]], constants) if node.output and node.domain in STANDARD else None
        if layer is not None:
            layers.append(layer)
    return tuple(layers)


def find_attentions(model: onnx.ModelProto) -> tuple[Attention, ...]:
    """List the `LslaAttention` nodes, in graph order; a graph that is not fused has none."""
    names = layer_names(model.graph)
    return tuple(
        Attention(names[node.output[0]], node.input[0], node.input[1], node.output[0])
        for node in model.graph.node
        if node.domain == DOMAIN and node.op_type == NAME
    )


def find_norms(model: onnx.ModelProto) -> tuple[Norm, ...]:
    """List the LayerNormalization nodes, in graph order; those inside model-local functions are not among them."""
    names = layer_names(model.graph)
    return tuple(
        Norm(names[node.output[0]], node.input[0])
        for node in model.graph.node
        if node.domain in STANDARD and node.op_type == "LayerNormalization"
    )


def measured_tensors(
    layers: tuple[Layer, ...], attentions: tuple[Attention, ...] = (), norms: tuple[Norm, ...] = ()
) -> tuple[str, ...]:
    """Return the tensors whose ranges are needed, each once, the layers' first, in graph order.

    They are every layer's activation, what a Conv makes before its bias, which ONNX Runtime's integer Conv needs,
    x, query and y of every attention, and x of every LayerNorm given.
    """
    found: dict[str, None] = {}
    for layer in layers:
        found[layer.activation] = None
        if layer.op == "Conv" and layer.raw_output is not None:
            found[layer.raw_output] = None
    for attention in attentions:
        found.update(dict.fromkeys((attention.x, attention.query, attention.y)))
    found.update(dict.fromkeys(norm.x for norm in norms))
    return tuple(found)


def layer_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Map each node's first output to a name that is unique in the graph."""
    counts = Counter(node.name for node in graph.node)
    return {n.output[0]: n.name if n.name and counts[n.name] == 1 else n.output[0] for n in graph.node if n.output}


def multiplying_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name every Conv, MatMul, Gemm and attention node of the graph, in graph order."""
    names = layer_names(model.graph)
    return tuple(
        names[node.output[0]]
        for node in model.graph.node
        if node.domain == DOMAIN or (node.domain in STANDARD and node.op_type in ("Conv", "MatMul", "Gemm"))
    )


def find_constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Map names to the tensors they always hold: initialisers, Constant nodes, and Identity or Transpose of those."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for overridable in graph.input:
        constants.pop(overridable.name, None)  # an initialiser that is also an input can be replaced at run time
    for node in graph.node:
        attributes = {a.name: a for a in node.attribute}
        if node.domain not in STANDARD:
            continue
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = attributes["value"].t
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
        elif node.op_type == "Transpose" and node.input[0] in constants:
            order = list(attributes["perm"].ints) if "perm" in attributes else None
            value = np.ascontiguousarray(np.transpose(numpy_helper.to_array(constants[node.input[0]]), order))
            constants[node.output[0]] = numpy_helper.from_array(value, node.output[0])
    return constants


def refuse_quantised(model: onnx.ModelProto) -> None:
    """Refuse a graph that holds quantised operators.

    Raises:
        GraphError: naming the first such node.
    """
    for node in _all_nodes(model):
        if node.op_type.startswith(("QLinear", "DynamicQuantize")) or node.op_type in _QUANTISED:
            raise GraphError(
                f"graph is quantised already, it holds {node.op_type}",
                node.name or ", ".join(node.output),
                "calibrate the float32 graph it was made from",
            )


_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger", "QGemm"})


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            yield node
            for attribute in node.attribute:
                for graph in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                    yield from graph.node


def _layer(node: onnx.NodeProto, name: str, constants: dict[str, onnx.TensorProto]) -> Layer | None:
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return None
    activation, weight = node.input[0], node.input[1]
    tensor = constants.get(weight)
    if tensor is None or activation in constants:
        return None
    if tensor.data_type == onnx.TensorProto.FLOAT16:
        raise GraphError("weights are float16", weight, "calibrate the float32 graph; float16 comes after Q/DQ")
    rank = len(tensor.dims)
    if tensor.data_type != onnx.TensorProto.FLOAT or 0 in tensor.dims:
        return None
    output, raw_output = node.output[0], None
    if node.op_type != "MatMul":
        bias = node.input[2] if len(node.input) > 2 else ""
        raw_output = output if not bias else output + BEFORE_BIAS if bias in constants else None
    if node.op_type == "Conv":
        return Layer(name, "Conv", activation, weight, 0, output, raw_output)
    if rank != 2:
        return None
    transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    return Layer(name, node.op_type, activation, weight, 0 if transposed else 1, output, raw_output)
