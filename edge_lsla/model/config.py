"""Configurations of ViT-LSLA; importing this loads no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_lsla.errors import UsageError
from edge_lsla.reading import read_json

LARGEST_MODEL = 1_000_000_000  # parameters
LARGEST = 1_000_000  # of any size here; what is larger is a mistake or an attack on memory


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST


@dataclass(frozen=True)
class VitLslaConfig:
    """Everything that decides the architecture of a ViT-LSLA.

    Raises:
        UsageError: a field has a value with which no model can be built; the message names it.
    """

    name: str = field(metadata={"help": "name recorded in exports and bundles"})
    classes: int = field(metadata={"help": "number of classes"})
    image_size: int = field(metadata={"help": "side of the square input, pixels"})
    widths: tuple[int, ...] = field(metadata={"help": "channels of each stage"})
    depths: tuple[int, ...] = field(metadata={"help": "blocks in each stage"})
    windows: tuple[int, ...] = field(metadata={"help": "window side of each stage, tokens"})
    head_width: int = field(default=32, metadata={"help": "channels of one head"})
    mlp_ratio: float = field(default=3.0, metadata={"help": "hidden width of the MLP / channels"})
    dynamic_scale: bool = field(default=True, metadata={"help": "false: the scale is fixed at 1/sqrt(head_width)"})
    inner_bias: bool = field(default=True, metadata={"help": "false: no position bias inside the softmax"})
    outer_bias: bool = field(default=True, metadata={"help": "false: no position bias after the softmax"})

    def __post_init__(self) -> None:
        for name in ("widths", "depths", "windows"):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or not values or not all(_positive(v) for v in values):
                raise UsageError(
                    "model configuration needs a list of positive integers", name, f"got {values!r}, correct it"
                )
            object.__setattr__(self, name, tuple(values))
        for name in ("classes", "image_size", "head_width"):
            if not _positive(getattr(self, name)):
                raise UsageError(
                    "model configuration needs a positive integer", name, f"got {getattr(self, name)!r}, correct it"
                )
        if (
            not isinstance(self.mlp_ratio, (int, float))
            or isinstance(self.mlp_ratio, bool)
            or not 0 < self.mlp_ratio <= 64
        ):
            raise UsageError(
                "model configuration needs a number above 0, at most 64",
                "mlp_ratio",
                f"got {self.mlp_ratio!r}, correct it",
            )
        for name in ("dynamic_scale", "inner_bias", "outer_bias"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError("model configuration needs true or false", name, "correct it")
        if not len(self.widths) == len(self.depths) == len(self.windows):
            raise UsageError("widths, depths and windows differ in length", self.name, "give one value for each stage")
        if self.parameters_at_least > LARGEST_MODEL or self.widths[-1] * self.classes > LARGEST_MODEL:
            raise UsageError(
                f"model would have over {LARGEST_MODEL:,} parameters", self.name, "correct widths, depths or classes"
            )
        for stage, (width, window) in enumerate(zip(self.widths, self.windows), start=1):
            if width % self.head_width or width % 2:
                raise UsageError(
                    f"stage {stage} has {width} channels, which head_width {self.head_width} does not divide evenly",
                    self.name,
                    "change widths or head_width",
                )
            side = self.feature_map(stage)
            if side % window:
                raise UsageError(
                    f"stage {stage} has a {side}x{side} feature map, which window {window} does not divide",
                    self.name,
                    "change windows or image_size",
                )

    def feature_map(self, stage: int) -> int:
        """Return the side of the feature map of a stage (counted from 1), in tokens."""
        side = self.image_size
        for _ in range(stage + 1):  # two stride-2 convolutions in the stem, one before each later stage
            side = (side + 1) // 2
        return side

    @property
    def parameters_at_least(self) -> int:
        """Count the weights of the queries and MLPs: a lower bound, known without building the model."""
        per_width = [width * width * (1 + 2 * self.mlp_ratio) for width in self.widths]
        return int(sum(depth * size for depth, size in zip(self.depths, per_width)))

    def with_(self, **changes: Any) -> VitLslaConfig:
        """Return a copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Any, where: object = "model configuration") -> VitLslaConfig:
        """Build a configuration from `to_dict`'s form, refusing unknown and missing fields by name."""
        if not isinstance(values, dict):
            raise UsageError("model configuration is not an object of fields", where, "see docs/your-own-model.md")
        known = {f.name for f in dataclasses.fields(cls)}
        required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        unknown, missing = sorted(set(values) - known), sorted(required - set(values))
        if unknown:
            raise UsageError(f"unknown field {', '.join(unknown)}", where, f"the fields are {', '.join(sorted(known))}")
        if missing:
            raise UsageError(f"missing field {', '.join(missing)}", where, "add it")
        return cls(**values)


VIT_LSLA_T = VitLslaConfig(
    name="vit_lsla_t",
    classes=102,
    image_size=224,
    widths=(96, 192, 384, 768),
    depths=(2, 2, 6, 2),
    windows=(14, 14, 14, 7),
)

VIT_LSLA_DEMO = VitLslaConfig(
    name="vit_lsla_demo",
    classes=14,
    image_size=96,
    widths=(32, 96, 192),
    depths=(2, 2, 3),
    windows=(12, 12, 6),
)

CONFIGS = {config.name: config for config in (VIT_LSLA_T, VIT_LSLA_DEMO)}


def find_config(name_or_path: str) -> VitLslaConfig:
    """Return a shipped configuration by name, or read one from a JSON file.

    Raises:
        UsageError: no such name or file, or the file's fields are wrong.
    """
    if name_or_path in CONFIGS:
        return CONFIGS[name_or_path]
    path = Path(name_or_path)
    if path.suffix != ".json":
        raise UsageError(
            "no such model", name_or_path, f"name one of {', '.join(CONFIGS)}, or give a configuration file (.json)"
        )
    values = read_json(path, "configuration file", UsageError)
    return VitLslaConfig.from_dict(values, path)
