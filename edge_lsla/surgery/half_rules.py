"""Which nodes of a graph may compute in half precision: by operator, and by the constants that they read."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx.defs
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from edge_lsla.operator import DOMAIN, NAME, RESIDUAL_NAME

STANDARD = ("", "ai.onnx")
LARGEST = float(np.finfo(np.float16).max)  # 65504
# Half of the last of 127 steps: a scale that moved by less leaves the end of the int8 range within its step.
SCALE_ERROR = 1 / 254

# Statistics, sums over many values, and functions that soon leave half's range or precision. A LayerNormalization of
# half tensors has float32 statistics only by its attribute `stash_type`, and a strongly typed network refuses to be
# told a layer's compute precision: it follows its tensors. So those are cast, which TensorRT fuses into the layer.
FLOAT32_OPERATORS = frozenset(
    {
        *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization"),
        *("MeanVarianceNormalization", "LpNormalization", "Softmax", "LogSoftmax", "GlobalAveragePool", "CumSum"),
        *("ReduceMean", "ReduceSum", "ReduceProd", "ReduceSumSquare", "ReduceL1", "ReduceL2"),
        *("ReduceLogSum", "ReduceLogSumExp", "Exp", "Log", "Pow", "Sqrt", "Softplus"),
    }
)
# Their result's type is an attribute or nobody's: converting them gains nothing.
TYPED_BY_ATTRIBUTE = frozenset({"Cast", "ConstantOfShape", "EyeLike", "Range", "Multinomial", "Bernoulli"})


def layer_names(graph: GraphProto) -> dict[str, str]:
    """Map each node's first output to the node's name, or to itself where the name is empty or not unique."""
    counts = Counter(node.name for node in graph.node)
    return {n.output[0]: n.name if n.name and counts[n.name] == 1 else n.output[0] for n in graph.node if n.output}


def takes_half(node: NodeProto, opset: int, floats: tuple[tuple[int, ...], tuple[int, ...]]) -> str | None:
    """Return None where an operator is defined for half tensors, else the reason.

    Args:
        node: of the graph.
        opset: of the standard operators.
        floats: positions of the node's inputs and of its outputs that are float32.
    """
    if node.domain == DOMAIN:
        return None if node.op_type in (NAME, RESIDUAL_NAME) else "its parameters are float32 by contract"
    if node.domain not in STANDARD or not onnx.defs.has(node.op_type, opset):
        return f"{node.op_type} is not a standard operator"
    if node.op_type in TYPED_BY_ATTRIBUTE or node.op_type.startswith("Random"):
        return "its type is fixed by an attribute"
    if node.op_type in FLOAT32_OPERATORS:
        return f"{node.op_type} needs float32"
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
    for positions, formal in zip(floats, (schema.inputs, schema.outputs)):
        for position in positions:
            name = formal[min(position, len(formal) - 1)].type_str
            if "tensor(float16)" not in allowed.get(name, ()):
                return f"{node.op_type} of opset {opset} takes no float16"
    return None


def fits(values: NDArray[Any]) -> str | None:
    """Return None where every value of a constant is in half's range, else the reason."""
    peak = float(np.abs(values).max(initial=0.0))
    with np.errstate(over="ignore"):
        representable = bool(np.isfinite(np.float16(peak)))
    return None if representable else f"it reads {peak:.4g}, half precision ends at {LARGEST:.0f}"


def scale_fits(values: NDArray[Any]) -> str | None:
    """Return None where the scales of a Q/DQ node and all that they stand for are in half's range, else the reason."""
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.abs(halved(values).astype(np.float64) - values) / np.abs(values)
    fitting = (errors <= SCALE_ERROR) & (128 * np.abs(values) <= LARGEST)
    if fitting.all():
        return None
    return f"a Q/DQ scale of {float(values[~fitting].flat[0]):.3g} does not fit half precision"


def halved(values: NDArray[Any]) -> NDArray[np.float16]:
    """Round a constant to half precision."""
    with np.errstate(over="ignore", under="ignore"):
        rounded: NDArray[np.float16] = np.asarray(values).astype(np.float16)
    return rounded
