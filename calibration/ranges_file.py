"""Measured ranges and the readable file they are kept in."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from calibration.identity import model_sha256
from calibration.settings import METHODS
from edge_lsla.atomic import write_text
from edge_lsla.errors import RangesError
from edge_lsla.reading import read_text

FORMAT = "edge-lsla calibration ranges"
VERSION = 1
AGAIN = "calibrate again"


@dataclass(frozen=True)
class Ranges:
    """The range of each measured tensor, and what it was measured on.

    Attributes:
        method: "minmax", "entropy" or "percentile". percentile: in percent, of that method only.
        images: how many were run.
        model_sha256, data_sha256: see `calibration.identity`.
        ranges: tensor name to (low, high), in the tensor's own units.

    Raises:
        RangesError: a field has a value that cannot be right; the message names it.
    """

    method: str
    images: int
    model_sha256: str
    data_sha256: str
    ranges: dict[str, tuple[float, float]]
    percentile: float | None = None

    def __post_init__(self) -> None:
        _check(self)

    def check(self, model: onnx.ModelProto) -> None:
        """Refuse ranges that were measured on another model.

        Raises:
            RangesError: the model's digest is not the recorded one.
        """
        found = model_sha256(model)
        if found != self.model_sha256:
            raise RangesError(
                f"ranges belong to another model, measured on {self.model_sha256[:12]}, this is {found[:12]}",
                "model_sha256",
                AGAIN,
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ranges as JSON, one tensor a line; the file is whole or absent.

        Raises:
            UsageError, EdgeLslaError: see `edge_lsla.atomic`.
        """
        head = {
            "format": FORMAT,
            "version": VERSION,
            "method": self.method,
            "percentile": self.percentile,
            "images": self.images,
            "model_sha256": self.model_sha256,
            "data_sha256": self.data_sha256,
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        entries = [f"    {json.dumps(name)}: {json.dumps(list(pair))}" for name, pair in self.ranges.items()]
        lines.append('  "ranges": {\n' + ",\n".join(entries) + "\n  }")
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ranges:
        """Read what `save` wrote.

        Raises:
            RangesError: the file is missing, corrupt, of another format or version, or holds an impossible value; the
                message names the field.
        """
        where = Path(path)
        try:
            fields = json.loads(
                read_text(where, "ranges file", RangesError), object_pairs_hook=_object, parse_constant=_refuse
            )
        except RangesError as error:
            if error.where == where:
                raise
            raise RangesError(error.what, f"{error.where} in {where}", AGAIN) from error
        except (ValueError, RecursionError) as error:
            raise RangesError("ranges file is not JSON", where, AGAIN) from error
        try:
            return cls(**_read(fields))
        except RangesError as error:
            raise RangesError(error.what, f"{error.where} in {where}", AGAIN) from error


_FIELDS = ("format", "version", "method", "percentile", "images", "model_sha256", "data_sha256", "ranges")


def _read(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise RangesError("not a ranges file", "format")
    if fields.get("version") != VERSION or isinstance(fields["version"], bool):
        raise RangesError(f"unknown format version {fields.get('version')!r}, this program reads {VERSION}", "version")
    for name in _FIELDS:
        if name not in fields:
            raise RangesError("missing field", name)
    for name in fields:
        if name not in _FIELDS:
            raise RangesError("unknown field", name)
    ranges = fields["ranges"]
    if not isinstance(ranges, dict) or not all(isinstance(pair, list) for pair in ranges.values()):
        raise RangesError("ranges are not lists of two numbers by tensor", "ranges")
    values = {name: fields[name] for name in _FIELDS[2:]}
    values["ranges"] = {name: tuple(pair) for name, pair in ranges.items()}
    return values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise RangesError("field is given twice", name)
        found[name] = value
    return found


def _refuse(constant: str) -> float:
    raise RangesError(f"a value is {constant}", "ranges")


def _check(ranges: Ranges) -> None:
    if ranges.method not in METHODS:
        raise RangesError(f"unknown method {ranges.method!r}", "method", AGAIN)
    if (ranges.method == "percentile") != (ranges.percentile is not None):
        raise RangesError(f"method {ranges.method} with percentile {ranges.percentile!r}", "percentile", AGAIN)
    if ranges.percentile is not None and not (_finite(ranges.percentile) and 50 < ranges.percentile <= 100):
        raise RangesError(f"not a percentage above 50: {ranges.percentile!r}", "percentile", AGAIN)
    if isinstance(ranges.images, bool) or not isinstance(ranges.images, int) or ranges.images < 1:
        raise RangesError(f"not a number of images: {ranges.images!r}", "images", AGAIN)
    for name in ("model_sha256", "data_sha256"):
        digest = getattr(ranges, name)
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise RangesError("not a SHA-256 digest", name, AGAIN)
    for tensor, pair in ranges.ranges.items():
        if len(pair) != 2 or not all(_finite(value) for value in pair):
            raise RangesError(f"range is not two finite numbers: {list(pair)}", tensor, AGAIN)
        if pair[0] > pair[1]:
            raise RangesError(f"low {pair[0]} is above high {pair[1]}", tensor, AGAIN)


def _finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False
