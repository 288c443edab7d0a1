"""Checks of single manifest fields; each refusal names the field by its dotted path."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from edge_lsla.bundle.strict_json import MAX_INTEGER
from edge_lsla.errors import BundleError, UsageError

MAX_TEXT = 256
MAX_FREE_TEXT = 65_536
MAX_FREE_DEPTH = 16

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # would reach a terminal or fail to encode
_HEX = re.compile("[0-9a-f]{64}")
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def refuse(what: str, field: str, remedy: str = "correct it") -> BundleError:
    """Return the error for a field."""
    return BundleError(f"manifest field {what}", field, remedy)


@contextmanager
def inside(prefix: str) -> Iterator[None]:
    """Put `prefix` before the field that an error raised within names."""
    try:
        yield
    except (BundleError, UsageError) as error:
        raise BundleError(error.what, f"{prefix}.{error.where}" if error.where else prefix, error.remedy) from error


def members(values: Any, cls: Any) -> dict[str, Any]:
    """Return `values` if it is an object with exactly the fields of the dataclass `cls`."""
    fields = [field.name for field in dataclasses.fields(cls)]
    if not isinstance(values, dict):
        raise BundleError("manifest part is not an object of fields", "", "correct it")
    for name in values:
        if name not in fields:
            raise refuse("is unknown", _shown(name), f"the fields are {', '.join(fields)}")
    for name in fields:
        if name not in values:
            raise refuse("is missing", name, "add it")
    return values


def text(value: Any, field: str, longest: int = MAX_TEXT) -> str:
    """Return a non-empty string of printable characters."""
    if not isinstance(value, str):
        raise refuse("is not text", field)
    if not 1 <= len(value) <= longest:
        raise refuse(f"is not 1 to {longest} characters", field)
    if _CONTROL.search(value):
        raise refuse("has a control character", field)
    return value


def choice(value: Any, field: str, choices: Collection[str]) -> str:
    """Return a string that is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise refuse("has an unknown value", field, f"use {', '.join(choices)}")
    return value


def integer(value: Any, field: str, low: int, high: int = MAX_INTEGER) -> int:
    """Return an integer in low..high."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse("is not an integer", field)
    if not low <= value <= high:
        raise refuse(f"is not in {low}..{high}", field)
    return value


def number(value: Any, field: str, low: float = -math.inf) -> float:
    """Return a finite number that is at least `low`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refuse("is not a number", field)
    if (isinstance(value, int) and abs(value) > MAX_INTEGER) or not math.isfinite(value) or value < low:
        raise refuse("is out of range", field)
    return value


def sha256(value: Any, field: str) -> str:
    """Return 64 lower-case hexadecimal characters."""
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise refuse("is not a SHA-256 of 64 lower-case hexadecimal characters", field)
    return value


def created(value: Any, field: str) -> str:
    """Return a UTC time such as 2025-01-31T12:00:00Z (ISO 8601)."""
    if not isinstance(value, str) or not _CREATED.fullmatch(value):
        raise refuse("is not a UTC time", field, "write it as 2025-01-31T12:00:00Z")
    try:
        datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError as error:
        raise refuse("is not a day and time that exist", field) from error
    return value


def mapping(value: Any, field: str) -> dict[str, Any]:
    """Return an object whose keys are printable text; its values are for the caller to check."""
    if not isinstance(value, dict):
        raise refuse("is not an object", field)
    for key in value:
        text(key, f"{field}.{_shown(key)}")
    return value


def texts(value: Any, field: str, most: int, fewest: int = 0) -> tuple[str, ...]:
    """Return a list of different printable texts as a tuple."""
    if not isinstance(value, (list, tuple)):
        raise refuse("is not a list", field)
    if not fewest <= len(value) <= most:
        raise refuse(f"has {len(value)} values, not {fewest} to {most}", field)
    seen: set[str] = set()
    for index, one in enumerate(value):
        if text(one, f"{field}[{index}]") in seen:
            raise refuse("repeats an earlier value", f"{field}[{index}]")
        seen.add(one)
    return tuple(value)


def free(value: Any, field: str, depth: int = MAX_FREE_DEPTH) -> Any:
    """Return any JSON value of limited depth and size: no NaN, no tuple, no NumPy number, no control character."""
    if isinstance(value, str):
        return text(value, field, MAX_FREE_TEXT) if value else value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return number(value, field)
    if not isinstance(value, (dict, list)):
        raise refuse(f"is a {type(value).__name__}, which JSON does not have", field)
    if depth == 0:
        raise refuse("is nested too deep", field)
    if isinstance(value, list):
        for index, one in enumerate(value):
            free(one, f"{field}[{index}]", depth - 1)
    else:
        for key, one in mapping(value, field).items():
            free(one, f"{field}.{key}", depth - 1)
    return value


def free_object(value: Any, field: str) -> dict[str, Any]:
    """Return a JSON object of limited depth and size."""
    mapping(value, field)
    checked: dict[str, Any] = free(value, field)
    return checked


def _shown(key: object) -> str:
    return key if isinstance(key, str) and len(key) <= MAX_TEXT and not _CONTROL.search(key) else ascii(key)[:MAX_TEXT]
