"""Dataclasses that check their fields against the annotations, and become JSON and come back."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import math
import types
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edge_lsla.errors import UsageError

T = TypeVar("T", bound="Checked")


class Checked:
    """Base of a frozen dataclass whose fields are strings, numbers, bytes, tuples and other such dataclasses.

    A field's metadata may hold "between": (low, high). Lists become tuples, NumPy's numbers Python's.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]  # only dataclasses derive from this
            where = f"{type(self).__name__}.{entry.name}"
            value = _fit(hints[entry.name], getattr(self, entry.name), where)
            low, high = entry.metadata.get("between", (-math.inf, math.inf))
            if isinstance(value, (int, float)) and not low <= value <= high:
                raise UsageError(f"{value!r} is not between {low:g} and {high:g}", where, "correct it")
            object.__setattr__(self, entry.name, value)
        self.check()

    def check(self) -> None:
        """Refuse values that do not fit one another."""


def to_plain(value: object) -> Any:
    """Return a `Checked` as JSON-ready values; bytes become {"base64": text}."""
    if isinstance(value, Checked):
        return {entry.name: to_plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}  # type: ignore[arg-type]
    if isinstance(value, tuple):
        return [to_plain(one) for one in value]
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def from_plain(kind: type[T], value: object) -> T:
    """Return what `to_plain` was given.

    Raises:
        UsageError: a field is missing, unknown or of the wrong type; the message names it.
    """
    found: T = _fit(kind, value, kind.__name__)
    return found


def _fit(hint: Any, value: Any, where: str) -> Any:
    """Return `value` as the annotated type, or refuse it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _fit(next(a for a in inner if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, (tuple, list)):
        if inner[1:] == (...,):
            return tuple(_fit(inner[0], one, f"{where}[{index}]") for index, one in enumerate(value))
        if len(inner) == len(value):
            return tuple(_fit(a, one, f"{where}[{index}]") for index, (a, one) in enumerate(zip(inner, value)))
    elif isinstance(hint, type) and issubclass(hint, Checked):
        if isinstance(value, hint):
            return value
        if isinstance(value, dict):
            return _from_fields(hint, value, where)
    elif hint in (int, float):
        return _number(hint, value, where)
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    elif hint is bytes and isinstance(value, dict) and isinstance(value.get("base64"), str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise UsageError("not base64", where, "write the report again") from error
    raise UsageError(f"{type(value).__name__} {str(value)[:60]!r} cannot be used here", where, "correct it")


def _from_fields(kind: type[Checked], values: dict[str, Any], where: str) -> Checked:
    known = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise UsageError("unknown field", f"{where}.{name}", "correct it")
    for name, entry in known.items():
        if name not in values and entry.default is dataclasses.MISSING:
            raise UsageError("missing field", f"{where}.{name}", "add it")
    return kind(**values)


def _number(hint: type[int] | type[float], value: Any, where: str) -> int | float:
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value  # NumPy's
    wanted = (int,) if hint is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise UsageError(f"{value!r} is not {'a whole' if hint is int else 'a'} number", where, "correct it")
    try:
        number = hint(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UsageError("a number is NaN or infinite", where, "correct it")
    return number
