"""The verb `build-engine` of a checkout: bundles from checkpoints and ONNX files, judged by a gate where asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla.console import say
from edge_lsla.engine_cache import EngineOptions
from edge_lsla.errors import UsageError
from edge_lsla.sources import read_source, with_class_names
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
from edge_lsla.verbs.options import CorrectBiases, Data, Images, KeyMap, Labels, Method, Migrate, ModelName

if TYPE_CHECKING:
    from edge_lsla.bundling import Source, Wanted
    from edge_lsla.precision_choice import Budget, Decision
    from edge_lsla.typed_graphs import TypedGraphs


def build_engine(
    source: Annotated[
        Path, typer.Argument(help="A checkpoint, an ONNX file, or a bundle to whose graphs engines are added.")
    ],
    output: BundleOutput,
    precision: Annotated[
        Optional[str],
        typer.Option(
            help="fp32 (default), fp16 (GPUs), int8, several as 'int8,fp32', the preferred one first; "
            "or auto: the fastest that loses at most --max-drop."
        ),
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
    method: Method = "auto",
    images: Images = 256,
    migrate: Migrate = True,
    correct_biases: CorrectBiases = False,
    counters: Annotated[
        bool, typer.Option("--counters", help="INT8 of onnxruntime can count how often values leave their ranges.")
    ] = False,
    max_drop: Annotated[
        Optional[float], typer.Option(min=0, max=100, help="Points of top-1 that INT8 may lose; auto: 0.5.")
    ] = None,
    sure: Annotated[bool, typer.Option("--sure", help="The whole 95 % interval must be within --max-drop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Ship INT8 whatever the gate says; it is recorded.")] = False,
    sources: Annotated[
        Optional[str],
        typer.Option(help="Regular expression with one group, that finds a picture's source in its name."),
    ] = None,
    search_images: Annotated[
        Optional[int], typer.Option(min=1, help="Most pictures to search with; default: all that do not judge.")
    ] = None,
    report: Annotated[
        Optional[Path], typer.Option(help="Where the gate's report goes; default: beside the bundle, .report.html.")
    ] = None,
    model: ModelName = None,
    key_map: KeyMap = None,
    labels: Labels = None,
) -> dict[str, Any]:
    """Build a verified bundle: export, fuse, calibrate, judge, and record the numbers that a device must reproduce."""
    check_bundle_name(output)
    options = engine_options(batch, workspace, level)
    if source.suffix == ".lsla":
        _refuse_for_a_bundle(
            {"--data": data, "--model": model, "--key-map": key_map, "--labels": labels, "--max-drop": max_drop,
             "--report": report, "--sources": sources, "--search-images": search_images, "--sure": sure,
             "--force": force, "--no-migrate": not migrate, "--correct-biases": correct_biases,
             "--counters": counters,
             "--attention": attention if attention != "auto" else None}
        )  # fmt: skip
        return add_engines_to(source, output, backend, precision, target, options)
    from calibration.pictures import choose_pictures
    from calibration.settings import check_method
    from edge_lsla.bundling import Wanted, build_bundle
    from edge_lsla.gate_pictures import divide_pictures
    from edge_lsla.precision_choice import Budget
    from edge_lsla.precision_report import precision_reports
    from edge_lsla.quantising import Calibrate

    auto = precision == "auto"
    gated = auto or max_drop is not None or report is not None or sure or force
    if gated and data is None:
        raise UsageError("a gate judges on pictures", "--data", "give a data set with val and test")
    calibrate = Calibrate(data, method, images, migrate, correct_biases) if data else None
    wanted = Wanted(
        backends=_backends(backend, target),
        precisions=("int8",) if auto else words(precision or "fp32"),
        targets=words(target),
        options=options,
        attention=attention,
        calibrate=calibrate,
        counters=counters,
    )
    budget = Budget(0.5 if max_drop is None else max_drop, sure, force, sources, search_images)
    pages = _pages(output, report, wanted.backends) if gated else {}
    _check_parts(wanted, options)
    check_method(method)
    if data is not None:
        choose_pictures(data, images)  # what is wrong with the data is said before the work
        if gated:
            divide_pictures(data, None, sources)
    if "int8" not in wanted.precisions:
        if gated:
            raise UsageError("a gate judges INT8", "--precision", "add int8, or let it be auto")
        if data is not None:
            say().print(
                "nothing is calibrated without int8 in --precision: --data gives only the golden pictures",
                style="yellow",
            )
    read = with_class_names(read_source(source, model, key_map, labels), data)
    result: dict[str, Any] = {}
    if not gated:
        manifest, fidelity = build_bundle(read, output, wanted)
    else:
        wanted, graphs, decisions = _decide(read, wanted, budget, auto)
        if auto:
            wanted = dataclasses.replace(wanted, chosen={name: one.chosen for name, one in decisions.items()})
        verdicts = {name: one.to_dict() for name, one in decisions.items()}
        with precision_reports(read, graphs.quantiser, decisions, pages):
            manifest, fidelity = build_bundle(read, output, wanted, graphs, verdicts)
        result = {"gate": verdicts, "report": str(next(iter(pages.values())))}
    size = output.stat().st_size
    say().print(f"{output}: {', '.join(one.name for one in manifest.artifacts)}, {size / 1e6:.2f} MB")
    pairs = wanted.pairs()
    return {
        "output": str(output),
        "backend": pairs[0][0],
        "precision": pairs[0][1],
        "precisions": list(dict.fromkeys(precision for _, precision in pairs)),
        "artifacts": [
            {"name": one.name, "backend": one.backend, "precision": one.precision, "kind": one.kind, "bytes": one.size}
            for one in manifest.artifacts
        ],
        "bytes": size,
        "fidelity": fidelity,
        "calibration": manifest.calibration,
        **result,
    }


def _decide(
    source: Source, wanted: Wanted, budget: Budget, search: bool
) -> tuple[Wanted, TypedGraphs, dict[str, Decision]]:
    """Judge each backend; pictures that judge are not calibrated on."""
    from edge_lsla.bundling import BACKENDS, open_graphs
    from edge_lsla.gate_pictures import divide_pictures
    from edge_lsla.precision_choice import decide

    assert wanted.calibrate is not None  # a gate needs data
    divided = divide_pictures(wanted.calibrate.data, source.description.labels, budget.sources)
    for note in divided.notes:
        say().print(note)
    calibrate = dataclasses.replace(wanted.calibrate, exclude=divided.gate.paths)
    wanted = dataclasses.replace(wanted, calibrate=calibrate)
    graphs = open_graphs(source, wanted)
    return (
        wanted,
        graphs,
        {
            backend: decide(source, graphs, backend, divided, budget, search=search)
            for backend in wanted.backends
            if "int8" in BACKENDS[backend]
        },
    )


def _refuse_for_a_bundle(options: dict[str, object]) -> None:
    for name, value in options.items():
        if value is not None and value is not False:
            raise UsageError("a bundle's graphs are built as they are", name, "leave it out, or give the checkpoint")


def _check_parts(wanted: Wanted, options: EngineOptions) -> None:
    """Say what is missing before the work, and what has no effect.

    Raises:
        MissingComponentError: TensorRT for RTX, or the plugin library.
        UsageError: it does not build for a target.
    """
    from edge_lsla.build.tensorrt.builder import describe_runtime
    from edge_lsla.build.tensorrt.settings import BuildSettings
    from edge_lsla.bundling import describe_plugin

    if "plugin" in {wanted.form(one) for one in wanted.backends}:
        describe_plugin()
    if wanted.targets:
        targets = BuildSettings("tensorrt-rtx", wanted.targets, options.profiles, options.workspace_bytes).targets
        runtime = describe_runtime("tensorrt-rtx")
        for target in targets:
            if target not in runtime.targets:
                known = ", ".join(runtime.targets)
                raise UsageError(f"TensorRT for RTX {runtime.version} does not build for {target}", "--target", known)
    elif options != EngineOptions():
        say().print(
            "--batch, --workspace and --level have no effect here: engines are built on the device, by "
            "`build-engine BUNDLE`",
            style="yellow",
        )


def _pages(output: Path, report: Path | None, backends: tuple[str, ...]) -> dict[str, Path]:
    """Name a report for each backend, the first one's as the user says."""
    from calibration.report.write import check_report

    first = report or output.with_suffix(".report.html")
    pages = {name: first if name == backends[0] else first.with_suffix(f".{name}.html") for name in backends}
    for page in pages.values():
        check_report(page)
    return pages


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
