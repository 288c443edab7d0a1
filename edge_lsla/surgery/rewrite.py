"""Writing operators into a graph: a node takes the place of what made a tensor, and what nothing reads then goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import ModelProto, helper

from edge_lsla.errors import GraphError
from edge_lsla.operator import DOMAIN, NAME, PARAMETERS, QUANTISED_NAME, RESIDUAL_NAME, SCALES, VERSION
from edge_lsla.surgery.cut import View
from edge_lsla.surgery.function import drop_function, node_attributes, operator_functions
from edge_lsla.surgery.quantised import Quantised
from edge_lsla.surgery.residual import PARAMETERS as RESIDUAL_PARAMETERS
from edge_lsla.surgery.residual import Residual
from edge_lsla.surgery.verify import Attention

OLDEST_IR = 10


def write_attentions(source: ModelProto, attentions: Sequence[Attention], names: Sequence[str]) -> ModelProto:
    """Return a copy with an `LslaAttention` node of the given name for each attention."""

    def change(graph: Any) -> None:
        for attention, name in zip(attentions, names):
            _write_attention(graph, attention, name)

    return _rewrite(source, change)


def write_residuals(source: ModelProto, residuals: Sequence[Residual]) -> ModelProto:
    """Return a copy in which an `LslaResidualAttention` takes the place of each branch, with its attention's name."""

    def change(graph: Any) -> None:
        for residual in residuals:
            _write_residual(graph, residual)

    return _rewrite(source, change)


def write_quantised(source: ModelProto, found: Sequence[Quantised]) -> ModelProto:
    """Return a copy in which a `QLslaAttention` takes the place of each attention between Q/DQ, with its name."""

    def change(graph: Any) -> None:
        for quantised in found:
            _write_quantised(graph, quantised)

    return _rewrite(source, change)


def _rewrite(source: ModelProto, change: Callable[[Any], None]) -> ModelProto:
    graph = gs.import_onnx(drop_function(source))
    change(graph)
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    fused: ModelProto = gs.export_onnx(graph, do_type_check=False)
    fused.ir_version = max(OLDEST_IR, source.ir_version)
    fused.producer_name, fused.producer_version = source.producer_name, source.producer_version
    properties = {entry.key: entry.value for entry in source.metadata_props} | {"edge_lsla.stage": "fuse"}
    helper.set_model_props(fused, properties)
    imports = {entry.domain: entry.version for entry in source.opset_import} | {DOMAIN: VERSION}
    del fused.opset_import[:]
    fused.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(imports.items()))
    fused.functions.extend(operator_functions(fused))
    try:
        fused = onnx.shape_inference.infer_shapes(fused)
        onnx.checker.check_model(fused, full_check=True)
    except Exception as error:  # the checker and shape inference have classes of their own, defined in C++
        raise GraphError(
            "the fused graph is not valid ONNX", str(error).splitlines()[0][:200], "report this"
        ) from error
    return fused


class _Place:
    """The place of one new node in a graph: its name, its type, and the views it takes and gives."""

    def __init__(self, graph: Any, name: str, dtype: Any) -> None:
        self.graph, self.name, self.dtype = graph, name, dtype
        self.tensors = graph.tensors()
        self.batch = graph.inputs[0].shape[0] if graph.inputs else "batch"

    def constant(self, label: str, values: Any, dtype: Any = None) -> Any:
        values = np.ascontiguousarray(values) if np.ndim(values) else np.array(values)
        return gs.Constant(self.free(label), values.astype(dtype or self.dtype))

    def free(self, label: str) -> str:
        """Return a tensor name that the graph does not have, also where it was fused before."""
        name = f"{self.name}.{label}"
        while name in self.tensors:
            name += "_"
        return name

    def map_of(self, view: View, label: str) -> Any:
        """Give a view as [B, H, W, C], through a Reshape where the graph calls it something else."""
        tensor = self.tensors[view.tensor]
        if view.is_map:
            tensor.dtype, tensor.shape = self.dtype, (self.batch, *view.map)
            return tensor
        reshaped = gs.Variable(self.free(label), self.dtype, (self.batch, *view.map))
        shape = self.constant(f"{label}_shape", (-1, *view.map), np.int64)
        self.graph.nodes.append(gs.Node("Reshape", f"{self.name}.{label}_reshape", {}, [tensor, shape], [reshaped]))
        return reshaped

    def write(self, op: str, attributes: dict[str, Any], inputs: list[Any], y: View) -> None:
        """Write the operator's node where y was made; cleanup removes what nothing reads any more."""
        result = target = self.tensors[y.tensor]
        target.inputs.clear()
        if y.is_map:
            target.dtype, target.shape = self.dtype, (self.batch, *y.map)
        else:
            result = gs.Variable(self.free("y"), self.dtype, (self.batch, *y.map))
            shape = self.constant("y_shape", y.shape, np.int64)
            self.graph.nodes.append(gs.Node("Reshape", f"{self.name}.y_reshape", {}, [result, shape], [target]))
        self.graph.nodes.append(gs.Node(op, self.name, attributes, inputs, [result], domain=DOMAIN))


def _write_attention(graph: Any, attention: Attention, name: str) -> None:
    place = _Place(graph, name, attention.inner_bias.dtype)
    x, query = place.map_of(attention.x, "x"), place.map_of(attention.query, "query")
    if abs(attention.query_gain - 1) > 1e-9:
        gained = gs.Variable(place.free("query_scaled"), place.dtype, (place.batch, *attention.x.map))
        gain = place.constant("query_gain", attention.query_gain)
        graph.nodes.append(gs.Node("Mul", f"{name}.query_scale", {}, [query, gain], [gained]))
        query = gained
    weights = [place.constant(label, getattr(attention, label)) for label in PARAMETERS]
    attributes = node_attributes(attention.num_heads, attention.window)
    place.write(NAME, attributes, [x, query, *weights], attention.y)


def _write_residual(graph: Any, residual: Residual) -> None:
    old = graph.tensors()[residual.attention].inputs[0]
    place = _Place(graph, old.name or residual.attention, residual.norm_weight.dtype)
    x = place.map_of(residual.x, "x")
    for output, same in residual.shapes.items():
        place.tensors[output].inputs[0].inputs[0] = place.tensors[same]
    weights = [place.constant(label, getattr(residual, label)) for label in RESIDUAL_PARAMETERS]
    attributes = node_attributes(old.attrs["num_heads"], old.attrs["window"], residual.epsilon)
    place.write(RESIDUAL_NAME, attributes, [x, *weights, *old.inputs[2:]], residual.y)


def _write_quantised(graph: Any, quantised: Quantised) -> None:
    tensors = graph.tensors()
    old = tensors[quantised.attention].inputs[0]
    place = _Place(graph, old.name or quantised.attention, np.int8)
    operands = [place.map_of(quantised.x, "x"), place.map_of(quantised.query, "query")]
    weights = [
        kept
        if isinstance(kept, gs.Constant) and kept.dtype == np.float32
        else place.constant(label, values, np.float32)
        for label, kept, values in zip(PARAMETERS, old.inputs[2:], quantised.parameters)
    ]
    scales = [place.constant(label, value, np.float32) for label, value in zip(SCALES, quantised.scales)]
    attributes = node_attributes(old.attrs["num_heads"], old.attrs["window"])
    place.write(QUANTISED_NAME, attributes, [*operands, *weights, *scales], quantised.y)
