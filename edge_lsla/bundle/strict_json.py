"""JSON text of a manifest: parsed strictly and within limits, written in one form."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from edge_lsla.errors import BundleError

MAX_BYTES = 8 * 1024**2
MAX_DEPTH = 24
MAX_VALUES = 1_000_000
MAX_INTEGER = 2**63 - 1

_STRING = re.compile(rb'"[^"]*"?')
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))


def dump(value: Any) -> bytes:
    """Write JSON as UTF-8: one value a line, keys in the order given, so that one manifest has one text.

    Raises:
        BundleError: a value is not JSON, or a number is not finite.
    """
    try:
        return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError("value cannot be written as JSON", "manifest", f"correct it ({error})") from error


def parse(data: bytes) -> Any:
    """Parse JSON, refusing what other readers could read differently or what would need unbounded memory.

    Raises:
        BundleError: not JSON in UTF-8, too large, nested too deep, a key given twice, a number out of range.
    """
    _check_structure(data)
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise BundleError("manifest is not JSON", "manifest", f"rebuild the bundle ({error})") from error


def _check_structure(data: bytes) -> None:
    """Bound depth and number of values before the parser allocates anything."""
    if len(data) > MAX_BYTES:
        raise BundleError(f"manifest is larger than {MAX_BYTES:,} bytes", "manifest", "rebuild the bundle")
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes = unescaped.count(b'"')
    structure = b"" if quotes > MAX_VALUES else _STRING.sub(b"", unescaped).translate(None, _NOT_STRUCTURE)
    if max(quotes, len(structure)) > MAX_VALUES:
        raise BundleError(f"manifest has more than {MAX_VALUES:,} values", "manifest", "rebuild the bundle")
    depth = 0
    for mark in structure:
        if mark in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BundleError(f"manifest is nested deeper than {MAX_DEPTH}", "manifest", "rebuild the bundle")
        elif mark in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
        raise ValueError("an integer has more than 63 bits")
    return int(text)


def _float(text: str) -> float:
    if len(text) > 64 or not math.isfinite(float(text)):
        raise ValueError("a number is out of range")
    return float(text)


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")
