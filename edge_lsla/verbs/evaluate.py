"""The verb `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_lsla import app as field
from edge_lsla.console import say
from edge_lsla.verbs.opening import Backend, Precision, Rebuild, Threads, opened


def evaluate(
    engine: Annotated[Path, typer.Argument(help="A bundle.")],
    data: Annotated[Path, typer.Option(help="IP102 layout, or a folder per class.")],
    split: Annotated[str, typer.Option(help="train, val, test, or another folder of the data set.")] = "test",
    match: Annotated[str, typer.Option(help="Only pictures whose file name fits, such as 'photo_*'.")] = "*",
    backend: Backend = "auto",
    precision: Precision = None,
    threads: Threads = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 1,
    rebuild: Rebuild = True,
) -> dict[str, Any]:
    """Measure top-1 and top-5 accuracy on a labelled data set."""
    from edge_lsla.data.folders import load_split
    from edge_lsla.evaluation import Score
    from edge_lsla.tables import accuracy

    pictures = load_split(data, split).matching(match)
    if not pictures.divided:
        say().print(f"{data} is not divided into splits: all of its pictures are used", style="yellow")
    with opened(engine, backend, precision, threads, rebuild=rebuild, batch=batch) as model:
        pictures = pictures.ordered_as(model.labels)
        results = field.classify_all(model, pictures.paths, batch)
    score = Score.of(results, pictures.labels, model.labels)
    say().print(accuracy(score))
    return {"split": split, **score.to_dict()}
