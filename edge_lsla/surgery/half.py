"""From a float32 graph to a strongly typed half precision one: every type written in it, none left to a builder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_lsla.errors import GraphError, UsageError
from edge_lsla.operator import DOMAIN, QUANTISED_NAME, SCALES
from edge_lsla.surgery.function import is_operator
from edge_lsla.surgery.half_rules import STANDARD, fits, halved, layer_names, scale_fits, takes_half
from edge_lsla.surgery.half_source import float_constants, opset_of, prepare, types_of
from edge_lsla.surgery.match import Refusal

HALF, FLOAT = int(TensorProto.FLOAT16), int(TensorProto.FLOAT)
SUFFIX = {HALF: "_fp16", FLOAT: "_fp32"}
MULTIPLYING = ("Conv", "MatMul", "Gemm", "Attention")


@dataclass(frozen=True)
class HalfReport:
    """What `to_half` did; layers by their node's name (its first output's where the name is empty or not unique).

    Attributes:
        half: layers that compute in half precision.
        float32: layers that compute in float32 by their operator: LayerNorm, softmax, means.
        kept: layers that could be half and are float32, each with the reason.
        precision: "int8", "fp16" or "fp32" of every layer that multiplies, attention included, in graph order.
        casts: how many Cast nodes were inserted.
        flushed: constants in which values that are not zero became zero, and how many did.
        weight_bytes_before, weight_bytes_after: of all constants.
    """

    half: tuple[str, ...]
    float32: tuple[str, ...]
    kept: tuple[Refusal, ...]
    precision: dict[str, str]
    casts: int
    flushed: dict[str, int]
    weight_bytes_before: int
    weight_bytes_after: int


def to_half(model: ModelProto, *, keep_float: Collection[str] = ()) -> tuple[ModelProto, HalfReport]:
    """Return a copy of a float32 graph whose tensors are half wherever that is safe; the model given is not changed.

    Graph inputs and outputs stay float32, with a Cast behind and before them. LayerNorm, softmax, means and other sums
    compute in float32 between Casts; `LslaAttention` and `LslaResidualAttention` take half tensors and are float32
    inside; Q/DQ get half scales, and `QLslaAttention`, whose scales are float32, the same values. A layer stays float32
    where `keep_float` names it, or where a constant that it reads is beyond half's range.

    Args:
        model: fused or not, with or without Q/DQ; constants float32.
        keep_float: names of layers, as in the report.

    Raises:
        UsageError: `keep_float` names a layer that is not in the graph.
        GraphError: the graph has half tensors already, subgraphs, constants that are not finite, Q/DQ of an opset
            before 19, or does not fit together.
    """
    source = prepare(model)
    names = layer_names(source.graph)
    for name in keep_float:
        if name not in names.values():
            raise UsageError("no such layer", name, "take names from the report's precision map")
    writer = _Writer(source, names, frozenset(keep_float))
    writer.write()
    return _finish(source, writer), writer.report()


class _Writer:
    """Writes the nodes of one graph anew; every float32 tensor has up to two versions, half and float32."""

    def __init__(self, source: ModelProto, names: dict[str, str], keep: frozenset[str]) -> None:
        graph = source.graph
        self.source, self.names, self.keep, self.opset = source, names, keep, opset_of(source)
        self.types = types_of(source)
        if HALF in self.types.values():
            raise GraphError("the graph has half precision tensors already", remedy="give the float32 graph")
        self.outputs: set[str] = {value.name for value in graph.output}
        self.constants = float_constants(source)
        self.types.update(dict.fromkeys(self.constants, FLOAT))
        self.versions: dict[tuple[str, int], str] = {
            (v.name, FLOAT): v.name for v in graph.input if self.types[v.name] == FLOAT
        }
        self.taken: set[str] = {name for node in graph.node for name in (*node.input, *node.output)} | self.outputs
        self.dequantised: dict[str, NodeProto] = {}  # written once for each version that is asked for
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        self.layers: dict[str, str] = {}  # layer to "half", "float32" or the reason it is kept
        self.casts = 0
        self.flushed: dict[str, int] = {}

    def write(self) -> None:
        """Write every node, then the Casts that give the graph's outputs."""
        for node in self.source.graph.node:
            if node.op_type == "Constant" and node.output[0] in self.constants:
                continue
            if node.op_type == "DequantizeLinear" and self._is_float(node.output[0]):
                self.dequantised[node.output[0]] = node
            else:
                self._write(node)
        for name in sorted(self.outputs):
            if self._is_float(name):
                self._version(name, FLOAT)

    def _is_float(self, name: str) -> bool:
        return self.types.get(name) == FLOAT

    def _write(self, node: NodeProto) -> None:
        kind = self._precision(node)
        copy = NodeProto.FromString(node.SerializeToString())
        copy.name = self.names[node.output[0]] if node.output else node.name
        for position, name in enumerate(node.input):
            if not self._is_float(name):
                continue
            if node.op_type in ("Shape", "Size"):  # any version will do: no Cast for a size
                known = [self.versions[name, k] for k in (HALF, FLOAT) if (name, k) in self.versions]
                copy.input[position] = known[0] if known else self._version(name, FLOAT)
            elif node.domain == DOMAIN and node.op_type == QUANTISED_NAME and position >= len(node.input) - len(SCALES):
                copy.input[position] = self._scale_of_operator(name)
            else:
                copy.input[position] = self._version(name, kind)
        for position, name in enumerate(node.output):
            if self._is_float(name):
                copy.output[position] = self._declare(name, kind)
        self.nodes.append(copy)

    def _precision(self, node: NodeProto) -> int:
        """Decide in which type a node computes, and note why."""
        name = self.names[node.output[0]] if node.output else node.name
        floats = tuple(i for i, n in enumerate(node.input) if self._is_float(n))
        made = tuple(i for i, n in enumerate(node.output) if self._is_float(n))
        if not (floats or made) or node.op_type in ("Shape", "Size"):
            return FLOAT
        reason = takes_half(node, self.opset, (floats, made))
        if reason is not None:
            self.layers[name] = "float32"
            return FLOAT
        reason = "asked for" if name in self.keep else self._unfit(node, floats)
        self.layers[name] = "half" if reason is None else reason
        return HALF if reason is None else FLOAT

    def _unfit(self, node: NodeProto, positions: tuple[int, ...]) -> str | None:
        """Return why the constants that a node reads, directly or dequantised, cannot be half."""
        for position in positions:
            name = node.input[position]
            scale = self.dequantised[name].input[1] if name in self.dequantised else None
            if node.op_type == "QuantizeLinear" and position == 1:
                scale = name
            if scale in self.constants:
                reason = scale_fits(self.constants[scale])
            else:
                reason = fits(self.constants[name]) if name in self.constants else None
            if reason is not None:
                return reason
        return None

    def _version(self, name: str, kind: int) -> str:
        """Return the name of a tensor in a type, writing what makes it where nothing does yet."""
        if (name, kind) in self.versions:
            return self.versions[name, kind]
        other = FLOAT if kind == HALF else HALF
        if name in self.constants:
            return self._store(name, kind)
        if name in self.dequantised:
            copy = NodeProto.FromString(self.dequantised[name].SerializeToString())
            copy.input[1] = self._version(copy.input[1], kind)
            output = self._declare(name, kind)
            copy.name = self.names[name] + ("" if output == name else SUFFIX[kind])
            copy.output[0] = output
            self.nodes.append(copy)
            return output
        source = self.versions[name, other]
        output = self._declare(name, kind)
        self.nodes.append(helper.make_node("Cast", [source], [output], name=f"{name}_to{SUFFIX[kind]}", to=kind))
        self.casts += 1
        return output

    def _declare(self, name: str, kind: int) -> str:
        """Name a version: the first as the tensor was called, but outputs of the graph only in float32."""
        first = (name, HALF) not in self.versions and (name, FLOAT) not in self.versions
        label = name
        if not (kind == FLOAT if name in self.outputs else first):
            label += SUFFIX[kind]
            while label in self.taken:
                label += "_"
        self.taken.add(label)
        self.versions[name, kind] = label
        return label

    def _store(self, name: str, kind: int) -> str:
        values = self.constants[name]
        label = self._declare(name, kind)
        stored = halved(values) if kind == HALF else values
        if kind == HALF and np.count_nonzero(stored) < np.count_nonzero(values):
            self.flushed[name] = int(np.count_nonzero(values) - np.count_nonzero(stored))
        self.weights[label] = numpy_helper.from_array(stored, label)
        return label

    def _scale_of_operator(self, name: str) -> str:
        """Give a float32 scale of `QLslaAttention` the value that the Q or DQ node beside it has in half."""
        if name in self.constants and scale_fits(self.constants[name]) is None:
            self.constants[name] = halved(self.constants[name]).astype(np.float32)
        return self._version(name, FLOAT)

    def report(self) -> HalfReport:
        """Return what was done."""
        precision = {}
        for node in self.source.graph.node:
            if not is_operator(node) and not (node.domain in STANDARD and node.op_type in MULTIPLYING):
                continue
            name = self.names[node.output[0]]
            integers = all(tensor in self.dequantised for tensor in node.input[:2])
            int8 = node.op_type == QUANTISED_NAME or (node.domain in STANDARD and integers)
            precision[name] = "int8" if int8 else "fp16" if self.layers.get(name) == "half" else "fp32"
        kept = tuple(Refusal(n, why) for n, why in self.layers.items() if why not in ("half", "float32"))
        others = [t for t in self.source.graph.initializer if t.name not in self.constants]
        unconverted = sum(numpy_helper.to_array(t).nbytes for t in others)
        return HalfReport(
            half=tuple(name for name, how in self.layers.items() if how == "half"),
            float32=tuple(name for name, how in self.layers.items() if how == "float32"),
            kept=kept,
            precision=precision,
            casts=self.casts,
            flushed=self.flushed,
            weight_bytes_before=unconverted + sum(values.nbytes for values in self.constants.values()),
            weight_bytes_after=unconverted + sum(numpy_helper.to_array(t).nbytes for t in self.weights.values()),
        )


