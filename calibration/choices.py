"""What stays in float unless a user asks: LayerNorm, softmax and the attention core; so that its INT8 can be measured.

| choice | quantised | its range |
| --- | --- | --- |
| `layernorm` | what every LayerNorm reads | measured: `points.find_norms` |
| `softmax` | what every softmax gives | [0, 1], its natural one |
| `attention` | x, query and y of every `LslaAttention` | measured: `points.find_attentions` |
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx
import onnx.inliner

from calibration.points import STANDARD
from edge_lsla.errors import GraphError, UsageError

CHOICES = ("layernorm", "softmax", "attention")
SOFTMAX_RANGE = (0.0, 1.0)


@dataclass(frozen=True)
class Choices:
    """Which of `CHOICES` run in INT8 as well as the layers; none by default.

    Raises:
        UsageError: one is unknown or given twice.
    """

    quantise: tuple[str, ...] = field(default=(), metadata={"help": f"any of {', '.join(CHOICES)}"})

    def __post_init__(self) -> None:
        names: object = self.quantise
        if not isinstance(names, (tuple, list)) or len(set(map(str, names))) != len(names):
            raise UsageError("Q/DQ settings need a list of choices, each once", "quantise", "correct it")
        for name in names:
            if name not in CHOICES:
                raise UsageError(f"unknown choice {name!r}", "quantise", f"use any of {', '.join(CHOICES)}")
        object.__setattr__(self, "quantise", tuple(name for name in CHOICES if name in names))

    def __contains__(self, name: str) -> bool:
        return name in self.quantise


FLOAT_BY_DEFAULT = Choices()


def open_softmax(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a graph without model-local functions, and the tensors that its softmaxes give.

    A fused graph loses its `LslaAttention` nodes this way, so it is for measuring, not for TensorRT's plugin.

    Raises:
        GraphError: there is no softmax.
    """
    opened = onnx.inliner.inline_local_functions(model) if model.functions else model
    found = tuple(n.output[0] for n in opened.graph.node if n.op_type == "Softmax" and n.domain in STANDARD)
    if not found:
        raise GraphError("INT8 softmax needs a softmax", model.graph.name or None, "choose something else to quantise")
    return opened, found
