"""`edge_lsla::LslaAttention` as a model-local function: its meaning in standard ONNX operators.

One body serves every node: batch, height and width come from `Shape`, heads and window from attribute references, and
the index of the relative tables is computed. Scores, softmax and accumulation are float32 whatever the tensors are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_lsla.operator import ATTRIBUTES, DOMAIN, INPUTS, NAME, VERSION

OLDEST_OPSET = 15  # Shape with start and end, CastLike


class _Body:
    """Writes nodes one after the other; each method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def op(self, op_type: str, *inputs: str, name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, name: str) -> str:
        return self.op("Constant", name=name, value=numpy_helper.from_array(np.array(values, np.int64)))

    def attribute(self, attribute: str, name: str) -> str:
        """Give an integer attribute of the calling node as an int64 scalar."""
        node = helper.make_node("Constant", [], [name])
        reference = AttributeProto(name="value_int", type=AttributeProto.INT, ref_attr_name=attribute)
        node.attribute.append(reference)
        self.nodes.append(node)
        return name


def attention_function(opset: int) -> FunctionProto:
    """Return the FunctionProto of `LslaAttention` for a model of the given opset (at least 15)."""
    body = _Body()
    op = body.op
    zero, one = body.constant(0, "zero"), body.constant(1, "one")
    first = body.constant([0], "first")  # axes as tensors
    second = body.constant([1], "second")
    last = body.constant([-1], "last")
    heads = op("Unsqueeze", body.attribute("num_heads", "num_heads_0d"), first, name="heads")  # [1]
    side = body.attribute("window", "side")  # scalar
    window = op("Unsqueeze", side, first, name="window_1d")  # [1]
    tokens = op("Mul", side, side, name="tokens")  # scalar

    shape = op("Shape", "x", name="shape")  # [4]
    batch = op("Shape", "x", name="batch", start=0, end=1)
    rows = op("Div", op("Shape", "x", name="height", start=1, end=2), window, name="window_rows")
    columns = op("Div", op("Shape", "x", name="width", start=2, end=3), window, name="window_columns")
    head_width = op("Div", op("Shape", "x", name="channels", start=3, end=4), heads, name="head_width")
    cut = op("Concat", batch, rows, window, columns, window, heads, head_width, name="cut_shape", axis=0)
    flat_tokens = op("Unsqueeze", tokens, first, name="tokens_1d")
    flat = op("Concat", last, heads, flat_tokens, head_width, name="windows_shape", axis=0)

    def partition(tensor: str) -> str:
        """Cut [B, H, W, C] into float32 [N, heads, T, d]."""
        pieces = op("Reshape", tensor, cut, name=f"{tensor}_pieces")  # [B, H/w, w, W/w, w, heads, d]
        ordered = op("Transpose", pieces, name=f"{tensor}_ordered", perm=[0, 1, 3, 5, 2, 4, 6])
        windows = op("Reshape", ordered, flat, name=f"{tensor}_windows")
        return op("Cast", windows, name=f"{tensor}_32", to=TensorProto.FLOAT)

    keys, queries = partition("x"), partition("query")

    # s_i = softplus(<x_i, scale_weight> + scale_bias) / sqrt(d)
    weight = op("Cast", "scale_weight", name="scale_weight_32", to=TensorProto.FLOAT)
    weight = op("Unsqueeze", weight, second, name="scale_weight_rows")  # [heads, 1, d]
    bias = op("Cast", "scale_bias", name="scale_bias_32", to=TensorProto.FLOAT)
    bias = op("Unsqueeze", bias, body.constant([1, 2], "second_third"), name="scale_bias_column")  # [heads, 1, 1]
    products = op("Mul", keys, weight, name="scale_products")
    logit = op("Add", op("ReduceSum", products, last, name="scale_dot", keepdims=1), bias, name="scale_logit")
    root = op("Sqrt", op("Cast", head_width, name="head_width_32", to=TensorProto.FLOAT), name="root")
    scale = op("Div", op("Softplus", logit, name="softplus"), root, name="scale")  # [N, heads, T, 1]

    # rel(i, j) = (row_i - row_j + w - 1)(2w - 1) + (col_i - col_j + w - 1)
    token = op("Range", zero, tokens, one, name="token")  # [T]
    row = op("Div", token, side, name="row")
    column = op("Sub", token, op("Mul", row, side, name="row_start"), name="column")
    reach = op("Sub", side, one, name="reach")
    period = op("Add", side, reach, name="period")  # 2w - 1

    def distance(position: str) -> str:
        """Give position_i - position_j + w - 1, [T, T]."""
        down = op("Unsqueeze", position, second, name=f"{position}_down")
        across = op("Unsqueeze", position, first, name=f"{position}_across")
        return op("Add", op("Sub", down, across, name=f"{position}_offset"), reach, name=f"{position}_distance")

    index = op("Add", op("Mul", distance(row), period, name="row_index"), distance(column), name="index")

    def expand(table: str) -> str:
        """Look a table [(2w-1)^2, heads] up as float32 [heads, T, T]."""
        by_head = op("Transpose", table, name=f"{table}_by_head", perm=[1, 0])
        looked_up = op("Gather", by_head, index, name=f"{table}_tokens", axis=1)
        return op("Cast", looked_up, name=f"{table}_32", to=TensorProto.FLOAT)

    scaled = op("Mul", queries, scale, name="scaled_query")
    turned = op("Transpose", keys, name="keys_turned", perm=[0, 1, 3, 2])
    scores = op("Add", op("MatMul", scaled, turned, name="dots"), expand("inner_bias"), name="scores")
    weights = op("Add", op("Softmax", scores, name="softmax", axis=-1), expand("outer_bias"), name="weights")
    mixed = op("MatMul", weights, keys, name="mixed")  # [N, heads, T, d]

    uncut = op("Concat", batch, rows, columns, heads, window, window, head_width, name="uncut_shape", axis=0)
    pieces = op("Reshape", mixed, uncut, name="mixed_pieces")
    ordered = op("Transpose", pieces, name="mixed_ordered", perm=[0, 1, 4, 2, 5, 3, 6])
    op("CastLike", op("Reshape", ordered, shape, name="mixed_map"), "x", name="y")
    return helper.make_function(
        DOMAIN, NAME, list(INPUTS), ["y"], body.nodes, [helper.make_opsetid("", opset)], attributes=list(ATTRIBUTES)
    )


def attention_node(inputs: list[str], output: str, name: str, *, num_heads: int, window: int) -> NodeProto:
    """Return one `LslaAttention` node with every attribute that the plugin's creator expects."""
    return helper.make_node(
        NAME,
        inputs,
        [output],
        name=name,
        domain=DOMAIN,
        num_heads=num_heads,
        window=window,
        plugin_version=str(VERSION),
        plugin_namespace="",
    )


def is_attention(node: NodeProto) -> bool:
    """Tell whether a node is an `LslaAttention` of this project."""
    return bool(node.domain == DOMAIN and node.op_type == NAME)


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
