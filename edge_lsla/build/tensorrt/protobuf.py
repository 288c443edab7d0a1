"""Protobuf's wire format, as far as reading an ONNX file takes it; every function raises ValueError for what is none.

Source: protocol buffers, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield (field number, value) of a message."""
    at, end = 0, len(message)
    while at < end:
        key, at = read_varint(message, at)
        number, kind = key >> 3, key & 7
        if not number:
            raise ValueError(f"field 0 at byte {at}")
        if kind == _VARINT:
            value, at = read_varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = read_varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + size > end:
            raise ValueError(f"{at + size - end} bytes are missing")
        yield number, message[at : at + size]
        at += size


def read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read a number; return it, and the place behind it."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError(f"a number breaks off at byte {at}")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def read_message(value: memoryview | int) -> memoryview:
    """Return a field's bytes."""
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def read_text(message: memoryview, wanted: int) -> str:
    """Return the first text of a field, "" where there is none."""
    return next((str(read_message(value), "utf-8") for number, value in read_fields(message) if number == wanted), "")


def read_number(message: memoryview, wanted: int) -> int:
    """Return the first number of a field, 0 where there is none."""
    return next((value for number, value in read_fields(message) if number == wanted and isinstance(value, int)), 0)
