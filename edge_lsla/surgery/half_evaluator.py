"""A graph evaluated in the types that it has: onnx's reference evaluator, with quicker forms of four operators.

ONNX Runtime's CPU computes half precision graphs in float32 inside and so hides what overflows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops._op_list import load_op

from edge_lsla.surgery.half_rules import STANDARD

Array = NDArray[Any]


@dataclass(frozen=True)
class Observed:
    """What a graph made of some images: its first output [images, classes], and max|value| of every float tensor.

    A peak is infinity where a value was infinite or not a number.
    """

    logits: Array
    peaks: dict[str, float]


def evaluate(model: ModelProto, batches: Iterable[Array]) -> Observed:
    """Run a graph with one image input on batches [n, 3, S, S] float32, each operator rounding to its result's type."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in STANDARD)
    evaluator = ReferenceEvaluator(model, new_ops=_quicker(opset))
    made = {name for node in model.graph.node for name in node.output}
    logits: list[Array] = []
    peaks: dict[str, float] = {}
    for batch in batches:
        with np.errstate(all="ignore"):  # overflow is what is looked for, not an accident
            values = evaluator.run(None, {model.graph.input[0].name: batch}, intermediate=True)
        logits.append(values[model.graph.output[0].name])
        for name in made:
            value = values.get(name)
            if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating) and value.size:
                peak = float(np.abs(value).max())  # nan where any value is
                peaks[name] = max(peaks.get(name, 0.0), peak if np.isfinite(peak) else np.inf)
    return Observed(np.concatenate(logits), peaks)


def _quicker(opset: int) -> list[type[OpRun]]:
    return [*(_by_float32(name, opset) for name in ("MatMul", "Gemm", "Conv")), _Gelu]


def _by_float32(name: str, opset: int) -> type[OpRun]:
    """Give products of half tensors BLAS: summed in float32 and rounded once, as NumPy sums half products too."""
    base = load_op("", name, opset)

    def run(self: Any, *inputs: Any, **attributes: Any) -> tuple[Array, ...]:
        if inputs[0].dtype != np.float16:
            return base._run(self, *inputs, **attributes)  # type: ignore[no-any-return]
        wide = [value if value is None else value.astype(np.float32) for value in inputs]
        return tuple(value.astype(np.float16) for value in base._run(self, *wide, **attributes))

    return type(name, (base,), {"op_domain": "", "_run": run})


class _Gelu(OpRun):  # type: ignore[misc]
    """GELU by its definition in ONNX, in the type of its input; of half tensors by a table of all their values."""

    op_domain = ""

    def _run(self, x: Array, approximate: str = "none") -> tuple[Array]:
        if x.dtype != np.float16:
            return (_gelu(approximate, x),)
        return (_gelu_table(approximate)[np.ascontiguousarray(x).view(np.uint16)],)


_Gelu.__name__ = "Gelu"  # the evaluator finds operators by the name of their class


@functools.cache
def _gelu_table(approximate: str) -> Array:
    return _gelu(approximate, np.arange(2**16, dtype=np.uint16).view(np.float16))


def _gelu(approximate: str, x: Array) -> Array:
    """Evaluate onnx's own definition of Gelu."""
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    ends = [onnx.helper.make_tensor_value_info(name, kind, None) for name in ("x", "y")]
    node = helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)
    graph = helper.make_graph([node], "gelu", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    value: Array = ReferenceEvaluator(model).run(None, {"x": x})[0]
    return value
