"""The verb `inspect`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla.atomic import check_output, write_text
from edge_lsla.console import say, visible
from edge_lsla.errors import UsageError

if TYPE_CHECKING:
    from edge_lsla.inspecting import ArtifactContents
    from edge_lsla.layer_times import Measured


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle, NAME.lsla.")],
    layers: Annotated[
        bool, typer.Option("--layers", help="List layers: their precisions, and TensorRT's own where it runs.")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Measure the time of each layer on this device.")] = False,
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="Write the layers: times as .png, or a table as .csv.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto (all artifacts), tensorrt, tensorrt-rtx or onnxruntime.")] = "auto",
    precision: Annotated[Optional[str], typer.Option(help="fp32, fp16 or int8; default: all.")] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Inferences to measure, for --profile.")] = 20,
    threads: Annotated[
        Optional[int], typer.Option(min=1, help="CPU threads, for --profile; default: all cores.")
    ] = None,
) -> dict[str, Any]:
    """Verify a bundle; print its passport, and what its graphs and engines are made of."""
    from edge_lsla import layer_tables
    from edge_lsla.bundle import BACKENDS, PRECISIONS, open_bundle
    from edge_lsla.inspecting import examine_origin, inspect_bundle
    from edge_lsla.layer_picture import check_drawing, draw_times
    from edge_lsla.layer_times import profile_bundle
    from edge_lsla.tables import passport

    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"no such backend {backend!r}", "--backend", f"use auto or {', '.join(BACKENDS)}")
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", "--precision", f"use {', '.join(PRECISIONS)}")
    if output is not None:
        _check(bundle, output, layers, profile)
        if output.suffix.lower() == ".png":
            check_drawing()
    with open_bundle(bundle) as opened:
        say().print(passport(opened))
        found = inspect_bundle(opened, backend, precision, open_engines=layers)
        say().print(layer_tables.contents(found))
        if layers:
            say().print(layer_tables.layers(found))
        measured = None
        if profile:
            measured = profile_bundle(opened, backend, precision, repeats=repeats, threads=threads)
            for why in measured.passed_over:
                say().print(f"not {visible(why)}", style="yellow")
            say().print(layer_tables.times(measured))
        result = {
            "bundle": str(bundle),
            "digest": opened.digest,
            "file_sha256": opened.file_sha256,
            "manifest_sha256": opened.manifest.sha256(),
            "origin": examine_origin(opened).to_dict(),
            "manifest": opened.manifest.to_dict(),
        }
    if output is not None and measured is not None and output.suffix.lower() == ".png":
        draw_times(measured, output)
    elif output is not None:
        write_text(output, _csv(measured, found))
    if output is not None:
        say().print(f"written: {visible(output)}")
    return {
        **result,
        "artifacts": [one.to_dict() for one in found],
        "profile": measured.to_dict() if measured else None,
        "output": str(output) if output else None,
    }


def _check(bundle: Path, output: Path, layers: bool, profile: bool) -> None:
    if output.suffix.lower() not in (".png", ".csv"):
        raise UsageError("unknown format of the layers", output, "let the name end in .png or .csv")
    if output.suffix.lower() == ".png" and not profile:
        raise UsageError("a picture shows times, and none are measured", output, "add --profile")
    if not layers and not profile:
        raise UsageError("there is nothing to write", output, "add --layers or --profile")
    check_output(output)
    if output.exists() and bundle.exists() and output.samefile(bundle):
        raise UsageError("the output would overwrite what is read", output, "choose another name")


def _csv(measured: Measured | None, found: Sequence[ArtifactContents]) -> str:
    """Write times where they were measured, else the layers of all artifacts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if measured is not None:
        writer.writerow(["artifact", "layer", "operator", "precision", "milliseconds", "kernels", "nodes"])
        for layer in measured.layers:
            figures = (f"{layer.milliseconds:.6f}", layer.calls, " ".join(layer.nodes))
            writer.writerow([measured.artifact, layer.name, layer.kind, layer.precision, *figures])
        return text.getvalue()
    writer.writerow(["artifact", "source", "layer", "type", "precision", "plugin", "tactic"])
    for one in found:
        for name, kept in (one.precisions or {}).items():
            writer.writerow([one.artifact.name, "passport", name, "", kept, "", ""])
        for told in one.engine_layers or ():
            row = (told.name, told.kind, told.precision, told.plugin, told.tactic)
            writer.writerow([one.artifact.name, "engine", *row])
    return text.getvalue()
