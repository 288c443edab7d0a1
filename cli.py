"""The whole toolkit on the command line: the field verbs of `edge_lsla.app`, and all that leads to a bundle.

One of the two files that compose stages. Heavy modules are imported inside the verbs, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

try:
    import numpy as np
    import typer
except ImportError as missing:
    sys.exit(f"error: {missing.name} is missing: this Python; run make demo once, then use .venv/bin/python")

from edge_lsla import __version__
from edge_lsla import app as field
from edge_lsla.app import Backend, Precision, Threads, app
from edge_lsla.atomic import check_output, write_bytes
from edge_lsla.console import progress, say, verb
from edge_lsla.errors import BundleError, DatasetError, EdgeLslaError, GraphError, UsageError
from edge_lsla.operator import NAME, QUANTISED_NAME, RESIDUAL_NAME
from edge_lsla.timing import medians_ms
from plugins.verbs import plugin_app

if TYPE_CHECKING:
    from onnx import ModelProto

    from edge_lsla.bundling import Source
    from edge_lsla.runner.model import Model
    from edge_lsla.surgery.fuse import FuseReport

ROOT = Path(__file__).resolve().parent
DEMO = ROOT / "demo"
DEMO_WEIGHTS = DEMO / "vit_lsla_demo.safetensors"

model_app = typer.Typer(help="Look at model architectures.", no_args_is_help=True)
app.add_typer(model_app, name="model")
app.add_typer(plugin_app, name="plugin")

ModelName = Annotated[
    Optional[str],
    typer.Option("--model", help="vit_lsla_t, vit_lsla_demo, a configuration file (.json), or module:factory."),
]
KeyMap = Annotated[Optional[Path], typer.Option(help="JSON: regular expressions of key names, and their replacements.")]
Labels = Annotated[Optional[Path], typer.Option(help="Class names, one a line; default: the checkpoint's own.")]
Data = Annotated[Optional[Path], typer.Option(help="Pictures: IP102 layout, a folder per class, or any folder.")]
Method = Annotated[str, typer.Option(help="minmax, entropy or percentile.")]
Images = Annotated[int, typer.Option(min=1, help="How many pictures to calibrate on.")]


# What `fuse --level` makes.
OPERATORS = {"attention": NAME, "residual": RESIDUAL_NAME, "int8": QUANTISED_NAME}


@verb(model_app, "model info")
def model_info(
    name: Annotated[str, typer.Argument(help="vit_lsla_t, vit_lsla_demo, a configuration file, or module:factory.")],
    classes: Annotated[Optional[int], typer.Option(min=1, help="Count with so many classes.")] = None,
) -> dict[str, Any]:
    """Print parameters, multiply-adds and a table of the stages, beside Swin-T's."""
    from edge_lsla.model.checkpoint import call_factory
    from edge_lsla.model.config import find_config
    from edge_lsla.model.profile import count
    from edge_lsla.model.tables import comparison, stage_rows, stages
    from edge_lsla.model.vit_lsla import VitLsla

    if ":" in name:
        module = call_factory(name)
        size = int(getattr(module, "image_size", 224))
        whole = count(module, size)[""]
        say().print(f"{name}: {whole.parameters:,} parameters, {whole.multiply_adds:,} multiply-adds at {size} px")
        return {"model": name, "parameters": whole.parameters, "multiply_adds": whole.multiply_adds}
    config = find_config(name)
    config = config.with_(classes=classes) if classes else config
    counts = count(VitLsla(config), config.image_size)
    rows = stage_rows(config, counts)
    say().print(stages(config, rows))
    say().print(comparison(config, counts[""]))
    return {
        "model": config.name,
        "classes": config.classes,
        "parameters": counts[""].parameters,
        "multiply_adds": counts[""].multiply_adds,
        "stages": [dataclasses.asdict(row) for row in rows],
    }


