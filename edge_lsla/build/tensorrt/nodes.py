"""An ONNX file's nodes with their tensors, and names for the nodes of local functions; without the onnx package.

A runtime writes a function's body in place of each call. Whoever measures it needs names to find the call again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge_lsla.build.tensorrt.outline import read_node
from edge_lsla.build.tensorrt.protobuf import read_fields, read_message, read_text
from edge_lsla.errors import GraphError

_GRAPH, _FUNCTION = 7, 25  # of ModelProto
_FUNCTION_NODE = 7  # of FunctionProto
_NAME = 3  # of NodeProto


@dataclass(frozen=True)
class TensorNode:
    """A node: what it is called, and the tensors that it reads and makes; "" for one that is left out."""

    name: str
    domain: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_nodes(data: bytes) -> tuple[TensorNode, ...]:
    """Read the nodes of a serialised ModelProto's graph, in order; not those of its functions.

    Raises:
        GraphError: not an ONNX model, or cut short.
    """
    try:
        for number, value in read_fields(memoryview(data)):
            if number == _GRAPH:
                return tuple(
                    _tensor_node(read_message(node)) for kind, node in read_fields(read_message(value)) if kind == 1
                )
    except (ValueError, UnicodeDecodeError) as error:
        raise GraphError("the ONNX file is corrupt or cut short", str(error), "export it again") from error
    raise GraphError("this is not an ONNX model", "it holds no graph", "give the file that `export` wrote")


def read_functions(data: bytes) -> dict[tuple[str, str], int]:
    """Count the nodes of each local function of a serialised ModelProto, by (domain, name).

    Raises:
        GraphError: not an ONNX model, or cut short.
    """
    found = {}
    try:
        for number, value in read_fields(memoryview(data)):
            if number == _FUNCTION:
                body = read_message(value)
                found[read_text(body, 10), read_text(body, 1)] = sum(
                    kind == _FUNCTION_NODE for kind, _ in read_fields(body)
                )
    except (ValueError, UnicodeDecodeError) as error:
        raise GraphError("the ONNX file is corrupt or cut short", str(error), "export it again") from error
    return found


def name_bodies(data: bytes) -> bytes:
    """Return a serialised ModelProto whose functions' nodes are called body_0, body_1, …; nothing else is changed.

    Raises:
        GraphError: not an ONNX model, or cut short.
    """
    try:
        parts: list[bytes | memoryview] = []
        for number, value in read_fields(memoryview(data)):
            parts += _encode(number, _named(read_message(value)) if number == _FUNCTION else value)
        return b"".join(parts)
    except (ValueError, UnicodeDecodeError) as error:
        raise GraphError("the ONNX file is corrupt or cut short", str(error), "export it again") from error


def _named(function: memoryview) -> bytes:
    parts: list[bytes | memoryview] = []
    count = 0
    for number, value in read_fields(function):
        if number != _FUNCTION_NODE:
            parts += _encode(number, value)
            continue
        # Of a field that comes twice the last counts, so a name is given by adding one.
        parts += _encode(number, b"".join([read_message(value), *_encode(_NAME, f"body_{count}".encode())]))
        count += 1
    return b"".join(parts)


def _encode(number: int, value: bytes | memoryview | int) -> Iterable[bytes | memoryview]:
    """Encode a field of a message that has only numbers and bytes, as models and functions do."""
    if isinstance(value, int):
        return (_varint_bytes(number << 3), _varint_bytes(value))
    return (_varint_bytes(number << 3 | 2), _varint_bytes(len(value)), value)


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _tensor_node(node: memoryview) -> TensorNode:
    head = read_node(node)
    tensors: dict[int, list[str]] = {1: [], 2: []}
    for number, value in read_fields(node):
        if number in tensors:
            tensors[number].append(str(read_message(value), "utf-8"))
    return TensorNode(head.name, head.domain, head.operator, tuple(tensors[1]), tuple(tensors[2]))
