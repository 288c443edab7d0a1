"""The verb `demo`, and the demo bundle that verbs take where none is named; both need a checkout."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from edge_lsla import __version__, app
from edge_lsla.atomic import write_bytes
from edge_lsla.console import say
from edge_lsla.errors import BundleError, EdgeLslaError, UsageError
from edge_lsla.timing import medians_ms
from edge_lsla.verbs.opening import opened
from edge_lsla.watching import watch_source

if TYPE_CHECKING:
    from calibration.splits import Divided
    from edge_lsla.runner.model import Model

DEMO = Path(__file__).resolve().parents[2] / "demo"
DEMO_WEIGHTS = DEMO / "vit_lsla_demo.safetensors"
DEMO_BUDGET = 1.0  # points of top-1: what one of 420 pictures on another processor must not exceed


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the bundle and the pictures.")] = Path(
        "output/demo"
    ),
) -> dict[str, Any]:
    """Run the whole chain on the shipped demo model: checkpoint, ONNX, fused, INT8, bundle, pictures, a video."""
    from edge_lsla.data.folders import load_split
    from edge_lsla.evaluation import Score, agreement
    from edge_lsla.tables import demo_results

    _make_folder(output)
    bundle, page = output / "pests.lsla", output / "report.html"
    _build_demo(bundle, page)
    with contextlib.suppress(EdgeLslaError):  # `infer` would build it again
        _make_folder(_cached_demo().parent)
        write_bytes(_cached_demo(), bundle.read_bytes())
    held_out = load_split(DEMO, "heldout")
    rows, answers, models = [], {}, {}
    with contextlib.ExitStack() as stack:
        for precision in ("fp32", "int8"):
            model = models[precision] = stack.enter_context(opened(bundle, "auto", precision, None))
            answers[precision] = app.classify_all(model, held_out.paths, 1)
        size = models["fp32"].preprocessing.image_size
        image = np.zeros((1, 3, size, size), np.float32)
        latency = medians_ms({name: functools.partial(model.logits, image) for name, model in models.items()})
        for precision, model in models.items():
            score = Score.of(answers[precision], held_out.labels, model.labels)
            agreed = agreement(answers["fp32"], answers[precision])
            row = {
                "precision": precision,
                "bytes": model.artifact.size,
                "agreement": agreed,
                "latency_ms": latency[precision],
                **score.to_dict(),
            }
            rows.append(row)
        picture, video = output / "samples.jpg", output / "pests.mp4"
        _draw_samples(models["int8"], picture)
        from edge_lsla.pipeline.settings import SourceSettings

        watch_source(models["int8"], str(DEMO / "pests.mp4"), SourceSettings(), save=video, quiet=True)
    say().print(demo_results(rows, len(held_out)))
    say().print(f"bundle:   {bundle}\nreport:   {page}\npictures: {picture}\nvideo:    {video}")
    python = os.path.relpath(sys.executable) if sys.executable.startswith(str(Path.cwd())) else "python"
    say().print(f"now try:  {python} cli.py infer camera   (without a camera: infer camera synthetic)")
    return {
        "bundle": str(bundle),
        "report": str(page),
        "results": rows,
        "picture": str(picture),
        "video": str(video),
    }


def demo_engine() -> Path:
    """Return the demo bundle from the user's cache, built on first use."""
    from edge_lsla.bundle import open_bundle

    bundle = _cached_demo()
    if bundle.exists():
        try:
            open_bundle(bundle).close()
        except BundleError:
            bundle.unlink()  # it is only a cache
    if not bundle.exists():
        say().print(f"no --engine given: building the demo bundle, once, as {bundle}")
        _make_folder(bundle.parent)
        _build_demo(bundle)
    return bundle


def _cached_demo() -> Path:
    weights = hashlib.sha256(DEMO_WEIGHTS.read_bytes()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-lsla"
    return cache / f"demo-{__version__}-{weights[:12]}.lsla"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "choose another folder; the demo bundle's is below XDG_CACHE_HOME, or give --engine"
        raise UsageError("folder cannot be made", folder, f"{error.strerror}; {remedy}") from error


def _build_demo(bundle: Path, page: Path | None = None) -> None:
    """Build the demo bundle; with `page`, judge it on pictures of an artist it never saw, and write the report."""
    from edge_lsla.bundling import Wanted, build_bundle, open_graphs
    from edge_lsla.precision_choice import Budget, decide
    from edge_lsla.precision_report import precision_reports
    from edge_lsla.quantising import Calibrate
    from edge_lsla.sources import read_source

    wanted = Wanted(precisions=("int8", "fp32"), calibrate=Calibrate(DEMO / "calibration"))
    source = read_source(DEMO_WEIGHTS)
    if page is None:
        build_bundle(source, bundle, wanted)
        return
    graphs = open_graphs(source, wanted)
    decision = decide(source, graphs, "onnxruntime", _demo_pictures(), Budget(DEMO_BUDGET), search=False)
    with precision_reports(source, graphs.quantiser, {"onnxruntime": decision}, {"onnxruntime": page}):
        build_bundle(source, bundle, wanted, graphs, {"onnxruntime": decision.to_dict()})


def _demo_pictures() -> Divided:
    """Layers are ranked on the pictures that are calibrated on; the held-out artist's judge."""
    from calibration.splits import Divided, Side, clusters_of
    from edge_lsla.data.folders import load_split

    sides = []
    for name in ("calibration", "heldout"):
        pictures = load_split(DEMO, name)
        sides.append(Side(pictures.paths, pictures.labels, clusters_of(pictures.paths)[0]))
    note = "layers are ranked on pictures that are calibrated on too; an artist whom the model never saw judges"
    return Divided(sides[0], sides[1], pictures.classes, (note,))


def _draw_samples(model: Model, path: Path) -> None:
    from edge_lsla.preprocessing import open_picture
    from edge_lsla.sinks.annotate import contact_sheet

    cells = []
    for sample in sorted((DEMO / "samples").glob("*.jpg")):
        picture = open_picture(sample)
        found = model(picture)[0]
        truth = sample.stem.rsplit("_", 1)[0].replace("_", " ")
        caption = f"{found.label} {found.probability:.0%}"
        right = found.label == truth
        cells.append((np.asarray(picture), caption if right else f"{caption}\nis a {truth}", right))
    app.write_picture(path, contact_sheet(cells, columns=6))
