"""Sections of the configuration, made of the stages' settings; what is wrong with them, in the words of the file."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from edge_lsla.errors import UsageError
from edge_lsla.records.device_name import NAME

LONGEST_PATH, LONGEST_NAME = 2048, 255  # bytes; Linux has 4096, and the service's own names come behind
LONGEST_QUOTED = 40  # characters of a camera's name that is none
SAYS_NOTHING = ("correct it", "report this")  # remedies
T = TypeVar("T")
Keys = tuple[Union[int, str], ...]


class MistakeError(ValueError):
    """What a section's own check found in one of its keys."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


def section(settings: type[T]) -> type[T]:
    """Return a settings dataclass that pydantic validates, unknown keys refused; its own checks become pydantic's.

    So do those of the settings inside it, so that all mistakes are found at once.
    """

    def check(self: Any) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, Path):
                    check_path(one, field.name)
        try:
            settings.__post_init__(self)  # type: ignore[attr-defined]  # ours all have one
        except UsageError as error:
            remedy = "" if error.remedy in (None, *SAYS_NOTHING) else f"; {error.remedy}"
            raise MistakeError(str(error.where), error.what + remedy) from error

    inside = []
    for name, kind in get_type_hints(settings).items():
        if dataclasses.is_dataclass(kind):
            checked = section(cast("type[Any]", kind))
            inside.append((name, checked, dataclasses.field(default_factory=checked)))
    made = dataclasses.make_dataclass(
        settings.__name__, inside, bases=(settings,), frozen=True, namespace={"__post_init__": check}
    )
    made.__module__ = settings.__module__
    return cast("type[T]", checked_dataclass(made, config=ConfigDict(extra="forbid"), frozen=True))


def check_path(value: Any, key: str | None = None) -> Any:
    """Return a value, which may be a path; raise where it cannot be one, a `MistakeError` where its key is given."""
    if isinstance(value, (str, Path)):
        text, wrong = os.fsencode(value), None
        if not text.strip() or b"\0" in text:
            wrong = "not the name of a file or folder"
        elif len(text) > LONGEST_PATH or max(map(len, text.split(b"/"))) > LONGEST_NAME:
            wrong = f"a path has at most {LONGEST_PATH} bytes, {LONGEST_NAME} between two slashes"
        if wrong is not None:
            raise ValueError(wrong) if key is None else MistakeError(key, wrong)
    return value


def find_mistakes(whole: type[BaseModel], values: dict[str, Any]) -> Iterator[str]:
    """Name all that is wrong with a file's values, a line each.

    What was named is taken out of them: a section checks itself only once each of its keys is of the right kind, and
    then names one mistake at a time. What else is wrong with the rest then is so for want of what was taken out.
    """
    named: set[Keys] = set()
    cameras = values.get("cameras")
    called = [_called(number, one) for number, one in enumerate(cameras, 1)] if isinstance(cameras, list) else []
    while True:
        try:
            whole.model_validate(values)
            return
        except ValidationError as error:
            mistakes = error.errors(include_input=False, include_url=False)
        found = [_found(one) for one in mistakes if not named or _own(one) or len(one["loc"]) == 1]
        fresh = [(keys, what) for keys, what in found if keys not in named]
        yield from [f"{_place(keys, called)}: {what}" for keys, what in fresh]
        named |= {keys for keys, _ in fresh}
        taken = [_take_out(values, keys) for keys, _ in fresh]
        if not any(taken):
            return


def _own(mistake: Any) -> MistakeError | None:
    """Return what a section's own check said; None where the mistake is another's."""
    error = mistake.get("ctx", {}).get("error")
    return error if isinstance(error, MistakeError) else None


def _found(mistake: Any) -> tuple[Keys, str]:
    """Return where pydantic found a mistake, and what it is, in the words of the file."""
    keys, own = tuple(mistake["loc"]), _own(mistake)
    if own is not None:
        return (*keys, own.key), str(own)
    if mistake["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return keys, "no such key"
    what = mistake["msg"].removeprefix("Value error, ").replace("valid tuple", "list").replace("Tuple", "list")
    what = re.sub(r"a (valid )?dictionary or (an )?instance of \w+", "a table of keys", what)
    return keys, what[:1].lower() + what[1:]


def _called(number: int, camera: Any) -> str:
    """Return what a camera is called: by its name where that is one, else by its place in the file, from 1."""
    name = camera.get("name") if isinstance(camera, dict) else None
    if isinstance(name, str) and NAME.fullmatch(name):
        return f"camera {name!r}"
    shown = isinstance(name, str) and name.isprintable() and 0 < len(name) <= LONGEST_QUOTED
    return f"camera {number} ({name!r})" if shown else f"camera {number}"


def _place(keys: Keys, called: list[str]) -> str:
    """Return where a mistake is, in the words of the file."""
    if len(keys) > 1 and keys[0] == "cameras" and isinstance(keys[1], int):
        return ": ".join(filter(None, (called[keys[1]], ".".join(map(str, keys[2:])))))
    return ".".join(map(str, keys))


def _take_out(values: Any, keys: Keys) -> bool:
    """Remove a key, or the list that an item is in; return whether there was one. The cameras stay."""
    while keys and isinstance(keys[-1], int):
        keys = keys[:-1]
    if len(keys) < 2 and keys[:1] in ((), ("cameras",)):
        return False
    for key in keys[:-1]:
        values = values[key]
    return isinstance(values, dict) and values.pop(keys[-1], None) is not None
