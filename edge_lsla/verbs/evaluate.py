"""The verb `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla import app as field
from edge_lsla.console import say
from edge_lsla.errors import UsageError
from edge_lsla.verbs.opening import Backend, Precision, Rebuild, Threads, opened

if TYPE_CHECKING:
    from edge_lsla.abstention import Abstention


def evaluate(
    engine: Annotated[Path, typer.Argument(help="A bundle.")],
    data: Annotated[Path, typer.Option(help="IP102 layout, or a folder per class.")],
    split: Annotated[str, typer.Option(help="train, val, test, or another folder of the data set.")] = "test",
    match: Annotated[str, typer.Option(help="Only pictures whose file name fits, such as 'photo_*'.")] = "*",
    backend: Backend = "auto",
    precision: Precision = None,
    threads: Threads = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 1,
    accept_right: Annotated[
        Optional[float],
        typer.Option(min=0.01, max=1, help="Find the least confidence from which on such a share of answers is right."),
    ] = None,
    sure: Annotated[
        bool, typer.Option("--sure", help="The lower end of the share's 95 % interval must reach --accept-right.")
    ] = False,
    nothing: Annotated[
        Optional[Path],
        typer.Option(help="A folder of pictures that show none of the classes: every name for them is wrong."),
    ] = None,
    rebuild: Rebuild = True,
) -> dict[str, Any]:
    """Measure top-1 and top-5 accuracy on a labelled data set, and what refusing unsure answers gains."""
    from edge_lsla.abstention import apply_threshold, choose_threshold, judged
    from edge_lsla.data.folders import load_split
    from edge_lsla.evaluation import Score
    from edge_lsla.preprocessing import find_pictures
    from edge_lsla.tables import accuracy

    if accept_right is None and (sure or nothing is not None):
        raise UsageError(
            "a threshold is chosen where --accept-right says how good it must be", "--accept-right", "add it"
        )

    pictures = load_split(data, split).matching(match)
    if not pictures.divided:
        say().print(f"{data} is not divided into splits: all of its pictures are used", style="yellow")
    with opened(engine, backend, precision, threads, rebuild=rebuild, batch=batch) as model:
        pictures = pictures.ordered_as(model.labels)
        results = field.classify_all(model, pictures.paths, batch)
        others = field.classify_all(model, find_pictures(nothing), batch) if nothing is not None else []
        recorded = model.manifest.abstention
    score = Score.of(results, pictures.labels, model.labels)
    say().print(accuracy(score))
    given = judged(results, pictures.labels, others)
    facts: dict[str, Any] = {}
    if recorded is not None:
        facts["recorded_threshold"] = _shown("the bundle's threshold", apply_threshold(recorded["threshold"], *given))
    if accept_right is not None:
        found = choose_threshold(*given, accept_right, sure=sure)
        if found is None:
            say().print(f"no threshold makes {accept_right:.0%} of the accepted answers right", style="yellow")
        facts["abstention"] = None if found is None else _shown(f"for {accept_right:.0%} right", found)
    return {"split": split, **score.to_dict(), **facts}


def _shown(what: str, found: Abstention) -> dict[str, Any]:
    low, high = found.interval
    say().print(
        f"{what}: confidence {found.threshold:.4f} accepts {found.accepted} of {found.images} pictures "
        f"({found.coverage:.1%}), {found.right:.1%} of them right (95 % interval {low:.1%} to {high:.1%})"
    )
    return found.to_dict()
