"""One graph in which every layer is switched between float and INT8 when it runs, not when it is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.compose import add_prefix_graph

from calibration.biases import remove_unused
from calibration.identity import model_sha256
from calibration.points import Attention, Layer, find_attentions, find_constants, find_layers, multiplying_layers
from calibration.qdq import insert_qdq
from calibration.ranges_file import Ranges
from calibration.settings import QdqSettings
from edge_lsla.errors import GraphError, UsageError
from edge_lsla.operator import DOMAIN

SWITCH = "int8"  # the graph's second input
UNKNOWN = ()  # a shape that onnx.checker wants to see; branches lose it again


def switched_names(model: onnx.ModelProto, settings: QdqSettings) -> tuple[str, ...]:
    """Name what `switchable` switches: the order of its input `int8`.

    These are the layers of `points.find_layers`, in graph order, and after them, where the settings say int8, the
    attentions; less what the settings keep in float or the backend cannot run in INT8.
    """
    return tuple(point.name for point in _points(model, settings))


def switchable(model: onnx.ModelProto, ranges: Ranges, settings: QdqSettings) -> onnx.ModelProto:
    """Return a copy of a float32 graph with a second input `int8`, bool [K], K as `switched_names` counts.

    Where entry i is true, layer i computes what `insert_qdq` makes of it: the pair on its activation, the integer
    weight, in ONNX Runtime's flavour the bias behind it and the pair on a Conv's output. So each assignment gives the
    numbers of `insert_qdq` with the other layers in `keep_float`, without building a graph for it.

    Every layer becomes an `If` of two branches. Only one of them runs, each is optimised by ONNX Runtime as the whole
    graph would be (integer products, weights packed once), and what is common to all assignments stays outside. A pair
    that several layers share is computed by each of them; that changes no number, for a pair gives the same values
    again when it is applied to its own.

    Args:
        model: float32, fused or not; not changed.
        ranges: measured on exactly this model.
        settings: the backend's flavour, and layers that are never switched.

    Raises:
        GraphError, RangesError, UsageError: see `insert_qdq`; GraphError also where nothing can be switched.
    """
    ranges.check(model)
    unknown = sorted(set(settings.keep_float) - set(multiplying_layers(model)))
    if unknown:
        raise UsageError("no such layer", unknown[0], "take names from `switched_names`")
    points = _points(model, settings)
    if not points:
        raise GraphError("no layer can run in INT8", model.graph.name or None, "give another model or other settings")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = find_constants(model.graph)
    places = {point.y if isinstance(point, Attention) else point.output: i for i, point in enumerate(points)}
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        index = places.get(node.output[0]) if node.output else None
        if index is None:
            nodes.append(node)
            continue
        place, decision = f"{SWITCH}_place_{index}", f"{SWITCH}_{index}"
        result.graph.initializer.append(numpy_helper.from_array(np.array([index], np.int64), place))
        nodes.append(helper.make_node("Gather", [SWITCH, place], [decision], name=f"{decision}_Gather"))
        alone = _alone(model, node, points[index].name, constants)
        nodes.append(
            helper.make_node(
                "If",
                [decision],
                [node.output[0]],
                name=f"{points[index].name}_{SWITCH}",
                then_branch=_branch(_quantised(alone, ranges, settings).graph, f"{decision}_yes_"),
                else_branch=_branch(alone.graph, f"{decision}_no_"),
            )
        )
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(copies)
    remove_unused(result.graph)
    result.graph.input.append(helper.make_tensor_value_info(SWITCH, TensorProto.BOOL, [len(points)]))
    onnx.checker.check_model(result)
    return result


class SwitchedSession:
    """A switchable graph opened in ONNX Runtime on the CPU.

    Args:
        model: the float32 graph.
        ranges, settings: see `switchable`.
        threads: of ONNX Runtime; 0 leaves the number to it.

    Attributes:
        names: what can be switched, in the order of masks.
    """

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, settings: QdqSettings, threads: int = 0) -> None:
        self.names = switched_names(model, settings)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if settings.backend != "onnxruntime":
            # Q/DQ as written: without VNNI ONNX Runtime's integer kernels may saturate where a GPU's do not.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        data = switchable(model, ranges, settings).SerializeToString()
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._input = model.graph.input[0].name

    def mask(self, int8: Collection[str]) -> NDArray[np.bool_]:
        """Return bool [K], true at the layers named.

        Raises:
            UsageError: a name is not among those that can be switched.
        """
        unknown = sorted(set(int8) - set(self.names))
        if unknown:
            raise UsageError("no such layer to switch", unknown[0], "take names from `names`")
        return np.array([name in int8 for name in self.names])

    def logits(self, images: NDArray[np.float32], int8: Sequence[bool] | NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return logits float32 [N, classes] of images float32 [N, 3, H, W], normalised, with `int8` layers in INT8."""
        found: NDArray[np.float32] = self._session.run(None, {self._input: images, SWITCH: np.asarray(int8, bool)})[0]
        return found


def _points(model: onnx.ModelProto, settings: QdqSettings) -> tuple[Layer | Attention, ...]:
    layers: tuple[Layer | Attention, ...] = find_layers(model)
    if settings.backend == "onnxruntime":
        # Its integer Conv and Gemm need a bias that is constant; see `biases`.
        layers = tuple(la for la in layers if isinstance(la, Layer) and (la.op == "MatMul" or la.raw_output))
    attentions = find_attentions(model) if settings.attention == "int8" else ()
    return tuple(point for point in (*layers, *attentions) if point.name not in settings.keep_float)


def _alone(
    model: onnx.ModelProto, node: onnx.NodeProto, name: str, constants: dict[str, onnx.TensorProto]
) -> onnx.ModelProto:
    """Return a model of one node: constants as its initialisers, everything else that it reads as inputs."""
    copy = onnx.NodeProto.FromString(node.SerializeToString())
    copy.name = name
    held, read = [], []
    for tensor in dict.fromkeys(entry for entry in node.input if entry):
        if tensor in constants:
            constant = onnx.TensorProto.FromString(constants[tensor].SerializeToString())
            constant.name = tensor  # of a Constant node the tensor itself is called otherwise
            held.append(constant)
        else:
            read.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, UNKNOWN))
    made = [helper.make_tensor_value_info(output, TensorProto.FLOAT, UNKNOWN) for output in node.output]
    functions = [function for function in model.functions if node.domain == DOMAIN]
    return helper.make_model(
        helper.make_graph([copy], "alone", read, made, held),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        functions=functions,
    )


def _quantised(alone: onnx.ModelProto, ranges: Ranges, settings: QdqSettings) -> onnx.ModelProto:
    attention = alone.graph.node[0].domain == DOMAIN
    fitting = dataclasses.replace(ranges, model_sha256=model_sha256(alone))
    only = dataclasses.replace(settings, keep_float=(), attention="int8" if attention else "float")
    return insert_qdq(alone, fitting, only)[0]


def _branch(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """Return a graph as the branch of an If: it reads its inputs from outside, and no name of its own occurs there."""
    branch = add_prefix_graph(graph, prefix, rename_inputs=False)
    del branch.input[:]
    for output in branch.output:
        output.type.tensor_type.ClearField("shape")
    return branch
