"""Q/DQ nodes for one backend, from a float32 graph and its ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from calibration.biases import remove_unused, split_biases
from calibration.choices import FLOAT_BY_DEFAULT, SOFTMAX_RANGE, Choices, open_softmax
from calibration.points import (
    STANDARD,
    Attention,
    Layer,
    find_attentions,
    find_constants,
    find_layers,
    find_norms,
    multiplying_layers,
)
from calibration.quantise import asymmetric_uint8, quantise_weight, symmetric_int8
from calibration.ranges_file import Ranges
from calibration.settings import QdqSettings
from edge_lsla.errors import GraphError, RangesError, UsageError
from edge_lsla.operator import DOMAIN, NAME

MINIMUM_OPSET = 13  # DequantizeLinear has an axis from here on


@dataclass(frozen=True)
class QdqReport:
    """What `insert_qdq` did.

    Attributes:
        backend: "tensorrt" or "onnxruntime".
        quantised: names of the layers with Q/DQ, attentions among them, in graph order.
        precision: "int8" or "fp32" of every layer that multiplies, attention included.
        weight_bytes_before, weight_bytes_after: of the weights of all layers that could be quantised; afterwards the
            integers, scales and zero points, and whatever stayed in float.
    """

    backend: str
    quantised: tuple[str, ...]
    precision: dict[str, str]
    weight_bytes_before: int
    weight_bytes_after: int


def insert_qdq(
    model: onnx.ModelProto,
    ranges: Ranges,
    settings: QdqSettings,
    choices: Choices = FLOAT_BY_DEFAULT,
) -> tuple[onnx.ModelProto, QdqReport]:
    """Return a copy of a graph with Q/DQ pairs on activations and int8 weights, for one backend.

    Weights are symmetric int8, a scale for each output channel; biases, LayerNorm and softmax stay float32, and so does
    attention unless the settings say int8: then x, query and y of each `LslaAttention` get a pair, which
    `edge_lsla.surgery.fuse.fuse_quantised` turns into a `QLslaAttention`.
    "tensorrt": activations symmetric int8, zero point 0. "onnxruntime": activations uint8 with a zero point; Conv and
    Gemm lose their bias to an Add, and Conv gets a pair on its output, without which they would run in float.

    Args:
        model: float32 graph, opset 13 or newer; not changed.
        ranges: measured on exactly this model.
        settings: backend, width of the weights, layers to leave alone.
        choices: what else is quantised, to see the damage; with "softmax" the result has no functions left.

    Raises:
        GraphError: quantised already, too old, a weight is not finite, or int8 attention in a graph without any.
        RangesError: the ranges belong to another model or lack a tensor.
        UsageError: `keep_float` names a layer that is not in the graph.
    """
    layers = find_layers(model)
    _require_opset(model)
    ranges.check(model)
    for name in settings.keep_float:
        if name not in multiplying_layers(model):
            raise UsageError("no such layer", name, "take names from the report's precision map")
    wanted = [layer for layer in layers if layer.name not in settings.keep_float and _runs_in_int8(layer, settings)]
    int8_attention = settings.attention == "int8" or "attention" in choices
    attentions = find_attentions(model) if int8_attention else ()
    if int8_attention and not attentions:
        raise GraphError(f"int8 attention needs {NAME} nodes", model.graph.name or None, "fuse the graph first")
    attentions = tuple(attention for attention in attentions if attention.name not in settings.keep_float)
    result = split_biases(model, {layer.output for layer in wanted} if settings.backend == "onnxruntime" else ())
    norms = {norm.x for norm in find_norms(model)} if "layernorm" in choices else set()
    _Writer(result.graph, ranges, settings).write(wanted, attentions, norms)
    if "softmax" in choices:
        result, softmaxes = open_softmax(result)
        natural = dataclasses.replace(ranges, ranges=dict.fromkeys(softmaxes, SOFTMAX_RANGE))
        _Writer(result.graph, natural, settings).write_after(softmaxes)
    remove_unused(result.graph)
    try:
        onnx.checker.check_model(result)
    except onnx.checker.ValidationError as error:
        raise GraphError("Q/DQ nodes do not fit into the graph", model.graph.name or None, str(error)) from error
    return result, _report(model, layers, wanted, attentions, settings)


def _runs_in_int8(layer: Layer, settings: QdqSettings) -> bool:
    return settings.backend != "onnxruntime" or layer.op == "MatMul" or layer.raw_output is not None


class _Writer:
    """Rewrites one graph in place."""

    def __init__(self, graph: onnx.GraphProto, ranges: Ranges, settings: QdqSettings) -> None:
        self.graph, self.ranges, self.settings = graph, ranges, settings
        self.constants = find_constants(graph)
        self.nodes: list[onnx.NodeProto] = []
        self.activations: dict[str, str] = {}  # tensor to its dequantised form: one pair however many read it
        self.weights: dict[tuple[str, int], str] = {}

    def write(self, layers: Iterable[Layer], attentions: Iterable[Attention], norms: Collection[str]) -> None:
        """Quantise activation and weight of layers, x, query and y of attentions, and `norms`, for LayerNorms alone."""
        by_result = {attention.y for attention in attentions}
        by_output = {tensor: layer for layer in layers for tensor in (layer.output, layer.raw_output) if tensor}
        for node in self.graph.node:
            if node.domain == DOMAIN and node.output[0] in by_result:
                node.input[0], node.input[1] = self._activation(node.input[0]), self._activation(node.input[1])
                self.nodes.append(node)
                self._pair_after(node)
                continue
            if node.op_type == "LayerNormalization" and node.input[0] in norms:
                node.input[0] = self._activation(node.input[0])
            layer = by_output.get(node.output[0]) if node.output else None
            if layer is None or node.op_type != layer.op:
                self.nodes.append(node)
                continue
            node.input[0] = self._activation(layer.activation)
            node.input[1] = self._weight(layer.weight, layer.axis)
            self.nodes.append(node)
            if self.settings.backend == "onnxruntime" and layer.op == "Conv":
                self._pair_after(node)
        self._replace_nodes()

    def write_after(self, tensors: Collection[str]) -> None:
        """Quantise some tensors where they are made, for all that read them."""
        for node in self.graph.node:
            self.nodes.append(node)
            if node.output and node.output[0] in tensors:
                self._pair_after(node)
        self._replace_nodes()

    def _replace_nodes(self) -> None:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def _activation(self, tensor: str) -> str:
        if tensor not in self.activations:
            self.activations[tensor] = f"{tensor}_dequantized"
            self._pair(tensor, tensor, self.activations[tensor])
        return self.activations[tensor]

    def _pair_after(self, node: onnx.NodeProto) -> None:
        """Quantise what a node makes, for all that read it."""
        tensor = node.output[0]
        node.output[0] = f"{tensor}_float"
        self._pair(tensor, node.output[0], tensor)
        self.activations[tensor] = tensor

    def _pair(self, measured: str, source: str, target: str) -> None:
        if measured not in self.ranges.ranges:
            raise RangesError("ranges lack a tensor of the graph", measured, "calibrate again")
        low, high = self.ranges.ranges[measured]
        tensorrt = self.settings.backend == "tensorrt"
        scale, zero_point = symmetric_int8(low, high) if tensorrt else asymmetric_uint8(low, high)
        inputs = [self._store(f"{measured}_scale", scale), self._store(f"{measured}_zero_point", zero_point)]
        quantised = f"{measured}_quantized"
        self._node("QuantizeLinear", [source, *inputs], quantised)
        self._node("DequantizeLinear", [quantised, *inputs], target)

    def _weight(self, name: str, axis: int) -> str:
        if (name, axis) not in self.weights:
            stem = name if not any(known == name for known, _ in self.weights) else f"{name}_axis{axis}"
            weight = numpy_helper.to_array(self.constants[name])
            if not np.isfinite(weight).all():
                raise GraphError("a weight holds NaN or infinity", name, "repair the checkpoint")
            integers, scales = quantise_weight(weight, axis, self.settings.weight_bits)
            inputs = [
                self._store(f"{stem}_int8", integers),
                self._store(f"{stem}_scale", scales),
                self._store(f"{stem}_zero_point", np.zeros(len(scales), np.int8)),
            ]
            self.weights[name, axis] = f"{stem}_dequantized"
            self._node("DequantizeLinear", inputs, f"{stem}_dequantized", axis=axis)
        return self.weights[name, axis]

    def _store(self, name: str, value: NDArray[Any] | np.generic) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, op: str, inputs: list[str], output: str, **attributes: int) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}_{op}", **attributes))


def _require_opset(model: onnx.ModelProto) -> None:
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)
    if opset < MINIMUM_OPSET:
        raise GraphError(f"Q/DQ needs opset {MINIMUM_OPSET} or newer, the graph has {opset}", None, "export it again")


def _report(
    model: onnx.ModelProto,
    layers: tuple[Layer, ...],
    wanted: list[Layer],
    attentions: tuple[Attention, ...],
    settings: QdqSettings,
) -> QdqReport:
    constants = find_constants(model.graph)
    before = after = 0
    quantised = {(layer.weight, layer.axis) for layer in wanted}
    left = {layer.weight for layer in layers if layer not in wanted}
    for name in dict.fromkeys(layer.weight for layer in layers):
        shape = constants[name].dims
        size = int(np.prod(shape))
        before += 4 * size
        after += 4 * size if name in left else 0
        after += sum(size + 5 * shape[axis] for weight, axis in quantised if weight == name)  # scale 4, zero point 1
    chosen = {layer.name for layer in wanted} | {attention.name for attention in attentions}
    precision = {name: "int8" if name in chosen else "fp32" for name in multiplying_layers(model)}
    return QdqReport(
        backend=settings.backend,
        quantised=tuple(name for name in precision if name in chosen),
        precision=precision,
        weight_bytes_before=before,
        weight_bytes_after=after,
    )
