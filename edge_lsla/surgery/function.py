"""The operators of domain `edge_lsla` as ONNX nodes, and their meaning as model-local functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, helper

from edge_lsla.operator import (
    ATTRIBUTES,
    DOMAIN,
    INPUTS,
    NAME,
    QUANTISED_ATTRIBUTES,
    QUANTISED_INPUTS,
    QUANTISED_NAME,
    RESIDUAL_ATTRIBUTES,
    RESIDUAL_INPUTS,
    RESIDUAL_NAME,
    VERSION,
)
from edge_lsla.surgery.body import Body, attend, normalise

OLDEST_OPSET = 15  # Shape with start and end, CastLike


def attention_function(opset: int) -> FunctionProto:
    """Return the FunctionProto of `LslaAttention` for a model of the given opset (at least 15)."""
    body = Body()
    body.op("CastLike", attend(body, "x", "query"), "x", name="y")
    return _function(NAME, INPUTS, ATTRIBUTES, body, opset)


def residual_function(opset: int) -> FunctionProto:
    """Return the FunctionProto of `LslaResidualAttention` for a model of the given opset (at least 15)."""
    body = Body()
    x = body.float32("x")
    n = normalise(body, x, opset)
    projected = body.op("MatMul", n, body.float32("query_weight"), name="projected")
    query = body.op("Add", projected, body.float32("query_bias"), name="query")
    added = body.op("Add", x, attend(body, n, query), name="added")
    body.op("CastLike", added, "x", name="y")
    return _function(RESIDUAL_NAME, RESIDUAL_INPUTS, RESIDUAL_ATTRIBUTES, body, opset)


def quantised_function(opset: int) -> FunctionProto:
    """Return the FunctionProto of `QLslaAttention` for a model of the given opset (at least 15)."""
    body = Body()
    # Always a zero point: without one QuantizeLinear gives uint8, and ONNX Runtime (1.32), which moves Q/DQ pairs past
    # Reshape and Transpose, copies that omission into a QuantizeLinear and computes wrong numbers.
    zero_point = body.constant(0, "zero_point", np.int8)
    x = body.op("DequantizeLinear", "x", "x_scale", zero_point, name="real_x")
    query = body.op("DequantizeLinear", "query", "query_scale", zero_point, name="real_query")
    body.op("QuantizeLinear", attend(body, x, query), "y_scale", zero_point, name="y")
    return _function(QUANTISED_NAME, QUANTISED_INPUTS, QUANTISED_ATTRIBUTES, body, opset)


FUNCTIONS: dict[str, Callable[[int], FunctionProto]] = {
    NAME: attention_function,
    RESIDUAL_NAME: residual_function,
    QUANTISED_NAME: quantised_function,
}


def _function(name: str, inputs: Sequence[str], attributes: Sequence[str], body: Body, opset: int) -> FunctionProto:
    return helper.make_function(
        DOMAIN, name, list(inputs), ["y"], body.nodes, [helper.make_opsetid("", opset)], attributes=list(attributes)
    )


def node_attributes(num_heads: int, window: int, epsilon: float | None = None) -> dict[str, int | float | str]:
    """Return every attribute that the plugin's creator expects of a node; `epsilon` of `LslaResidualAttention` only."""
    attributes: dict[str, int | float | str] = {
        "num_heads": num_heads,
        "window": window,
        "plugin_version": str(VERSION),
        "plugin_namespace": "",
    }
    return attributes if epsilon is None else {**attributes, "epsilon": epsilon}


def attention_node(inputs: list[str], output: str, name: str, *, num_heads: int, window: int) -> NodeProto:
    """Return one `LslaAttention` node with every attribute that the plugin's creator expects."""
    return helper.make_node(NAME, inputs, [output], name=name, domain=DOMAIN, **node_attributes(num_heads, window))


def is_attention(node: NodeProto) -> bool:
    """Tell whether a node is an `LslaAttention` of this project."""
    return bool(node.domain == DOMAIN and node.op_type == NAME)


def is_operator(node: NodeProto) -> bool:
    """Tell whether a node is any of this project's operators."""
    return bool(node.domain == DOMAIN and node.op_type in FUNCTIONS)


def operator_functions(model: ModelProto) -> list[FunctionProto]:
    """Return the functions of those operators that a model's graph uses, for its opset."""
    used = {node.op_type for node in model.graph.node if is_operator(node)}
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    return [function(opset) for name, function in FUNCTIONS.items() if name in used]


def drop_function(model: ModelProto) -> ModelProto:
    """Return a copy without the local functions of domain `edge_lsla`: what TensorRT parses with the plugin.

    Some TensorRT releases prefer a local function to a plugin of the same name.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    kept = [function for function in copy.functions if function.domain != DOMAIN]
    del copy.functions[:]
    copy.functions.extend(kept)
    return copy
