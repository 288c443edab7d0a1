"""Settings of a training run; importing this loads no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from edge_lsla.errors import UsageError

AMP = ("auto", "off", "bf16", "fp16")


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a training run, besides the model and the data.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    epochs: int = field(default=100, metadata={"help": "passes over the data"})
    batch_size: int = field(default=128, metadata={"help": "images a step"})
    learning_rate: float = field(default=1e-3, metadata={"help": "peak of the cosine schedule"})
    final_learning_rate: float = field(default=1e-5, metadata={"help": "end of the cosine schedule"})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's, on matrices only"})
    warmup_epochs: float = field(default=5.0, metadata={"help": "linear warm-up, in epochs"})
    label_smoothing: float = field(default=0.1, metadata={"help": "share of the target spread over all classes"})
    mixup: float = field(default=0.2, metadata={"help": "alpha of mixup's Beta distribution, 0: off"})
    cutmix: float = field(default=1.0, metadata={"help": "alpha of cutmix's Beta distribution, 0: off"})
    mix_probability: float = field(default=0.5, metadata={"help": "share of batches mixed"})
    crop_scale: float = field(default=0.5, metadata={"help": "smallest part of the picture's area in a random crop"})
    rotation: float = field(default=15.0, metadata={"help": "largest random rotation, degrees"})
    flip: bool = field(default=True, metadata={"help": "mirror half of the images"})
    colour_jitter: float = field(default=0.3, metadata={"help": "brightness, contrast and saturation, +- this share"})
    erase: float = field(default=0.1, metadata={"help": "probability of erasing a rectangle"})
    clip_norm: float = field(default=1.0, metadata={"help": "largest gradient norm"})
    ema: float = field(default=0.9995, metadata={"help": "decay of the averaged weights, 0: off"})
    amp: str = field(
        default="auto", metadata={"help": "mixed precision: auto (bf16 or fp16 on a GPU), off, bf16, fp16"}
    )
    seed: int = field(default=0, metadata={"help": "decides weights, order and augmentation"})
    workers: int = field(default=2, metadata={"help": "reading processes"})
    cache_mb: int = field(default=2048, metadata={"help": "decoded pictures are kept in memory up to this size"})

    def __post_init__(self) -> None:
        checks = {
            "epochs": 1 <= self.epochs <= 100_000,
            "batch_size": 1 <= self.batch_size <= 1_000_000,
            "learning_rate": 0 < self.learning_rate < 1,
            "final_learning_rate": 0 <= self.final_learning_rate <= self.learning_rate,
            "weight_decay": 0 <= self.weight_decay < 1,
            "warmup_epochs": 0 <= self.warmup_epochs <= 100_000,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "mixup": 0 <= self.mixup <= 100,
            "cutmix": 0 <= self.cutmix <= 100,
            "mix_probability": 0 <= self.mix_probability <= 1,
            "crop_scale": 0 < self.crop_scale <= 1,
            "rotation": 0 <= self.rotation <= 180,
            "colour_jitter": 0 <= self.colour_jitter < 1,
            "erase": 0 <= self.erase <= 1,
            "clip_norm": 0 < self.clip_norm <= 1e6,
            "ema": 0 <= self.ema < 1,
            "amp": self.amp in AMP,
            "seed": 0 <= self.seed < 2**31,
            "workers": self.workers >= 0,
            "cache_mb": self.cache_mb >= 0,
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(f"training setting out of range, {getattr(self, name)!r}", name, "correct it")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return dataclasses.asdict(self)


IP102 = TrainSettings(
    epochs=300, batch_size=256, warmup_epochs=20, weight_decay=0.05, crop_scale=0.25, mix_probability=0.8, mixup=0.8
)
"""The usual recipe for small window transformers; not run here against the paper's 71.6 % on IP102."""

DEMO = TrainSettings(
    epochs=32,
    batch_size=64,
    warmup_epochs=2,
    amp="bf16",
    ema=0.998,
    mix_probability=0.25,
    crop_scale=0.75,
    rotation=8.0,
    colour_jitter=0.2,
    erase=0.05,
)
"""The recipe of the shipped demo model, on two CPU cores."""

RECIPES = {"ip102": IP102, "demo": DEMO}


def changed(recipe: TrainSettings, changes: list[str]) -> TrainSettings:
    """Return a recipe with some fields changed, each written NAME=VALUE.

    Raises:
        UsageError: no such field, or a value of the wrong type or out of range.
    """
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        old = getattr(recipe, name, None) if name in {f.name for f in dataclasses.fields(recipe)} else None
        if old is None:
            known = ", ".join(f.name for f in dataclasses.fields(recipe))
            raise UsageError(f"no such training setting {name!r}", f"--set {change}", f"the settings are {known}")
        try:
            # By the default's type: a recipe may write 2 where the field is a float.
            kind = type(getattr(TrainSettings, name))
            values[name] = _TRUTH[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"not a value for {name}, which is now {old!r}", f"--set {change}", "correct the value"
            ) from error
    return dataclasses.replace(recipe, **values)


_TRUTH = {"true": True, "false": False, "1": True, "0": False}
