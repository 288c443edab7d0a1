"""The whole toolkit on the command line: the field verbs of `edge_lsla.app`, and all that leads to a bundle.

One of the two files that compose stages. Heavy modules are imported inside the verbs, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Optional

try:
    import numpy  # noqa: F401  # only looked for
    import typer
except ImportError as missing:
    sys.exit(f"error: {missing.name} is missing: this Python; run make demo once, then use .venv/bin/python")

from edge_lsla import app as field
from edge_lsla.app import app
from edge_lsla.atomic import check_output, write_bytes
from edge_lsla.console import progress, say, verb
from edge_lsla.errors import UsageError
from edge_lsla.sources import OPERATORS, fuse_graph, read_source, with_class_names
from edge_lsla.verbs import opening
from edge_lsla.verbs.compare import compare
from edge_lsla.verbs.demo import demo, demo_engine
from edge_lsla.verbs.engine import (
    BundleOutput,
    EngineBatch,
    Level,
    Targets,
    Workspace,
    add_engines_to,
    check_bundle_name,
    engine_options,
    words,
)
from edge_lsla.verbs.model import model_info, train
from edge_lsla.verbs.opening import Backend, Precision, Rebuild, Threads, opened
from plugins.verbs import plugin_app

model_app = typer.Typer(help="Look at model architectures.", no_args_is_help=True)
app.add_typer(model_app, name="model")
app.add_typer(plugin_app, name="plugin")
verb(model_app, "model info")(model_info)
verb(app, "train")(train)
verb(app, "demo")(demo)
verb(app, "compare")(compare)
opening.demo_engine = demo_engine

ModelName = Annotated[
    Optional[str],
    typer.Option("--model", help="vit_lsla_t, vit_lsla_demo, a configuration file (.json), or module:factory."),
]
KeyMap = Annotated[Optional[Path], typer.Option(help="JSON: regular expressions of key names, and their replacements.")]
Labels = Annotated[Optional[Path], typer.Option(help="Class names, one a line; default: the checkpoint's own.")]
Data = Annotated[Optional[Path], typer.Option(help="Pictures: IP102 layout, a folder per class, or any folder.")]
Method = Annotated[str, typer.Option(help="minmax, entropy or percentile.")]
Images = Annotated[int, typer.Option(min=1, help="How many pictures to calibrate on.")]


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
        fused, report = fuse_graph(graph, model, level)
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
    output: BundleOutput,
    precision: Annotated[
        Optional[str],
        typer.Option(help="fp32 (default), fp16 (GPUs), int8, or several as 'int8,fp32', the preferred one first."),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="auto, onnxruntime, tensorrt, tensorrt-rtx, or several with commas.")
    ] = "auto",
    target: Targets = None,
    batch: EngineBatch = 1,
    workspace: Workspace = None,
    level: Level = 3,
    attention: Annotated[str, typer.Option(help="On GPUs: auto, plugin, function or split.")] = "auto",
    data: Data = None,
    method: Method = "minmax",
    images: Images = 256,
    model: ModelName = None,
    key_map: KeyMap = None,
    labels: Labels = None,
) -> dict[str, Any]:
    """Build a verified bundle: export, fuse, calibrate, and record the numbers that a device must reproduce."""
    check_bundle_name(output)
    options = engine_options(batch, workspace, level)
    if source.suffix == ".lsla":
        return add_engines_to(source, output, backend, precision, target, options)
    from calibration.pictures import choose_pictures
    from calibration.settings import CalibrationSettings
    from edge_lsla.bundling import Calibrate, Wanted, build_bundle

    precision = precision or "fp32"
    wanted = Wanted(
        backends=_backends(backend, target),
        precisions=words(precision),
        targets=words(target),
        options=options,
        attention=attention,
        calibrate=Calibrate(data, method, images) if data else None,
    )
    if data is not None:
        choose_pictures(data, images)  # what is wrong with the data is said before the work
    CalibrationSettings(method=method)
    if data is not None and "int8" not in wanted.precisions:
        say().print(
            "nothing is calibrated without int8 in --precision: --data gives only the golden pictures", style="yellow"
        )
    read = with_class_names(read_source(source, model, key_map, labels), data)
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


def _backends(text: str, target: str | None) -> tuple[str, ...]:
    """Read --backend; auto takes what this machine can build for, and says so."""
    if text != "auto":
        return words(text)
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
