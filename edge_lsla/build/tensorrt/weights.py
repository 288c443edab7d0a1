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
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9  # of TensorProto
# Where a tensor keeps its values if not as raw bytes: field, bytes of a value (0: numbers of 1 to 10 bytes each).
_TYPED = {4: 4, 5: 0, 7: 0, 10: 8, 11: 0}
_LARGEST_SIZE = 2**31 - 1
_COMPLEX = (14, 15)  # two numbers a value
_CONTINUES = bytes(range(128, 256))  # bytes of a number that are not its last


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


def check_tensor(tensor: memoryview) -> None:
    """Refuse a TensorProto whose sizes are not those of its values, which are counted and not read.

    Raises:
        GraphError: says both.
        ValueError: no TensorProto.
    """
    shape, number, fields = _shape(tensor), read_number(tensor, _TYPE), dict(read_fields(tensor))
    _, bits = TYPES.get(number, ("", 0))
    wanted, held, unit = 0, 0, "values"
    if bits and number not in _COMPLEX:
        values = math.prod(shape)
        packed = -(-values * bits // 8)  # two values of 4 bits are one byte, and one number
        raw = fields.get(_RAW)
        wanted, unit = (packed, "bytes") if raw is not None or bits < 8 else (values, unit)
        held = len(read_message(raw)) if raw is not None else _typed_values(tensor)
    if not number or wanted != held or any(size > _LARGEST_SIZE for size in shape):
        where = f"the tensor {read_text(tensor, _NAME) or 'without a name'}, {list(shape)} of type {number}"
        said = f"{where}, needs {wanted} {unit} and has {held}" if wanted != held else where
        raise GraphError("the ONNX file is damaged", said, "export it again")


def _typed_values(tensor: memoryview) -> int:
    held = 0
    for number, value in read_fields(tensor):
        if number not in _TYPED:
            continue
        width = _TYPED[number]
        if isinstance(value, int):  # not packed
            held += 1
        elif width:
            held += len(value) // width
        else:
            held += len(bytes(value).translate(None, _CONTINUES))
    return held


def _shape(tensor: memoryview) -> tuple[int, ...]:
    shape: list[int] = []
    for number, value in read_fields(tensor):
        if number == _DIMS and isinstance(value, int):
            shape.append(value)
        elif number == _DIMS:  # packed
            packed, at = read_message(value), 0
            while at < len(packed):
                size, at = read_varint(packed, at)
                shape.append(size)
    return tuple(shape)


def _weight(tensor: memoryview) -> Weight:
    shape = _shape(tensor)
    element, bits = TYPES.get(read_number(tensor, _TYPE), ("unknown", 0))
    return Weight(read_text(tensor, _NAME), element, shape, -(-math.prod(shape) * bits // 8))
