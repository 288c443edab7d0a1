"""Q/DQ nodes for one backend, from a float32 graph and its ranges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from calibration.biases import remove_unused, split_biases
from calibration.points import BEFORE_BIAS, Layer, find_constants, find_layers, other_layers
from calibration.quantise import asymmetric_uint8, quantise_weight, symmetric_int8
from calibration.ranges_file import Ranges
from calibration.settings import QdqSettings
from edge_lsla.errors import GraphError, RangesError, UsageError

MINIMUM_OPSET = 13  # DequantizeLinear has an axis from here on


@dataclass(frozen=True)
class QdqReport:
    """What `insert_qdq` did.

    Attributes:
        backend: "tensorrt" or "onnxruntime".
        quantised: names of the layers with Q/DQ, in graph order.
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
    model: onnx.ModelProto, ranges: Ranges, settings: QdqSettings
) -> tuple[onnx.ModelProto, QdqReport]:
    """Return a copy of a graph with Q/DQ pairs on activations and int8 weights, for one backend.

    Weights are symmetric int8, a scale for each output channel; biases, attention, LayerNorm and softmax stay float32.
    "tensorrt": activations symmetric int8, zero point 0. "onnxruntime": activations uint8 with a zero point; Conv and
    Gemm lose their bias to an Add, and Conv gets a pair on its output, without which they would run in float.

    Args:
        model: float32 graph, opset 13 or newer; not changed.
        ranges: measured on exactly this model.
        settings: backend, width of the weights, layers to leave alone.

    Raises:
        GraphError: quantised already, too old, or a weight is not finite.
        RangesError: the ranges belong to another model or lack a tensor.
        UsageError: `keep_float` names a layer that is not in the graph.
    """
    layers = find_layers(model)
    _require_opset(model)
    ranges.check(model)
    known = {layer.name for layer in layers} | set(other_layers(model))
    for name in settings.keep_float:
        if name not in known:
            raise UsageError("no such layer", name, "take names from the report's precision map")
    wanted = [layer for layer in layers if layer.name not in settings.keep_float and _runs_in_int8(layer, settings)]
    outputs = {node.output[0] for node in model.graph.node if _name_in(node, wanted)}
    result = split_biases(model, outputs if settings.backend == "onnxruntime" else ())
    writer = _Writer(result, ranges, settings)
    writer.write(wanted)
    remove_unused(result.graph)
    try:
        onnx.checker.check_model(result)
    except onnx.checker.ValidationError as error:
        raise GraphError("Q/DQ nodes do not fit into the graph", model.graph.name or None, str(error)) from error
    return result, _report(model, result, layers, wanted, settings)


def _runs_in_int8(layer: Layer, settings: QdqSettings) -> bool:
    return settings.backend != "onnxruntime" or layer.op != "Conv" or layer.output is not None


def _name_in(node: onnx.NodeProto, layers: Iterable[Layer]) -> bool:
    return any(node.input[:2] == [layer.activation, layer.weight] and node.op_type == layer.op for layer in layers)


class _Writer:
    def __init__(self, model: onnx.ModelProto, ranges: Ranges, settings: QdqSettings) -> None:
        self.graph, self.ranges, self.settings = model.graph, ranges, settings
        self.constants = find_constants(model.graph)