def _finish(source: ModelProto, writer: _Writer) -> ModelProto:
    """Put the new nodes and constants into a copy, type every tensor, and have it checked."""
    result = ModelProto()
    result.CopyFrom(source)
    graph = result.graph
    shapes = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    others = [t for t in graph.initializer if t.name not in writer.constants]
    kept = [value for value in graph.value_info if value.type.tensor_type.elem_type != FLOAT]
    ends = {value.name for value in (*graph.input, *graph.output)} | set(writer.weights)
    for (name, kind), label in writer.versions.items():
        if label in ends or name not in shapes:
            continue
        value = onnx.ValueInfoProto.FromString(shapes[name].SerializeToString())
        value.name, value.type.tensor_type.elem_type = label, kind
        kept.append(value)
    kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    others = [TensorProto.FromString(tensor.SerializeToString()) for tensor in others]
    for field, entries in ((graph.node, writer.nodes), (graph.value_info, kept)):
        del field[:]
        field.extend(entries)
    del graph.initializer[:]
    graph.initializer.extend([*others, *writer.weights.values()])
    properties = {entry.key: entry.value for entry in source.metadata_props} | {"edge_lsla.precision": "fp16"}
    helper.set_model_props(result, properties)
    try:
        result = onnx.shape_inference.infer_shapes(result, strict_mode=True)
        onnx.checker.check_model(result, full_check=True)
    except Exception as error:  # the checker and shape inference have classes of their own, defined in C++
        raise GraphError("the half precision graph is not valid ONNX", str(error).splitlines()[0][:200]) from error
    types_of(result)
    return result
