"""The mathematics of light self-limited attention in standard ONNX operators, for the bodies of local functions.

One body serves every node: batch, height and width come from `Shape`, heads and window from attribute references, and
the index of the relative tables is computed. Scores, softmax and accumulation are float32 whatever the tensors are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

LAYER_NORM_OPSET = 17  # the first that has LayerNormalization


class Body:
    """Writes nodes one after the other; each method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def op(self, op_type: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Write a node with one output, called `name`."""
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, name: str, dtype: Any = np.int64) -> str:
        """Write a constant, int64 unless told otherwise."""
        return self.op("Constant", name=name, value=numpy_helper.from_array(np.array(values, dtype)))

    def attribute(self, attribute: str, name: str) -> str:
        """Give an integer attribute of the calling node as an int64 scalar."""
        node = helper.make_node("Constant", [], [name])
        node.attribute.append(_referred("value_int", attribute, AttributeProto.INT))
        self.nodes.append(node)
        return name

    def float32(self, tensor: str) -> str:
        """Cast a tensor to float32."""
        return self.op("Cast", tensor, name=f"{tensor}_32", to=TensorProto.FLOAT)


def attend(body: Body, x: str, query: str) -> str:
    """Write LslaAttention of two tensors [B, H, W, C] and return its float32 result [B, H, W, C].

    The four parameters and the attributes `num_heads` and `window` are the function's own.
    """
    op = body.op
    zero, one = body.constant(0, "zero"), body.constant(1, "one")
    first = body.constant([0], "first")  # axes as tensors
    second = body.constant([1], "second")
    last = body.constant([-1], "last")
    heads = op("Unsqueeze", body.attribute("num_heads", "num_heads_0d"), first, name="heads")  # [1]
    side = body.attribute("window", "side")  # scalar
    window = op("Unsqueeze", side, first, name="window_1d")  # [1]
    tokens = op("Mul", side, side, name="tokens")  # scalar

    shape = op("Shape", x, name="shape")  # [4]
    batch = op("Shape", x, name="batch", start=0, end=1)
    rows = op("Div", op("Shape", x, name="height", start=1, end=2), window, name="window_rows")
    columns = op("Div", op("Shape", x, name="width", start=2, end=3), window, name="window_columns")
    head_width = op("Div", op("Shape", x, name="channels", start=3, end=4), heads, name="head_width")
    cut = op("Concat", batch, rows, window, columns, window, heads, head_width, name="cut_shape", axis=0)
    flat_tokens = op("Unsqueeze", tokens, first, name="tokens_1d")
    flat = op("Concat", last, heads, flat_tokens, head_width, name="windows_shape", axis=0)

    def partition(tensor: str) -> str:
        """Cut [B, H, W, C] into float32 [N, heads, T, d]."""
        pieces = op("Reshape", tensor, cut, name=f"{tensor}_pieces")  # [B, H/w, w, W/w, w, heads, d]
        ordered = op("Transpose", pieces, name=f"{tensor}_ordered", perm=[0, 1, 3, 5, 2, 4, 6])
        windows = op("Reshape", ordered, flat, name=f"{tensor}_windows")
        return op("Cast", windows, name=f"{tensor}_32", to=TensorProto.FLOAT)

    keys, queries = partition(x), partition(query)

    # s_i = softplus(<x_i, scale_weight> + scale_bias) / sqrt(d)
    weight = op("Unsqueeze", body.float32("scale_weight"), second, name="scale_weight_rows")  # [heads, 1, d]
    bias = body.float32("scale_bias")
    bias = op("Unsqueeze", bias, body.constant([1, 2], "second_third"), name="scale_bias_column")  # [heads, 1, 1]
    products = op("Mul", keys, weight, name="scale_products")
    logit = op("Add", op("ReduceSum", products, last, name="scale_dot", keepdims=1), bias, name="scale_logit")
    root = op("Sqrt", body.float32(head_width), name="root")
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
    return op("Reshape", ordered, shape, name="mixed_map")


def normalise(body: Body, x: str, opset: int) -> str:
    """Write LayerNorm of a float32 tensor over its last axis and return its float32 result.

    `norm_weight`, `norm_bias` and the attribute `epsilon` are the function's own.
    """
    op = body.op
    weight, bias = body.float32("norm_weight"), body.float32("norm_bias")
    epsilon = _referred("epsilon", "epsilon", AttributeProto.FLOAT)
    if opset >= LAYER_NORM_OPSET:
        op("LayerNormalization", x, weight, bias, name="n", axis=-1, stash_type=1)
        body.nodes[-1].attribute.append(epsilon)
        return "n"
    # Spelled out with ReduceSum, whose axes are an input in every opset from 13 on, as ReduceMean's are not.
    axes = body.constant([-1], "norm_axes")
    count = body.float32(op("Shape", x, name="norm_count", start=-1))  # [1]
    mean = op("Div", op("ReduceSum", x, axes, name="norm_sum", keepdims=1), count, name="norm_mean")
    centred = op("Sub", x, mean, name="norm_centred")
    squares = op("Mul", centred, centred, name="norm_squares")
    variance = op("Div", op("ReduceSum", squares, axes, name="norm_power", keepdims=1), count, name="norm_variance")
    body.nodes.append(helper.make_node("Constant", [], ["epsilon_0d"]))
    epsilon.name = "value_float"
    body.nodes[-1].attribute.append(epsilon)
    deviation = op("Sqrt", op("Add", variance, "epsilon_0d", name="norm_shifted"), name="norm_deviation")
    normed = op("Mul", op("Div", centred, deviation, name="normed"), weight, name="norm_weighted")
    return op("Add", normed, bias, name="n")


def _referred(name: str, attribute: str, kind: int) -> AttributeProto:
    """Give a node's attribute the value of an attribute of the calling node."""
    return AttributeProto(name=name, type=kind, ref_attr_name=attribute)