@verb(app, "train")
def train(
    data: Annotated[Path, typer.Argument(help="IP102 layout, or a folder per class below train/ and val/.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; a run found there goes on.")],
    model: Annotated[
        str, typer.Option("--model", help="A shipped model or a configuration file (.json).")
    ] = "vit_lsla_t",
    recipe: Annotated[str, typer.Option(help="ip102 (never run to its end here) or demo.")] = "ip102",
    settings: Annotated[
        Optional[list[str]], typer.Option("--set", help="Change the recipe: NAME=VALUE, such as epochs=10.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> dict[str, Any]:
    """Train a ViT-LSLA; run it again to go on where it stopped."""
    import torch

    from edge_lsla.data.folders import load_split
    from edge_lsla.model.config import find_config
    from edge_lsla.pipeline.signals import stop_on_signals
    from edge_lsla.preprocessing import Preprocessing
    from edge_lsla.training.loop import train as run
    from edge_lsla.training.settings import RECIPES, changed

    if recipe not in RECIPES:
        raise UsageError(f"no such recipe {recipe!r}", "--recipe", f"use one of {', '.join(RECIPES)}")
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"no such device {device!r}", "--device", "use auto, cpu or cuda")
    chosen = changed(RECIPES[recipe], settings or [])
    training, validation = load_split(data, "train"), load_split(data, "val")
    if not training.divided:
        raise DatasetError(
            "data set is not divided, so nothing would be left to validate on",
            data,
            "put the class folders below train/ and val/",
        )
    config = find_config(model).with_(classes=len(training.classes))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    output.mkdir(parents=True, exist_ok=True)
    say().print(
        f"{config.name}: {len(training)} pictures, {config.classes} classes, {chosen.epochs} epochs on {device}"
    )
    say().print(f"going on from {output / 'state.pt'}" if (output / "state.pt").exists() else f"new run in {output}")
    with stop_on_signals() as stop, progress("training") as step:
        result = run(
            config,
            training,
            validation,
            Preprocessing(config.image_size),
            chosen,
            output,
            device=device,
            progress=step,
            report=lambda row: say().print(
                f"epoch {row['epoch']}: loss {row['loss']:.3f}, top-1 {row['top1']:.2f} %, {row['seconds']:.0f} s"
            ),
            stop=stop.is_set,
        )
    if not result["finished"]:
        say().print(f"stopped at step {result['steps']}; the same command goes on from there")
    else:
        say().print(f"best: {output / 'best.safetensors'}, validation top-1 {result['best_top1']:.2f} %")
    return {"output": str(output), **result}


@verb(app, "export")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Weights: .safetensors, or a state dict.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    model: ModelName = None,
    key_map: KeyMap = None,
    labels: Labels = None,
    opset: Annotated[int, typer.Option(help="ONNX opset.")] = 20,
    tolerance: Annotated[float, typer.Option(help="Largest difference from PyTorch, relative to the logits.")] = 1e-4,
) -> dict[str, Any]:
    """Export a checkpoint to ONNX, and refuse when the numbers differ from PyTorch's."""
    from edge_lsla.export.onnx_export import ExportSettings, export_onnx
    from edge_lsla.model.checkpoint import open_checkpoint

    settings = ExportSettings(opset=opset, tolerance=tolerance)
    check_output(output)
    loaded = open_checkpoint(checkpoint, model, key_map, labels)
    with progress("exporting"):
        report = export_onnx(loaded.model, loaded.image_size, output, settings, description=loaded.description)
    say().print(
        f"{output}: opset {report.opset}, {report.nodes} nodes, {report.bytes / 1e6:.2f} MB, "
        f"largest difference from PyTorch {report.max_abs_difference:.2g}"
    )
    return {"output": str(output), **dataclasses.asdict(report)}


@verb(app, "fuse")
def fuse(
    model: Annotated[Path, typer.Argument(help="An ONNX file with LSLA attention in standard operators.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The fused ONNX file to write.")],
    level: Annotated[
        str,
        typer.Option(
            help="attention; residual: with its LayerNorm, projection and addition; "
            "int8: of a file that `calibrate --attention int8` wrote."
        ),
    ] = "attention",
    precision: Annotated[str, typer.Option(help="fp32, or fp16: types written into the graph, for GPUs.")] = "fp32",
    for_plugin: Annotated[
        bool,
        typer.Option("--for-plugin", help="Leave the operators' function bodies out, as TensorRT's parser needs it."),
    ] = False,
) -> dict[str, Any]:
    """Replace every LSLA attention of an ONNX graph by one operator, each proved by numbers."""
    from edge_lsla.surgery.function import drop_function, is_operator
    from edge_lsla.surgery.half import to_half
    from edge_lsla.surgery.onnx_file import read_onnx
    from plugins.needed import needed
    from plugins.variants import shipped

    if level not in OPERATORS:
        raise UsageError("there is no such level", f"--level {level}", "use attention, residual or int8")
    if precision not in ("fp32", "fp16"):
        raise UsageError("a graph's floats are fp32 or fp16", f"--precision {precision}", "int8: see `calibrate`")
    check_output(output)
    graph = read_onnx(model)
    result: dict[str, Any] = {"output": str(output)}
    if level == "attention" and (precision == "fp16" or for_plugin) and any(map(is_operator, graph.graph.node)):
        fused = graph  # only its types or functions are to change
    else:
        fused, report = _fuse(graph, model, level)
        result |= {
            "fused": len(report.fused),
            "refused": [{"where": r.where, "reason": r.reason} for r in report.refusals],
            "nodes_before": report.nodes_before,
            "nodes_after": report.nodes_after,
            "max_error": report.max_error,
        }
    if precision == "fp16":
        fused, halves = to_half(fused)
        result["float32"] = list(halves.float32)
        say().print(f"fp16: {len(halves.half)} layers, {len(halves.float32)} stay in float32, {halves.casts} casts")
    result["operators"] = dict(Counter(node.op_type for node in fused.graph.node if is_operator(node)))
    if for_plugin:
        fused = drop_function(fused)
        kernels = [variant.name for variant in needed(fused)]
        more = [name for name in kernels if name not in {variant.name for variant in shipped()}]
        say().print(f"kernels: {', '.join(kernels)}")
        if more:
            say().print(f"not shipped: build the plugin with --variants {','.join(more)}", style="yellow")
        result |= {"kernels": kernels, "not_shipped": more}
    write_bytes(output, fused.SerializeToString(deterministic=True))
    say().print(f"written: {output}")
    return result


@verb(app, "calibrate")
def calibrate(
    model: Annotated[Path, typer.Argument(help="A float32 ONNX file, best fused.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The quantised ONNX file; ranges go beside it.")],
    data: Data = None,
    method: Method = "minmax",
    images: Images = 256,
    backend: Annotated[str, typer.Option(help="Whose Q/DQ to write: onnxruntime or tensorrt.")] = "onnxruntime",
    ranges: Annotated[Optional[Path], typer.Option(help="Use ranges measured before, instead of --data.")] = None,
    attention: Annotated[str, typer.Option(help="float, or int8 for the TensorRT plugin's int8 kernels.")] = "float",
) -> dict[str, Any]:
    """Measure activation ranges and write an INT8 (Q/DQ) model."""
    from calibration.qdq import insert_qdq
    from calibration.ranges_file import Ranges
    from calibration.settings import QdqSettings
    from edge_lsla.bundling import Calibrate, measure_ranges
    from edge_lsla.description import describe
    from edge_lsla.surgery.onnx_file import read_onnx

    settings = QdqSettings(backend=backend, attention=attention)
    check_output(output)
    if (data is None) == (ranges is None):
        raise UsageError("calibration needs pictures or ranges", "--data, --ranges", "give one of them")
    graph = read_onnx(model)
    if ranges is not None:
        measured = Ranges.load(ranges)
    else:
        assert data is not None
        measured = measure_ranges(graph, describe(graph, model), Calibrate(data, method, images))
    quantised, report = insert_qdq(graph, measured, settings)
    beside = output.with_suffix(".ranges.json")
    write_bytes(output, quantised.SerializeToString(deterministic=True))
    measured.save(beside)
    say().print(
        f"{output}: {len(report.quantised)} layers in INT8, weights {report.weight_bytes_before / 1e6:.2f} -> "
        f"{report.weight_bytes_after / 1e6:.2f} MB, ranges in {beside}"
    )
    return {"output": str(output), "ranges": str(beside), "images": measured.images, "layers": len(report.quantised)}


@verb(app, "build-engine")
def build_engine(
    source: Annotated[
        Path, typer.Argument(help="A checkpoint, an ONNX file, or a bundle to whose graphs engines are added.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write, NAME.lsla.")],
    precision: Annotated[
        Optional[str],
        typer.Option(help="fp32 (default), fp16 (GPUs), int8, or several as 'int8,fp32', the preferred one first."),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="auto, onnxruntime, tensorrt, tensorrt-rtx, or several with commas.")
    ] = "auto",
    target: Annotated[
        Optional[str], typer.Option(help="GPUs to build tensorrt-rtx engines for, on any machine: sm86,sm89,sm120.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="The largest batch of an engine.")] = 1,
    attention: Annotated[str, typer.Option(help="On GPUs: auto, plugin, function or split.")] = "auto",
    data: Data = None,
    method: Method = "minmax",
    images: Images = 256,
    model: ModelName = None,
    key_map: KeyMap = None,
    labels: Labels = None,
) -> dict[str, Any]:
    """Build a verified bundle: export, fuse, calibrate, and record the numbers that a device must reproduce."""
    if output.suffix != ".lsla":
        raise UsageError("a bundle's name ends in .lsla", output, f"write {output.with_suffix('.lsla').name}")
    if source.suffix == ".lsla":
        return _add_engines(source, output, backend, precision, target, batch)
    from calibration.pictures import choose_pictures
    from calibration.settings import CalibrationSettings
    from edge_lsla.bundling import Calibrate, Wanted, build_bundle

    precision = precision or "fp32"
    wanted = Wanted(
        backends=_backends(backend, target),
        precisions=_words(precision),
        targets=_words(target),
        batch=batch,
        attention=attention,
        calibrate=Calibrate(data, method, images) if data else None,
    )
    check_output(output)
    if data is not None:
        choose_pictures(data, images)  # what is wrong with the data is said before the work
    CalibrationSettings(method=method)
    if data is not None and "int8" not in wanted.precisions:
        say().print(
            "nothing is calibrated without int8 in --precision: --data gives only the golden pictures", style="yellow"
        )
    read = _with_class_names(_read_source(source, model, key_map, labels), data)
    manifest, fidelity = build_bundle(read, output, wanted)
    size = output.stat().st_size
    say().print(f"{output}: {', '.join(one.name for one in manifest.artifacts)}, {size / 1e6:.2f} MB")
    return {
        "output": str(output),
        "backend": wanted.backends[0],
        "precision": wanted.precisions[0],
        "precisions": list(wanted.precisions),
        "artifacts": [
            {"name": one.name, "backend": one.backend, "precision": one.precision, "kind": one.kind, "bytes": one.size}
            for one in manifest.artifacts
        ],
        "bytes": size,
        "fidelity": fidelity,
    }


@verb(app, "evaluate")
def evaluate(
    engine: Annotated[Path, typer.Argument(help="A bundle.")],
    data: Annotated[Path, typer.Option(help="IP102 layout, or a folder per class.")],
    split: Annotated[str, typer.Option(help="train, val, test, or another folder of the data set.")] = "test",
    match: Annotated[str, typer.Option(help="Only pictures whose file name fits, such as 'photo_*'.")] = "*",
    backend: Backend = "auto",
    precision: Precision = None,
    threads: Threads = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 1,
) -> dict[str, Any]:
    """Measure top-1 and top-5 accuracy on a labelled data set."""
    from edge_lsla.data.folders import load_split
    from edge_lsla.evaluation import Score
    from edge_lsla.tables import accuracy

    pictures = load_split(data, split).matching(match)
    if not pictures.divided:
        say().print(f"{data} is not divided into splits: all of its pictures are used", style="yellow")
    with field.opened(engine, backend, precision, threads) as model:
        pictures = pictures.ordered_as(model.labels)
        results = field.classify_all(model, pictures.paths, batch)
    score = Score.of(results, pictures.labels, model.labels)
    say().print(accuracy(score))
    return {"split": split, **score.to_dict()}


@verb(app, "demo")
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
    bundle = output / "pests.lsla"
    _build_demo(bundle)
    with contextlib.suppress(EdgeLslaError):  # `infer` would build it again
        _make_folder(_cached_demo().parent)
        write_bytes(_cached_demo(), bundle.read_bytes())
    held_out = load_split(DEMO, "heldout")
    rows, answers, models = [], {}, {}
    with contextlib.ExitStack() as stack:
        for precision in ("fp32", "int8"):
            model = models[precision] = stack.enter_context(field.opened(bundle, "auto", precision, None))
            answers[precision] = field.classify_all(model, held_out.paths, 1)
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

        field.watch_source(models["int8"], str(DEMO / "pests.mp4"), SourceSettings(), save=video, quiet=True)
    say().print(demo_results(rows, len(held_out)))
    say().print(f"bundle:   {bundle}\npictures: {picture}\nvideo:    {video}")
    python = os.path.relpath(sys.executable) if sys.executable.startswith(str(Path.cwd())) else "python"
    say().print(f"now try:  {python} cli.py infer camera   (without a camera: infer camera synthetic)")
    return {"bundle": str(bundle), "results": rows, "picture": str(picture), "video": str(video)}


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


field.demo_engine = demo_engine


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


def _build_demo(bundle: Path) -> None:
    from edge_lsla.bundling import Calibrate, Wanted, build_bundle

    wanted = Wanted(precisions=("int8", "fp32"), calibrate=Calibrate(DEMO / "calibration"))
    build_bundle(_read_source(DEMO_WEIGHTS), bundle, wanted)


def _read_source(
    source: Path, model: str | None = None, key_map: Path | None = None, labels: Path | None = None
) -> Source:
    """Read a checkpoint (exporting it on the way) or an ONNX file, and fuse it."""
    from edge_lsla.bundling import Source
    from edge_lsla.description import describe
    from edge_lsla.export.onnx_export import export_onnx
    from edge_lsla.model.checkpoint import file_sha256, open_checkpoint
    from edge_lsla.surgery.function import is_operator
    from edge_lsla.surgery.onnx_file import read_onnx

    digests = {}
    if source.suffix == ".onnx":
        graph = read_onnx(source)
        description = describe(graph, source, labels)
        digests["onnx"] = file_sha256(source)
    elif source.suffix == ".lsla":
        raise UsageError("a bundle is built from a checkpoint or an ONNX file", source, "give one of these")
    else:
        loaded = open_checkpoint(source, model, key_map, labels)
        description = loaded.description
        with tempfile.TemporaryDirectory() as folder, progress("exporting"):
            path = Path(folder) / "model.onnx"
            report = export_onnx(loaded.model, loaded.image_size, path, description=description)
            graph = read_onnx(path)
        digests["onnx"] = report.sha256
        say().print(f"exported: {report.nodes} nodes, difference from PyTorch {report.max_abs_difference:.2g}")
    if description.checkpoint:
        digests["checkpoint"] = description.checkpoint
    if not any(is_operator(node) for node in graph.graph.node):
        graph, _ = _fuse(graph, source)
    return Source(source, graph, description, digests)


def _with_class_names(source: Source, data: Path | None) -> Source:
    """Take class names from the data set where the model came without any and the counts agree."""
    from edge_lsla.data.folders import load_split

    labels = source.description.labels
    if labels != tuple(f"class {index}" for index in range(len(labels))):
        return source
    found: tuple[str, ...] = ()
    if data is not None:
        with contextlib.suppress(DatasetError):  # unlabelled pictures have no names to give
            found = load_split(data, "train").classes
    if len(found) != len(labels):
        say().print("no class names: they are called class 0, class 1, …; give --labels FILE", style="yellow")
        return source
    say().print(f"class names taken from {data}: {', '.join(found[:5])}, …; give --labels FILE if their order differs")
    return dataclasses.replace(source, description=dataclasses.replace(source.description, labels=found))


def _fuse(graph: ModelProto, path: Path, level: str = "attention") -> tuple[ModelProto, FuseReport]:
    from edge_lsla.surgery.fuse import fuse as run
    from edge_lsla.surgery.fuse import fuse_quantised

    try:
        with progress("fusing"):
            fused, report = fuse_quantised(graph) if level == "int8" else run(graph, level)
        made = sum(one.op == OPERATORS[level] for one in report.fused)
        if not made:
            reasons = "; ".join(f"{refusal.where}: {refusal.reason}" for refusal in report.refusals)
            raise GraphError(f"nothing became {OPERATORS[level]}", reasons, "choose another --level")
    except GraphError as error:  # it knows the graph, not the file
        raise GraphError(error.what, path if error.where is None else f"{path}: {error.where}", error.remedy) from error
    say().print(
        f"fused: {made} {OPERATORS[level]}, {report.nodes_before} -> {report.nodes_after} nodes, "
        f"largest error of their proofs {report.max_error:.2g}"
    )
    for refusal in report.refusals:
        say().print(f"left alone: {refusal.where}: {refusal.reason}", style="yellow")
    return fused, report


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
    field.write_picture(path, contact_sheet(cells, columns=6))


def _add_engines(
    source: Path, output: Path, backend: str, precision: str | None, target: str | None, batch: int
) -> dict[str, Any]:
    from edge_lsla.bundle import open_bundle
    from edge_lsla.rebuilding import add_engines

    check_output(output)
    with open_bundle(source) as bundle:
        manifest = add_engines(bundle, output, backend, _words(precision), _words(target), batch)
    engines = [one for one in manifest.artifacts if one.kind == "engine"]
    say().print(f"{output}: {', '.join(one.name for one in engines)}, {output.stat().st_size / 1e6:.2f} MB")
    return {
        "output": str(output),
        "backend": engines[0].backend,
        "precision": engines[0].precision,
        "artifacts": [vars(one) for one in engines],
    }


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",")) if text else ()


def _backends(text: str, target: str | None) -> tuple[str, ...]:
    """Read --backend; auto takes what this machine can build for, and says so."""
    if text != "auto":
        return _words(text)
    if target:
        say().print("backend tensorrt-rtx: the one that builds for other GPUs")
        return ("tensorrt-rtx",)
    from edge_lsla.device import describe_device

    device = describe_device()
    for name, version in (("tensorrt", device.tensorrt), ("tensorrt-rtx", device.tensorrt_rtx)):
        if device.gpu and version:
            say().print(f"backend {name}: {version} and a {device.gpu} are here")
            return (name,)
    why = "this machine has no GPU" if not device.gpu else "TensorRT is not installed"
    say().print(f"backend onnxruntime: {why}")
    return ("onnxruntime",)


if __name__ == "__main__":
    field.main()
