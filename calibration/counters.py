"""Saturation counters: an optional output that tells how much of each activation sits at an end of its integer range.

The graph gains one `If` node. It reads the integers that the graph makes anyway, so that ONNX Runtime runs the same
integer kernels as without it, and it does nothing unless the input `count_saturation` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.naming import module_names
from calibration.points import find_constants, find_layers
from edge_lsla.errors import GraphError

SWITCH = "count_saturation"  # input, bool, false where it is not given
OUTPUT = "saturation"  # output, float32 [N, K]; [0, K] where it was not asked for
METADATA = "edge_lsla.saturation"  # entry of the model's metadata: a JSON list of K names
LAST = 255
REDUCE_TAKES_AXES = 18  # opset from which ReduceMean has its axes as an input


def add_counters(model: onnx.ModelProto, names: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Return a copy of a Q/DQ graph for ONNX Runtime with a second output `saturation`, float32 [N, K].

    Column k is the share of activation k's integers, of each image, that sit at an end of their range, 0 or 255, where
    values beyond it end up. An end that stands for zero does not count: zeros belong there. The K names are kept in the
    model's metadata. The shares are computed only where the input `count_saturation` is given and true.

    Args:
        model: with uint8 activations, as `calibration.qdq.insert_qdq` writes them; not changed.
        names: of tensors, for people, see `activation_names`; a tensor that is not among them keeps its own.

    Raises:
        GraphError: the graph has counters already, or no uint8 activation that is quantised.
    """
    if any(entry.name == OUTPUT for entry in model.graph.output):
        raise GraphError("the graph has saturation counters already", model.graph.name or None, "use it as it is")
    constants = find_constants(model.graph)
    integers = {}  # quantised tensor to its zero point
    for node in model.graph.node:
        zero_point = constants.get(node.input[2]) if node.op_type == "QuantizeLinear" and len(node.input) > 2 else None
        if zero_point is not None and zero_point.data_type == TensorProto.UINT8:
            integers[node.output[0]] = int(numpy_helper.to_array(zero_point))
    if not integers:
        raise GraphError(
            "no activation is quantised to uint8", model.graph.name or None, "calibrate it for the backend onnxruntime"
        )
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    graph.node.append(
        helper.make_node(
            "If",
            [SWITCH],
            [OUTPUT],
            name=f"{OUTPUT}_If",
            then_branch=_count(integers, graph.input[0].name, opset),
            else_branch=_nothing(len(integers)),
        )
    )
    graph.initializer.append(numpy_helper.from_array(np.array(False), SWITCH))
    graph.input.append(helper.make_tensor_value_info(SWITCH, TensorProto.BOOL, []))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["counted", len(integers)]))
    entry = result.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(_unique(integers, names or {}))
    onnx.checker.check_model(result)
    return result


def drop_counters(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without what `add_counters` added; of a graph without counters, an equal one."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for entries, name in ((graph.input, SWITCH), (graph.initializer, SWITCH), (graph.output, OUTPUT)):
        _keep(entries, [entry for entry in entries if entry.name != name])
    _keep(graph.node, [node for node in graph.node if OUTPUT not in node.output])
    _keep(result.metadata_props, [entry for entry in result.metadata_props if entry.key != METADATA])
    return result


def counted_names(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name the columns of a graph's output `saturation`; none where it has no counters."""
    return next((tuple(json.loads(e.value)) for e in model.metadata_props if e.key == METADATA), ())


def activation_names(model: onnx.ModelProto, exported: onnx.ModelProto | None = None) -> dict[str, str]:
    """Map tensors of a float32 graph to the modules that read or make them, such as "stages.0.1.expand".

    A tensor is called after the first layer that reads it; what a Conv makes before its bias is its "output".

    Args:
        model: the graph that was quantised.
        exported: the graph that it was made from by moving scales, where weights still have their parameters' names.
    """
    modules = module_names(exported or model)
    found: dict[str, str] = {}
    for layer in find_layers(model):
        name = modules.get(layer.name, layer.name)
        found.setdefault(layer.activation, name)
        if layer.op == "Conv" and layer.raw_output is not None:
            found.setdefault(layer.raw_output, f"{name} output")
    return found


def _count(integers: Mapping[str, int], images: str, opset: int) -> onnx.GraphProto:
    """Return the branch that counts; of graph inputs it reads only how many images there are."""
    constants = {"rows": np.array([-1], np.int64), "axes": np.array([1], np.int64)}
    nodes = [
        helper.make_node("Shape", [images], ["saturation_batch"], end=1),
        helper.make_node("Concat", ["saturation_batch", "saturation_rows"], ["saturation_shape"], axis=0),
    ]
    for index, (tensor, zero_point) in enumerate(integers.items()):
        # An integer is at an end where it is far enough from the middle; from zero's end, where zero is one.
        centre = zero_point if zero_point in (0, LAST) else LAST / 2
        constants[f"centre_{index}"] = np.array(centre, np.float32)
        constants[f"reach_{index}"] = np.array(max(centre, LAST - centre), np.float32)
        value = [f"saturation_{step}_{index}" for step in ("float", "from", "far", "end", "one", "row", "share")]
        nodes += [
            # In floats: ONNX Runtime 1.20 compares no uint8.
            helper.make_node("Cast", [tensor], [value[0]], to=TensorProto.FLOAT),
            helper.make_node("Sub", [value[0], f"saturation_centre_{index}"], [value[1]]),
            helper.make_node("Abs", [value[1]], [value[2]]),
            helper.make_node("GreaterOrEqual", [value[2], f"saturation_reach_{index}"], [value[3]]),
            helper.make_node("Cast", [value[3]], [value[4]], to=TensorProto.FLOAT),
            # Windows may be counted with the images in the first axis; each image's values follow each other.
            helper.make_node("Reshape", [value[4], "saturation_shape"], [value[5]]),
            _mean(value[5], value[6], opset),
        ]
    shares = [f"saturation_share_{index}" for index in range(len(integers))]
    nodes.append(helper.make_node("Concat", shares, ["saturation_counted"], axis=1))
    stored = [numpy_helper.from_array(value, f"saturation_{name}") for name, value in constants.items()]
    return helper.make_graph(nodes, "count", [], [_shares("saturation_counted", len(integers))], stored)


def _mean(row: str, share: str, opset: int) -> onnx.NodeProto:
    if opset < REDUCE_TAKES_AXES:
        return helper.make_node("ReduceMean", [row], [share], axes=[1])
    return helper.make_node("ReduceMean", [row, "saturation_axes"], [share])


def _nothing(columns: int) -> onnx.GraphProto:
    value = numpy_helper.from_array(np.zeros((0, columns), np.float32))
    node = helper.make_node("Constant", [], ["saturation_none"], value=value)
    return helper.make_graph([node], "count nothing", [], [_shares("saturation_none", columns)])


def _shares(name: str, columns: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, columns])


def _unique(integers: Mapping[str, int], names: Mapping[str, str]) -> list[str]:
    tensors = [tensor.removesuffix("_quantized") for tensor in integers]
    wanted = [names.get(tensor, tensor) for tensor in tensors]
    return [name if wanted.count(name) == 1 else tensor for name, tensor in zip(wanted, tensors)]


def _keep(entries: Any, kept: list[Any]) -> None:
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in kept]
    del entries[:]
    entries.extend(copies)
