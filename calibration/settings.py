"""Settings of calibration and of Q/DQ insertion; importing this loads neither onnx nor onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_lsla.errors import UsageError

METHODS = ("minmax", "moving", "percentile", "entropy", "mse")  # the simplest first
AUTO = "auto"  # in place of a method: the one that keeps the logits best, see `calibration.method_choice`
BACKENDS = ("tensorrt", "onnxruntime")
ATTENTIONS = ("float", "int8")
_PARAMETERS = {"moving": ("group", "step"), "percentile": ("percentile", "bins"), "entropy": ("bins",),
               "mse": ("bins", "symmetric")}  # fmt: skip


@dataclass(frozen=True)
class CalibrationSettings:
    """How activation ranges are measured.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    method: str = field(default="minmax", metadata={"help": ", ".join(METHODS)})
    percentile: float = field(default=99.99, metadata={"help": "part of the values kept by `percentile`, in percent"})
    batch_size: int = field(default=4, metadata={"help": "images run at once, at most `group`; memory grows with it"})
    bins: int = field(default=4096, metadata={"help": "histogram bins"})
    group: int = field(default=16, metadata={"help": "images whose extremes `moving` averages, in order"})
    step: float = field(default=0.01, metadata={"help": "weight of the newest group in `moving`"})
    symmetric: bool = field(default=False, metadata={"help": "for `mse`: int8 without a zero point, as TensorRT's"})

    def __post_init__(self) -> None:
        _one_of("method", self.method, METHODS)
        _number("percentile", self.percentile, 50, 100)
        _whole("batch_size", self.batch_size, 1, 1024)
        _whole("bins", self.bins, 256, 65536)
        if self.bins & (self.bins - 1):  # scaling by it is then exact, and bins fold in pairs around zero
            raise UsageError("the number of histogram bins is not a power of two", "bins", "correct it")
        _whole("group", self.group, 1, 65536)
        _number("step", self.step, 0, 1)
        if not isinstance(self.symmetric, bool):
            raise UsageError(f"symmetric is {self.symmetric!r}", "symmetric", "give true or false")

    def parameters(self) -> dict[str, float]:
        """Return the fields that decide the ranges of this method, images aside."""
        return {name: getattr(self, name) for name in _PARAMETERS.get(self.method, ())}


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


def check_method(method: str) -> None:
    """Refuse what is neither a method nor "auto".

    Raises:
        UsageError: it names what there is.
    """
    _one_of("method", method, (AUTO, *METHODS))


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"unknown {name} {value!r}", name, f"use one of {', '.join(known)}")


def _number(name: str, value: object, above: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value <= most:  # NaN too
        raise UsageError(f"{name} {value!r} is not a number above {above}, at most {most}", name, "correct it")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} {value!r} is not a whole number from {low} to {high}", name, "correct it")
