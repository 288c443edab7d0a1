"""The verb `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edge_lsla.console import progress, say
from edge_lsla.verbs.opening import Backend, Threads


def compare(
    first: Annotated[Path, typer.Argument(help="The reference: a checkpoint, an ONNX file or a bundle.")],
    second: Annotated[Path, typer.Argument(help="What is compared with it: the same, in another form.")],
    data: Annotated[Path, typer.Option(help="Pictures: a data set, whose test split is taken, or any folder.")],
    images: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 64,
    split: Annotated[str, typer.Option(help="Of a data set.")] = "test",
    threshold: Annotated[
        Optional[float],
        typer.Option(help="SQNR in dB below which two tensors have parted; default: 80 fp32, 40 fp16, 20 int8."),
    ] = None,
    model: Annotated[Optional[str], typer.Option("--model", help="Of checkpoints, as `export` takes it.")] = None,
    key_map: Annotated[Optional[Path], typer.Option(help="Of checkpoints, as `export` takes it.")] = None,
    labels: Annotated[Optional[Path], typer.Option(help="Class names, one a line.")] = None,
    backend: Backend = "auto",
    first_precision: Annotated[Optional[str], typer.Option(help="Of the first, where it is a bundle.")] = None,
    second_precision: Annotated[Optional[str], typer.Option(help="Of the second, where it is a bundle.")] = None,
    threads: Threads = None,
) -> dict[str, Any]:
    """Compare two forms of a model, layer by layer where tensors can be matched, and find where they part."""
    from calibration.compare import CompareSettings
    from edge_lsla.comparing import compare_forms
    from edge_lsla.comparison_table import comparison
    from edge_lsla.forms import Form

    one = Form(first, model, key_map, labels, backend, first_precision, threads)
    other = Form(second, model, key_map, labels, backend, second_precision, threads)
    with progress("comparing") as step:
        found = compare_forms(
            one,
            other,
            data,
            images=images,
            split=split,
            settings=CompareSettings(threshold_db=threshold),
            progress=lambda done, of: step(done, of, ""),
        )
    say().print(comparison(found))
    return found.to_dict()
