"""Measured ranges and the readable file they are kept in."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from calibration.identity import model_sha256
from calibration.points import find_layers
from calibration.settings import BACKENDS, METHODS, CalibrationSettings
from edge_lsla.atomic import write_text
from edge_lsla.errors import RangesError, UsageError
from edge_lsla.reading import read_text

FORMAT = "edge-lsla calibration ranges"
VERSION = 2
AGAIN = "calibrate again"
FLOAT32_MAX = 3.4028234663852886e38


@dataclass(frozen=True)
class Chosen:
    """What a method was chosen by.

    Attributes:
        backend: "onnxruntime" or "tensorrt", for which it was chosen.
        images: how many calibration images each method was tried on.
        sqnr_db: by method, signal-to-noise ratio of the logits of plain INT8 on those images, decibels.
        corrected_db: the same of the chosen method with corrected biases; None where they are left as they are.

    Raises:
        RangesError: a field has a value that cannot be right; the message names it.
    """

    backend: str
    images: int
    sqnr_db: dict[str, float]
    corrected_db: float | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise RangesError(f"unknown backend {self.backend!r}", "chosen.backend", AGAIN)
        _check_count("chosen.images", self.images)
        if not isinstance(self.sqnr_db, dict) or not set(self.sqnr_db) <= set(METHODS):
            raise RangesError("not decibels by method", "chosen.sqnr_db", AGAIN)
        corrected = () if self.corrected_db is None else (self.corrected_db,)
        for value in (*self.sqnr_db.values(), *corrected):
            if not _finite(value):
                raise RangesError(f"decibels are not a finite number: {value!r}", "chosen", AGAIN)

    def __str__(self) -> str:
        """Say what was tried: "minmax 27.7, moving 28.9 dB on 64 calibration pictures"."""
        tried = ", ".join(f"{method} {db:.1f}" for method, db in self.sqnr_db.items())
        also = f"; with corrected biases {self.corrected_db:.1f} dB" if self.corrected_db is not None else ""
        return f"{tried} dB on {self.images} calibration pictures{also}"


@dataclass(frozen=True)
class Ranges:
    """The range of each measured tensor, and what it was measured on.

    Attributes:
        method: one of `calibration.settings.METHODS`.
        images: how many were run.
        model_sha256, data_sha256: see `calibration.identity`.
        ranges: tensor name to (low, high), in the tensor's own units.
        parameters: of the method, such as {"percentile": 99.99, "bins": 4096}.
        requested: how many images were asked for, where some were left out; from a video it decides which are taken.
        chosen: what the method was chosen by, where it was; the file holds it only then.

    Raises:
        RangesError: a field has a value that cannot be right; the message names it.
    """

    method: str
    images: int
    model_sha256: str
    data_sha256: str
    ranges: dict[str, tuple[float, float]]
    parameters: dict[str, float] = field(default_factory=dict)
    requested: int | None = None
    chosen: Chosen | None = None

    def __post_init__(self) -> None:
        _check(self)

    def check(self, model: onnx.ModelProto, data_sha256: str | None = None) -> None:
        """Refuse ranges that were measured on another model or, where its digest is given, on other data.

        Raises:
            RangesError: a digest is not the recorded one.
        """
        self._compare("model_sha256", model_sha256(model), "another model")
        if data_sha256 is not None:
            self._compare("data_sha256", data_sha256, "other data")

    def check_tensors(self, model: onnx.ModelProto) -> None:
        """Refuse ranges of tensors that a model has not.

        Raises:
            RangesError: there is one.
        """
        known = {name for node in model.graph.node for name in node.output} | {one.name for one in model.graph.input}
        known |= {layer.raw_output for layer in find_layers(model) if layer.raw_output}
        unknown = sorted(set(self.ranges) - known)
        if unknown:
            raise RangesError("range of a tensor that the model has not", unknown[0], AGAIN)

    def _compare(self, name: str, found: str, other: str) -> None:
        recorded = getattr(self, name)
        if found != recorded:
            raise RangesError(
                f"ranges belong to {other}, measured on {recorded[:12]}, this is {found[:12]}", name, AGAIN
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ranges as JSON, one tensor a line; the file is whole or absent.

        Raises:
            UsageError, EdgeLslaError: see `edge_lsla.atomic`.
        """
        head = {"format": FORMAT, "version": VERSION} | {name: getattr(self, name) for name in _FIELDS[2:-1]}
        if self.chosen is not None:
            head["chosen"] = dataclasses.asdict(self.chosen)
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


_FIELDS = ("format", "version", "method", "parameters", "images", "requested", "model_sha256", "data_sha256", "ranges")


def _read(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise RangesError("not a ranges file", "format")
    if fields.get("version") != VERSION or isinstance(fields["version"], bool):
        raise RangesError(f"unknown format version {fields.get('version')!r}, this program reads {VERSION}", "version")
    for name in _FIELDS:
        if name not in fields:
            raise RangesError("missing field", name)
    for name in fields:
        if name not in (*_FIELDS, "chosen"):
            raise RangesError("unknown field", name)
    ranges = fields["ranges"]
    if not isinstance(ranges, dict) or not all(isinstance(pair, list) for pair in ranges.values()):
        raise RangesError("ranges are not lists of two numbers by tensor", "ranges")
    values = {name: fields[name] for name in _FIELDS[2:]}
    values["ranges"] = {name: tuple(pair) for name, pair in ranges.items()}
    if "chosen" in fields:
        try:
            values["chosen"] = Chosen(**fields["chosen"])
        except TypeError as error:
            raise RangesError("not what a method was chosen by", "chosen") from error
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
    try:
        CalibrationSettings(method=ranges.method, **ranges.parameters)  # type: ignore[arg-type]
    except (TypeError, UsageError) as error:
        raise RangesError(f"wrong parameters of the method, {error}", "parameters", AGAIN) from error
    if ranges.chosen is not None and ranges.method not in ranges.chosen.sqnr_db:
        raise RangesError(f"method {ranges.method} was not tried", "chosen.sqnr_db", AGAIN)
    _check_count("images", ranges.images)
    if ranges.requested is not None:
        _check_count("requested", ranges.requested)
    for name in ("model_sha256", "data_sha256"):
        digest = getattr(ranges, name)
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise RangesError("not a SHA-256 digest", name, AGAIN)
    for tensor, pair in ranges.ranges.items():
        if len(pair) != 2 or not all(_finite(value) for value in pair):
            raise RangesError(f"range is not two finite numbers: {list(pair)}", tensor, AGAIN)
        if max(abs(pair[0]), abs(pair[1])) > FLOAT32_MAX:
            raise RangesError(f"range is beyond float32: {list(pair)}", tensor, AGAIN)
        if pair[0] > pair[1]:
            raise RangesError(f"low {pair[0]} is above high {pair[1]}", tensor, AGAIN)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RangesError(f"not a number of images: {value!r}", name, AGAIN)


def _finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False
