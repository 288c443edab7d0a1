"""The attention without a plugin: opset 23's `Attention` for the softmax part and one MatMul for the outer bias, or the
functions' bodies written out; and what TensorRT wants to see of either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_lsla.errors import GraphError
from edge_lsla.operator import DOMAIN, INPUTS, NAME, relative_index
from edge_lsla.surgery.function import drop_function, is_attention, is_operator

STANDARD = ("", "ai.onnx")
DECOMPOSABLE = "TRT_decomposable"
OPSET, OLDEST_IR = 23, 11  # Attention is an operator from opset 23, which belongs to IR 11
CUT, UNCUT = (0, 1, 3, 5, 2, 4, 6), (0, 1, 4, 2, 5, 3, 6)  # [B, H/w, w, W/w, w, heads, d] to windows, and back


def split_attention(model: ModelProto) -> ModelProto:
    """Return a copy, raised to opset 23, with each `LslaAttention` in standard operators; the model is not changed.

    y = Attention(s q, x, x, mask = inner bias) + outer bias · x, in windows. The dynamic scale s is computed in
    float32, the rest in the tensors' type, float32 or float16. Bias tables are expanded to [1, heads, T, T]: at window
    14 that is 75 KB a head in float16. `Attention` has no attribute `softmax_precision`, because TensorRT's parser
    refuses it: of float16 tensors ONNX takes the softmax in float16, and TensorRT as its kernels do.

    Raises:
        GraphError: the graph has no `LslaAttention`, one with a feature map of unknown size or computed parameters, or
            another of this project's operators, which has no such form.
    """
    others = sorted({str(node.op_type) for node in model.graph.node if is_operator(node)} - {NAME})
    if others:
        raise GraphError(f"{others[0]} has no split form", remedy="fuse at level attention, with float attention")
    if not any(is_attention(node) for node in model.graph.node):
        raise GraphError(f"the graph has no {NAME} node", remedy="fuse it first")
    result = _raised(model)
    graph = result.graph
    types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    weights: dict[str, TensorProto] = {}
    for node in graph.node:
        if is_attention(node):
            writer = _Writer(node, types, constants)
            nodes += writer.write()
            weights |= writer.weights
        else:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    kept = [TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *weights.values()])
    result.ir_version = max(result.ir_version, OLDEST_IR)
    return _checked(result)


def mark_decomposable(model: ModelProto) -> ModelProto:
    """Return a copy that lets TensorRT take several kernels for an `Attention`: only what its parser is given.

    Without the mark a build fails where no single kernel does it: with an additive mask on every GPU that TensorRT for
    RTX 1.7 builds for. The mark is TensorRT's own attribute: `onnx.checker` and ONNX Runtime refuse it.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type == "Attention" and node.domain in STANDARD:
            node.attribute.append(helper.make_attribute(DECOMPOSABLE, 1))
    return copy


def inline_functions(model: ModelProto) -> ModelProto:
    """Return a copy with the functions' bodies in place of their nodes, every node named.

    TensorRT's parser refuses a second `QLslaAttention` otherwise: it names the Q/DQ layers of both bodies alike.
    """
    result = onnx.inliner.inline_local_functions(model)
    for node in result.graph.node:
        node.name = node.name or node.output[0]
    return _checked(result)


