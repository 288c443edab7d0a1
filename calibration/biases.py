"""Biases as Add nodes of their own.

ONNX Runtime runs Conv and Gemm on integers only where the bias is int32 or absent. Biases stay in float here, so they
are moved behind the layer.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from calibration.points import BEFORE_BIAS, find_constants


def split_biases(model: onnx.ModelProto, outputs: Collection[str]) -> onnx.ModelProto:
    """Return a copy in which each Conv or Gemm that makes one of `outputs` is followed by an Add of its bias.

    The tensor before the Add is called `<output>_before_bias`; the layer's own output keeps its name. A node without a
    constant bias is left as it is. Numbers change by float32 rounding only.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = find_constants(result.graph)
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        nodes.append(node)
        has_bias = node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and node.input[2] in constants
        if not has_bias or node.output[0] not in outputs:
            continue
        output, before = node.output[0], node.output[0] + BEFORE_BIAS
        bias = numpy_helper.to_array(constants[node.input[2]])
        if node.op_type == "Conv":
            bias = bias.reshape(1, -1, *[1] * (len(constants[node.input[1]].dims) - 2))
        else:
            beta = next((a.f for a in node.attribute if a.name == "beta"), 1.0)
            bias = bias * np.float32(beta)
        tensor = numpy_helper.from_array(np.ascontiguousarray(bias), f"{output}_bias")
        result.graph.initializer.append(tensor)
        del node.input[2]
        node.output[0] = before
        nodes.append(helper.make_node("Add", [before, tensor.name], [output], name=f"{output}_add_bias"))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(copies)
    remove_unused(result.graph)
    return result


def remove_unused(graph: onnx.GraphProto) -> None:
    """Drop initialisers, and nodes that only prepare constants, that nothing reads any more."""
    while True:
        read = {output.name for output in graph.output} | _read(graph)
        idle = [
            node
            for node in graph.node
            if node.op_type in ("Constant", "Identity", "Transpose") and not read.intersection(node.output)
        ]
        for node in idle:
            graph.node.remove(node)
        for tensor in [t for t in graph.initializer if t.name not in read]:
            graph.initializer.remove(tensor)
        if not idle:
            return


def _read(graph: onnx.GraphProto) -> set[str]:
    names: set[str] = set()
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                names |= _read(inner) | {output.name for output in inner.output}
    return names
