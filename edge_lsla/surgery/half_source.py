"""What must hold of a float32 graph before it becomes half precision: every type known, every constant finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from edge_lsla.errors import GraphError
from edge_lsla.surgery.function import drop_function, operator_functions
from edge_lsla.surgery.half_rules import STANDARD

OLDEST_QDQ_OPSET = 19  # the first whose Q/DQ have FP16 scales


def prepare(model: ModelProto) -> ModelProto:
    """Return a copy with every type inferred and no local functions but this project's.

    Raises:
        GraphError: subgraphs, Q/DQ of an opset before 19, or types that do not fit together.
    """
    source = drop_function(model)
    if source.functions:
        source = onnx.inliner.inline_local_functions(source)
    source.functions.extend(operator_functions(source))
    opset = opset_of(source)
    for node in source.graph.node:
        where = node.name or ", ".join(node.output)
        if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
            raise GraphError(f"{node.op_type} holds a graph of its own", where, "export a model without control flow")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and opset < OLDEST_QDQ_OPSET:
            raise GraphError(f"Q/DQ of opset {opset} have no FP16 scales", where, "export with opset 20")
    try:
        return onnx.shape_inference.infer_shapes(source, strict_mode=True)
    except Exception as error:  # InferenceError is defined in C++
        raise GraphError("types cannot be inferred", str(error).splitlines()[0][:200]) from error


def opset_of(model: ModelProto) -> int:
    """Return the version of the standard operators."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in STANDARD), 0)


def float_constants(source: ModelProto) -> dict[str, NDArray[Any]]:
    """Return the float32 constants that nothing can replace: initialisers and `Constant` nodes.

    Raises:
        GraphError: one holds NaN or infinity.
    """
    inputs = {value.name for value in source.graph.input}
    tensors = [t for t in source.graph.initializer if t.name not in inputs and t.data_type == TensorProto.FLOAT]
    constants = {t.name: numpy_helper.to_array(t) for t in tensors}
    for node in source.graph.node:
        if node.op_type != "Constant" or node.domain not in STANDARD:
            continue
        value = helper.get_attribute_value(node.attribute[0])
        if node.attribute[0].name in ("value_float", "value_floats"):
            constants[node.output[0]] = np.array(value, np.float32)
        elif node.attribute[0].name == "value" and value.data_type == TensorProto.FLOAT:
            constants[node.output[0]] = numpy_helper.to_array(value)
    for name, values in constants.items():
        if not np.isfinite(values).all():
            raise GraphError("a weight holds NaN or infinity", name, "repair the checkpoint")
    return constants


def types_of(model: ModelProto) -> dict[str, int]:
    """Return the element type of every tensor.

    Raises:
        GraphError: one is not known.
    """
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types: dict[str, int] = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for name in node.output:
            if name and not types.get(name):
                where = node.name or name
                raise GraphError(f"the type of what {node.op_type} makes is not known", where, "use standard operators")
    return types
