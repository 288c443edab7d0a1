"""Opening a bundle for a verb: the options that all such verbs have, and the line that says what runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edge_lsla.console import say
from edge_lsla.errors import MissingComponentError

if TYPE_CHECKING:
    from edge_lsla.runner.model import Model

Engine = Annotated[Optional[Path], typer.Option("--engine", "-e", help="A bundle; default: the demo bundle.")]
Precision = Annotated[Optional[str], typer.Option(help="fp32, fp16 or int8; default: the bundle's preferred one.")]
Backend = Annotated[str, typer.Option(help="auto, tensorrt, tensorrt-rtx or onnxruntime.")]
Threads = Annotated[Optional[int], typer.Option(min=1, help="CPU threads of one inference; default: all cores.")]
Rebuild = Annotated[
    bool, typer.Option(help="Build an engine for this device, once, where the bundle has a graph and none that fits.")
]

# cli.py puts a function here that builds the demo bundle; an installation without the toolkit has none.
demo_engine: Callable[[], Path] | None = None


@contextlib.contextmanager
def opened(
    engine: Path | None,
    backend: str,
    precision: str | None,
    threads: int | None,
    *,
    rebuild: bool = True,
    batch: int = 1,
    spinning: bool = True,
) -> Iterator[Model]:
    """Open a bundle, or the demo bundle where none is named, and say what will run."""
    from edge_lsla.engine_building import rebuild_here
    from edge_lsla.runner.model import load

    if engine is None:
        if demo_engine is None:
            raise MissingComponentError(
                "no bundle is named and the demo bundle is only in a checkout", "--engine", "give --engine NAME.lsla"
            )
        engine = demo_engine()
    building = rebuild_here if rebuild else None
    with load(
        engine,
        backend=backend,
        precision=precision,
        threads=threads,
        spinning=spinning,
        batch=batch,
        rebuild=building,
    ) as model:
        facts = model.describe()
        for why in model.passed_over:
            say().print(f"not {why}", style="yellow")
        say().print(
            f"{engine.name}: {model.manifest.name}, {facts['precision']} on {facts['backend']} {facts['version']}, "
            f"{len(model.labels)} classes",
            style="dim",
        )
        yield model
