"""Settings of calibration and of Q/DQ insertion; importing this loads neither onnx nor onnxruntime."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edge_lsla.errors import UsageError

METHODS = ("minmax", "entropy", "percentile")
BACKENDS = ("tensorrt", "onnxruntime")
ATTENTIONS = ("float", "int8")


@dataclass(frozen=True)
class CalibrationSettings:
    """How activation ranges are measured.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    method: str = field(default="minmax", metadata={"help": "minmax, entropy or percentile"})
    percentile: float = field(default=99.99, metadata={"help": "part of the values kept by `percentile`, in percent"})
    batch_size: int = field(default=4, metadata={"help": "images run at once; memory grows with it"})
    bins: int = field(default=2048, metadata={"help": "histogram bins of `entropy` and `percentile`"})

    def __post_init__(self) -> None:
        _one_of("method", self.method, METHODS)
        number = isinstance(self.percentile, (int, float)) and not isinstance(self.percentile, bool)
        if not number or not math.isfinite(self.percentile) or not 50 < self.percentile <= 100:
            raise UsageError("calibration needs a percentage above 50, at most 100", "percentile", "correct it")
        _whole("batch_size", self.batch_size, 1, 1024)
        _whole("bins", self.bins, 256, 65536)
        if self.bins & (self.bins - 1):  # scaling by it is then exact, and bins fold in pairs around zero
            raise UsageError("the number of histogram bins is not a power of two", "bins", "correct it")


@dataclass(frozen=True)
class QdqSettings:
    """How Q/DQ nodes are written for one backend.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    backend: str = field(metadata={"help": "tensorrt (also tensorrt-rtx) or onnxruntime"})
    weight_bits: int = field(default=8, metadata={"help": "8; or 7 for x86 CPUs without VNNI, where 8 may saturate"})
    keep_float: tuple[str, ...] = field(default=(), metadata={"help": "names of layers left in float32"})
    attention: str = field(default="float", metadata={"help": "float; or int8, which tensorrt's plugin computes"})

    def __post_init__(self) -> None:
        _one_of("backend", self.backend, BACKENDS)
        _whole("weight_bits", self.weight_bits, 7, 8)
        names: object = self.keep_float
        if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) for name in names):
            raise UsageError("Q/DQ settings need a list of layer names", "keep_float", "correct it")
        object.__setattr__(self, "keep_float", tuple(names))
        _one_of("attention", self.attention, ATTENTIONS)
        if self.attention == "int8" and self.backend != "tensorrt":
            raise UsageError(
                f"{self.backend} has no int8 attention", "attention", "leave it float, or use the backend tensorrt"
            )


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"unknown {name} {value!r}", name, f"use one of {', '.join(known)}")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} {value!r} is not a whole number from {low} to {high}", name, "correct it")
