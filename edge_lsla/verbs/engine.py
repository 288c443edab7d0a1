"""The verb `build-engine` of a field device: engines from a bundle's own graphs; a checkout's builds bundles too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edge_lsla.atomic import check_output
from edge_lsla.console import say, verb
from edge_lsla.engine_cache import EngineOptions
from edge_lsla.errors import UsageError

EngineBatch = Annotated[int, typer.Option(min=1, max=4096, help="The largest batch of an engine.")]
Workspace = Annotated[
    Optional[int],
    typer.Option(min=1, help="MiB of scratch memory a layer may use; default: 1024, or no limit for tensorrt-rtx."),
]
Level = Annotated[int, typer.Option("--level", min=0, max=5, help="TensorRT: 0 builds fastest, 5 runs fastest.")]
Targets = Annotated[
    Optional[str],
    typer.Option("--target", help="GPUs to build tensorrt-rtx engines for, on any machine: sm86,sm89,sm120."),
]
BundleOutput = Annotated[Path, typer.Option("--output", "-o", help="The bundle to write, NAME.lsla.")]


def engine_options(batch: int, workspace: int | None, level: int) -> EngineOptions:
    """Return what the options of the command line say."""
    return EngineOptions(batch, None if workspace is None else workspace * 2**20, level)


def words(text: str | None) -> tuple[str, ...]:
    """Split what is written with commas."""
    return tuple(word.strip() for word in text.split(",")) if text else ()


def check_bundle_name(output: Path) -> None:
    """Refuse a name that no bundle has, or that cannot be written.

    Raises:
        UsageError: says which.
    """
    if output.suffix != ".lsla":
        raise UsageError("a bundle's name ends in .lsla", output, f"write {output.with_suffix('.lsla').name}")
    check_output(output)


def add_engines_to(
    source: Path, output: Path, backend: str, precision: str | None, target: str | None, options: EngineOptions
) -> dict[str, Any]:
    """Do `build-engine` of a bundle."""
    from edge_lsla.bundle import open_bundle
    from edge_lsla.rebuilding import add_engines

    with open_bundle(source) as bundle:
        manifest = add_engines(bundle, output, backend, words(precision), words(target), options)
    engines = [one for one in manifest.artifacts if one.kind == "engine"]
    say().print(f"{output}: {', '.join(one.name for one in engines)}, {output.stat().st_size / 1e6:.2f} MB")
    return {
        "output": str(output),
        "backend": engines[0].backend,
        "precision": engines[0].precision,
        "artifacts": [vars(one) for one in engines],
    }


def register(app: typer.Typer) -> None:
    """Add the verb to an installation without the toolkit."""

    @verb(app, "build-engine")
    def build_engine(
        source: Annotated[Path, typer.Argument(help="A bundle with graphs for TensorRT or TensorRT for RTX.")],
        output: BundleOutput,
        precision: Annotated[
            Optional[str], typer.Option(help="fp32, fp16, int8, or several with commas; default: all there are.")
        ] = None,
        backend: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt-rtx.")] = "auto",
        target: Targets = None,
        batch: EngineBatch = 1,
        workspace: Workspace = None,
        level: Level = 3,
    ) -> dict[str, Any]:
        """Add engines to a bundle, built from its own graphs for this device."""
        check_bundle_name(output)
        if source.suffix != ".lsla":
            raise UsageError(
                "only a bundle can be built from here", source, "checkpoints and ONNX need a checkout: python cli.py"
            )
        return add_engines_to(source, output, backend, precision, target, engine_options(batch, workspace, level))
