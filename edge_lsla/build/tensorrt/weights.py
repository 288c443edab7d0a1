"""How much of an ONNX file is weights, and of which types; without the onnx package.

Source of the field and type numbers: onnx.proto, IR version 3 to 13.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from edge_lsla.build.tensorrt.protobuf import read_fields, read_message, read_number, read_text, read_varint
from edge_lsla.errors import GraphError

# TensorProto.DataType: name here, bits of a value (0: no fixed size).
TYPES = {
    1: ("fp32", 32), 2: ("uint8", 8), 3: ("int8", 8), 4: ("uint16", 16), 5: ("int16", 16), 6: ("int32", 32),
    7: ("int64", 64), 8: ("string", 0), 9: ("bool", 8), 10: ("fp16", 16), 11: ("fp64", 64), 12: ("uint32", 32),
    13: ("uint64", 64), 14: ("complex64", 64), 15: ("complex128", 128), 16: ("bf16", 16), 17: ("fp8", 8),
    18: ("fp8", 8), 19: ("fp8", 8), 20: ("fp8", 8), 21: ("uint4", 4), 22: ("int4", 4), 23: ("fp4", 4),
}  # fmt: skip
_DIMS, _TYPE, _NAME = 1, 2, 8  # of TensorProto


@dataclass(frozen=True)
class Weight:
    """An initialiser: its type by `TYPES`, its sizes, and the bytes that its values take."""

    name: str
    element: str
    shape: tuple[int, ...]
    size: int


def read_weights(data: bytes) -> tuple[Weight, ...]:
    """Read the initialisers of a serialised ModelProto's graph, in order.

    Raises:
        GraphError: not an ONNX model, or cut short.
    """
    try:
        graph = next((read_message(value) for number, value in read_fields(memoryview(data)) if number == 7), None)
        if graph is None:
            raise GraphError("this is not an ONNX model", "it holds no graph", "give the file that `export` wrote")
        return tuple(_weight(read_message(value)) for number, value in read_fields(graph) if number == 5)
    except (ValueError, UnicodeDecodeError) as error:
        raise GraphError("the ONNX file is corrupt or cut short", str(error), "export it again") from error


def weight_totals(weights: Iterable[Weight]) -> dict[str, dict[str, int]]:
    """Return tensors, values and bytes by type, JSON-ready, the largest type first."""
    totals: dict[str, dict[str, int]] = {}
    for weight in weights:
        total = totals.setdefault(weight.element, {"tensors": 0, "values": 0, "bytes": 0})
        for key, more in (("tensors", 1), ("values", math.prod(weight.shape)), ("bytes", weight.size)):
            total[key] += more
    return dict(sorted(totals.items(), key=lambda entry: -entry[1]["bytes"]))


def _weight(tensor: memoryview) -> Weight:
    shape: list[int] = []
    for number, value in read_fields(tensor):
        if number == _DIMS and isinstance(value, int):
            shape.append(value)
        elif number == _DIMS:  # packed
            packed, at = read_message(value), 0
            while at < len(packed):
                size, at = read_varint(packed, at)
                shape.append(size)
    element, bits = TYPES.get(read_number(tensor, _TYPE), ("unknown", 0))
    return Weight(read_text(tensor, _NAME), element, tuple(shape), -(-math.prod(shape) * bits // 8))
