"""What a layer costs in each precision: measured on the device, or estimated from operations and bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from calibration.points import find_attentions, find_constants, find_layers
from edge_lsla.errors import GraphError, UsageError
from edge_lsla.operator import DOMAIN

PRECISIONS = ("int8", "fp16", "fp32")

# All three are estimates of the right order, stated so that they can be argued with; a measured profile is better.
# Costs of a multiply-add, fp32 = 1. CPU: ONNX Runtime computes fp16 in fp32. GPU: fp32 on CUDA cores, the others on
# tensor cores, whose peaks kernels as small as these are far from.
OPERATION_WEIGHTS = {
    "onnxruntime": {"int8": 0.5, "fp16": 1.0, "fp32": 1.0},
    "tensorrt": {"int8": 0.125, "fp16": 0.25, "fp32": 1.0},
}
# Multiply-adds in fp32 that a device does while it moves one byte: arithmetic over bandwidth.
BYTE_WEIGHTS = {"onnxruntime": 4.0, "tensorrt": 9.0}
# Bytes moved for each value: of a float activation or result by precision, and of an activation in INT8. ONNX Runtime
# reads floats to write integers and reads these; TensorRT lets the layer before write integers.
VALUE_BYTES = {"onnxruntime": {"fp16": 4, "fp32": 4}, "tensorrt": {"fp16": 2, "fp32": 4}}
QUANTISED_BYTES = {"onnxruntime": 4 + 1 + 1, "tensorrt": 1}


@dataclass(frozen=True)
class Cost:
    """What one layer costs.

    Attributes:
        layer: its name.
        of: precision to cost, in the unit of `Costs`.
        operations: multiply-adds for one picture. weight_bytes: of its weight in float32.
    """

    layer: str
    of: dict[str, float]
    operations: int
    weight_bytes: int

    def saving(self, fallback: str) -> float:
        """Return what INT8 saves against a float precision; negative where it costs more."""
        return self.of[fallback] - self.of["int8"]


@dataclass(frozen=True)
class Costs:
    """Costs of all layers of a graph.

    Attributes:
        layers: by name, in graph order.
        unit: "ms", or "operations" (what one multiply-add in fp32 takes).
        source: in words, where the figures come from.
    """

    layers: dict[str, Cost]
    unit: str
    source: str = field(compare=False)

    def total(self, assignment: Mapping[str, str]) -> float:
        """Return the cost of a precision for each layer; only layers that are assigned count."""
        return math.fsum(self.layers[layer].of[precision] for layer, precision in assignment.items())

    def share_int8(self, assignment: Mapping[str, str]) -> float:
        """Return which part of the layers' multiply-adds an assignment does in INT8, 0..1."""
        done = sum(self.layers[layer].operations for layer, precision in assignment.items() if precision == "int8")
        return done / max(sum(self.layers[layer].operations for layer in assignment), 1)


def measured_costs(model: onnx.ModelProto, latencies: Mapping[str, Mapping[str, float]]) -> Costs:
    """Return costs from a profile of the device: layer to precision to ms, every layer in at least int8 and one float.

    Raises:
        UsageError: a layer is missing or unknown, or a latency is not a positive number.
        GraphError: see `estimated_costs`.
    """
    sizes = _sizes(model)
    needed = {layer.name for layer in find_layers(model)}  # an attention only where it is to be switched
    unknown, missing = sorted(set(latencies) - set(sizes)), sorted(needed - set(latencies))
    if unknown or missing:
        what = "latency of a layer that the graph has not" if unknown else "no latency was measured of a layer"
        raise UsageError(what, (unknown or missing)[0], "profile this very graph, or let costs be estimated")
    layers = {}
    for name in (name for name in sizes if name in latencies):
        given = {precision: float(ms) for precision, ms in latencies[name].items()}
        fits = "int8" in given and len(given) > 1 and set(given) <= set(PRECISIONS)
        if not fits or not all(math.isfinite(ms) and ms > 0 for ms in given.values()):
            raise UsageError(
                f"latencies {given} are not positive ms of int8 and fp16 or fp32", name, "profile it again"
            )
        layers[name] = Cost(name, given, sizes[name].operations, 4 * sizes[name].weight)
    return Costs(layers, "ms", "latency of each layer, measured")


