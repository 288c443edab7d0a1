"""Options that several verbs of the toolkit have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

ModelName = Annotated[
    Optional[str],
    typer.Option("--model", help="vit_lsla_t, vit_lsla_demo, a configuration file (.json), or module:factory."),
]
KeyMap = Annotated[Optional[Path], typer.Option(help="JSON: regular expressions of key names, and their replacements.")]
Labels = Annotated[Optional[Path], typer.Option(help="Class names, one a line; default: the checkpoint's own.")]
Data = Annotated[
    Optional[Path], typer.Option(help="Pictures: IP102 layout, a folder per class, any folder, or a video.")
]
Method = Annotated[
    str,
    typer.Option(
        help="auto: of the others the one that keeps the logits best on some of the pictures, for each backend, on "
        "GPUs with corrected biases where they help; or minmax, moving (average), percentile, entropy, mse."
    ),
]
Images = Annotated[int, typer.Option(min=1, help="How many pictures to calibrate on.")]
Migrate = Annotated[
    bool, typer.Option(help="Move outlier channels from activations into weights where that is exact (SmoothQuant).")
]
CorrectBiases = Annotated[
    bool, typer.Option("--correct-biases", help="Give each INT8 layer's output the mean that it has in float.")
]