class _Writer:
    """Writes one attention in standard operators; tensor names begin with the node's name."""

    def __init__(self, node: NodeProto, types: dict[str, Any], constants: dict[str, NDArray[Any]]) -> None:
        self.node, self.stem = node, node.name or node.output[0]
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        kind = types.get(node.output[0])
        sides = [dim.dim_value for dim in kind.shape.dim] if kind is not None else []
        if len(sides) != 4 or not all(sides[1:]):
            raise GraphError("its feature map has no fixed size", self.stem, "export with a fixed image size")
        computed = [name for name in node.input[2:] if name not in constants]
        if computed:
            raise GraphError("a parameter of the attention is not constant", self.stem, "fuse the graph again")
        assert kind is not None
        self.kind = int(kind.elem_type)
        self.map = tuple(sides[1:])
        self.parameters = {label: constants[name] for label, name in zip(INPUTS[2:], node.input[2:])}
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        self.heads, self.window = int(attributes["num_heads"]), int(attributes["window"])

    def write(self) -> list[NodeProto]:
        """Return the nodes that make what the attention made."""
        half = self.kind != TensorProto.FLOAT
        height, width, channels = self.map
        d = channels // self.heads
        down, across = height // self.window, width // self.window
        cut = self._constant("cut", np.array([-1, down, self.window, across, self.window, self.heads, d]))
        flat = self._constant("flat", np.array([-1, self.heads, self.window**2, d]))

        def windows(label: str, tensor: str) -> str:  # [B, H, W, C] to [N, heads, T, d]
            pieces = self._op("Reshape", f"{label}_pieces", tensor, cut)
            return self._op(
                "Reshape", f"{label}_windows", self._op("Transpose", f"{label}_ordered", pieces, perm=CUT), flat
            )

        x, query = windows("x", self.node.input[0]), windows("query", self.node.input[1])
        weight = self.parameters["scale_weight"].astype(np.float32)[:, None, :]  # [heads, 1, d]
        bias = self.parameters["scale_bias"].astype(np.float32)[:, None, None]
        wide_x, wide_query = (self._cast(t, TensorProto.FLOAT) if half else t for t in (x, query))
        products = self._op("Mul", "scale_products", wide_x, self._constant("scale_weight", weight))
        dot = self._op("ReduceSum", "scale_dot", products, self._constant("last", np.array([-1])), keepdims=1)
        logit = self._op("Add", "scale_logit", dot, self._constant("scale_bias", bias))
        root = self._constant("root", np.array(d**-0.5, np.float32))
        scale = self._op("Mul", "scale", self._op("Softplus", "softplus", logit), root)  # [N, heads, T, 1]
        scaled = self._op("Mul", "scaled_query", wide_query, scale)
        scaled = self._cast(scaled, self.kind) if half else scaled
        attended = self._op("Attention", "attended", scaled, x, x, self._table("inner_bias"), scale=1.0)
        outer = self._op("MatMul", "outer", self._table("outer_bias"), x)
        mixed = self._op("Add", "mixed", attended, outer)
        uncut = self._constant("uncut", np.array([-1, down, across, self.heads, self.window, self.window, d]))
        pieces = self._op("Reshape", "y_pieces", mixed, uncut)
        ordered = self._op("Transpose", "y_ordered", pieces, perm=UNCUT)
        shape = self._constant("map", np.array([-1, *self.map]))
        self.nodes.append(helper.make_node("Reshape", [ordered, shape], [self.node.output[0]], name=self.stem))
        return self.nodes

    def _op(self, op: str, label: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.stem}.{label}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def _cast(self, tensor: str, kind: int) -> str:
        return self._op(
            "Cast", f"{tensor.removeprefix(f'{self.stem}.')}_{'fp32' if kind == 1 else 'fp16'}", tensor, to=kind
        )

    def _table(self, label: str) -> str:
        """Expand a table [(2w-1)^2, heads] to [1, heads, T, T]."""
        expanded = self.parameters[label][relative_index(self.window)].transpose(2, 0, 1)[None]
        return self._constant(f"{label}_tokens", np.ascontiguousarray(expanded))

    def _constant(self, label: str, values: NDArray[Any]) -> str:
        name = f"{self.stem}.{label}_"  # the operator's own inputs have the names without the underscore
        self.weights[name] = numpy_helper.from_array(values, name)
        return name


def _raised(model: ModelProto) -> ModelProto:
    """Return a copy of opset 23 or newer; its `LslaAttention` nodes have no function any more."""
    source = drop_function(model)
    if source.functions:
        source = onnx.inliner.inline_local_functions(source)
    opset = next((entry.version for entry in source.opset_import if entry.domain in STANDARD), 0)
    if opset >= OPSET:
        return source
    try:
        raised: ModelProto = onnx.version_converter.convert_version(source, OPSET)
    except Exception as error:  # ConvertError is defined in C++
        reason = str(error).splitlines()[0][:200]
        raise GraphError(
            f"the graph cannot be raised from opset {opset} to {OPSET}", reason, "export it anew"
        ) from error
    return raised


def _checked(model: ModelProto) -> ModelProto:
    """Drop the import of this project's domain, type every tensor, and have it checked."""
    imports = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    imports = [helper.make_opsetid(entry.domain, entry.version) for entry in imports]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker and shape inference have classes of their own, defined in C++
        raise GraphError("the graph is not valid ONNX", str(error).splitlines()[0][:200], "report this") from error
    return model