def estimated_costs(model: onnx.ModelProto, backend: str) -> Costs:
    """Return costs of one picture, estimated: multiply-adds times a weight, and bytes moved times another.

    Bytes are those of activation, weight and result, where the result of a layer in INT8 is float. In ONNX Runtime
    quantising an activation is work of its own, so that a layer that does little with a large one is cheaper in float.
    An attention moves x, query and y, and multiplies each value of x with those of its window three times. The weights
    are the constants of this module.

    Args:
        model: float32, one input images [N, 3, H, W].
        backend: "onnxruntime" or "tensorrt" (also tensorrt-rtx).

    Raises:
        UsageError: the backend is unknown. GraphError: the sides of the input are not fixed, or the graph does not run.
    """
    if backend not in OPERATION_WEIGHTS:
        raise UsageError(f"unknown backend {backend!r}", "backend", f"use one of {', '.join(OPERATION_WEIGHTS)}")
    operation, byte, value = OPERATION_WEIGHTS[backend], BYTE_WEIGHTS[backend], VALUE_BYTES[backend]
    narrow = min(value.values())  # what stays float around INT8
    layers = {}
    for name, size in _sizes(model).items():
        moved = {one: (size.activation + size.weight + size.result) * value[one] for one in value}
        moved["int8"] = size.activation * QUANTISED_BYTES[backend] + size.weight + size.result * narrow
        of = {one: size.operations * operation[one] + moved[one] * byte for one in PRECISIONS}
        layers[name] = Cost(name, of, size.operations, 4 * size.weight)
    weights = ", ".join(f"{one} {operation[one]:g}" for one in PRECISIONS)
    return Costs(
        layers, "operations", f"estimated for {backend}: a multiply-add costs {weights}, a byte moved {byte:g}"
    )


@dataclass(frozen=True)
class _Size:
    """Of one layer and one picture: multiply-adds, and numbers of values."""

    operations: int
    activation: int
    weight: int
    result: int


def _sizes(model: onnx.ModelProto) -> dict[str, _Size]:
    """Run one black picture and look at the shapes: the graph need not record them."""
    layers, attentions, constants = find_layers(model), find_attentions(model), find_constants(model.graph)
    windows = {
        node.output[0]: attribute.i for node in model.graph.node for attribute in node.attribute
        if node.domain == DOMAIN and attribute.name == "window"
    }  # fmt: skip
    entry = model.graph.input[0]
    sides = [d.dim_value for d in entry.type.tensor_type.shape.dim]
    if len(sides) != 4 or not all(sides[1:]):
        raise GraphError("the sides of the input are not fixed", entry.name, "export the model again")
    tensors = dict.fromkeys(tensor for layer in layers for tensor in (layer.activation, layer.output))
    tensors.update(dict.fromkeys(tensor for one in attentions for tensor in (one.x, one.y)))
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    del wide.graph.output[:]
    wanted = [tensor for tensor in tensors if tensor != entry.name]
    wide.graph.output.extend(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None) for tensor in wanted)
    black = np.zeros((max(sides[0], 1), *sides[1:]), np.float32)
    try:
        session = ort.InferenceSession(wide.SerializeToString(), providers=["CPUExecutionProvider"])
        values = session.run(wanted, {entry.name: black})
    except Exception as error:  # ONNX Runtime's own classes have no common root but this
        raise GraphError("ONNX Runtime cannot run the graph", None, f"export it again ({str(error)[:200]})") from error
    count = {name: value.size // len(black) for name, value in zip((*wanted, entry.name), (*values, black))}
    sizes = {}
    for layer in layers:
        shape = constants[layer.weight].dims
        weight = int(np.prod(shape))
        operations = count[layer.output] * weight // shape[layer.axis]
        sizes[layer.name] = _Size(operations, count[layer.activation], weight, count[layer.output])
    for one in attentions:
        values_of_x = count[one.x]
        sizes[one.name] = _Size(3 * values_of_x * windows[one.y] ** 2, 2 * values_of_x, 0, values_of_x)
    return sizes
