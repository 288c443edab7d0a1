"""The verb `calibrate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla.atomic import check_output, write_bytes
from edge_lsla.console import say
from edge_lsla.errors import UsageError
from edge_lsla.verbs.engine import check_bundle_name
from edge_lsla.verbs.options import CorrectBiases, Data, Images, Method

if TYPE_CHECKING:
    from calibration.ranges_file import Ranges
    from edge_lsla.recalibrating import Update


def calibrate(
    model: Annotated[Path, typer.Argument(help="A float32 ONNX file, best fused; with --update a bundle.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The quantised ONNX file, ranges go beside it; or the new bundle.")
    ],
    data: Data = None,
    method: Method = "auto",
    images: Images = 256,
    backend: Annotated[str, typer.Option(help="Whose Q/DQ to write: onnxruntime or tensorrt.")] = "onnxruntime",
    ranges: Annotated[
        Optional[Path], typer.Option(help="Use ranges measured before; with --data, only if measured on that.")
    ] = None,
    attention: Annotated[str, typer.Option(help="float, or int8 for the TensorRT plugin's int8 kernels.")] = "float",
    migrate: Annotated[
        Optional[bool],
        typer.Option(
            "--migrate/--no-migrate",
            help="Move outlier channels from activations into weights where that is exact (SmoothQuant); default: only "
            "with --update.",
        ),
    ] = None,
    correct_biases: CorrectBiases = False,
    update: Annotated[
        bool, typer.Option("--update", help="Make a bundle's INT8 anew, if it is no worse than the one before.")
    ] = False,
    evaluate: Annotated[
        Optional[Path],
        typer.Option(help="With --update: labelled pictures that judge; default: a part of --data, by agreement."),
    ] = None,
    max_drop: Annotated[
        Optional[float], typer.Option(min=0, max=100, help="With --update: points that INT8 may lose; default: 0.5.")
    ] = None,
    report: Annotated[
        Optional[Path], typer.Option(help="With --update: the gate's report; default: beside the bundle, .report.html.")
    ] = None,
    sources: Annotated[
        Optional[str],
        typer.Option(help="With --update: regular expression with one group, a picture's source in its name."),
    ] = None,
) -> dict[str, Any]:
    """Measure activation ranges and write an INT8 (Q/DQ) model; with --update, a bundle whose INT8 is made anew."""
    from calibration.measure import data_sha256
    from calibration.ranges_file import Ranges
    from calibration.settings import QdqSettings, check_method
    from calibration.splits import check_pattern
    from edge_lsla.description import describe
    from edge_lsla.quantising import Calibrate, Quantiser
    from edge_lsla.recalibrating import Update
    from edge_lsla.sources import check_input_size
    from edge_lsla.surgery.onnx_file import read_onnx

    QdqSettings(backend=backend, attention=attention)
    check_method(method)
    check_pattern(sources)
    beside = output.with_suffix(".ranges.json")
    for file in (output,) if update else (output, beside):
        check_output(file)
    if not update:  # a bundle may be updated in its place, where it is replaced whole or not at all
        _refuse_overwriting(model, output, beside, ranges)
    if update:
        _refuse({"--ranges": ranges, "--backend": backend != "onnxruntime", "--attention": attention != "float"}, True)
        if data is None:
            raise UsageError("calibration needs pictures", "--data", "give pictures of the field, such as a reservoir")
        wanted = Calibrate(data, method, images, migrate is not False, correct_biases)
        return _update(model, output, Update(wanted, evaluate, 0.5 if max_drop is None else max_drop, sources), report)
    if model.suffix != ".onnx":
        remedy = "add --update" if model.suffix == ".lsla" else "export and fuse it first, or use build-engine"
        raise UsageError("this is no ONNX file, which ranges are measured on", model, remedy)
    _refuse({"--evaluate": evaluate, "--max-drop": max_drop, "--report": report, "--sources": sources}, False)
    migrate = bool(migrate)
    if data is None and ranges is None:
        raise UsageError("calibration needs pictures or ranges", "--data, --ranges", "give one of them")
    if data is None and correct_biases:
        raise UsageError("biases are corrected on pictures", "--correct-biases", "give --data too")
    if ranges is not None and migrate:
        raise UsageError("ranges of a file do not fit a graph that --migrate changes", "--ranges", "leave one out")
    graph = read_onnx(model)
    description = describe(graph, model)
    check_input_size(graph, model, description)
    measured = None
    if ranges is not None:
        measured = Ranges.load(ranges)
        measured.check_tensors(graph)
        measured.check(graph, data_sha256(measured, description.preprocessing, data) if data is not None else None)
        _tell_if_chosen_otherwise(measured, backend, correct_biases)
    pictures = Calibrate(data, method, images, migrate, correct_biases) if data is not None else None
    quantiser = Quantiser(graph, description, pictures, measured)
    quantised, done = quantiser.int8(backend, attention=attention)
    write_bytes(output, quantised.SerializeToString(deterministic=True))
    used = quantiser.ranges_for(backend, attention)
    used.save(beside)
    say().print(
        f"{output}: {len(done.quantised)} layers in INT8, weights {done.weight_bytes_before / 1e6:.2f} -> "
        f"{done.weight_bytes_after / 1e6:.2f} MB, ranges in {beside}"
    )
    return {
        "output": str(output),
        "ranges": str(beside),
        "images": used.images,
        "layers": len(done.quantised),
        "method": used.method,
        "chosen": dataclasses.asdict(used.chosen) if used.chosen else None,
    }


def _tell_if_chosen_otherwise(ranges: Ranges, backend: str, correct: bool) -> None:
    """Say what of a choice recorded in a ranges file does not hold here."""
    chosen = ranges.chosen
    if chosen is not None and chosen.backend != backend:
        say().print(f"these ranges, by {ranges.method}, were chosen for {chosen.backend}", style="yellow")
    elif chosen is not None and chosen.corrected_db is not None and not correct:
        say().print("biases were corrected beside these ranges: --data and --correct-biases do it", style="yellow")


def _refuse(options: dict[str, object], update: bool) -> None:
    for name, value in options.items():
        if value is not None and value is not False:
            why = "a bundle is updated as it was built" if update else "this judges bundles"
            raise UsageError(why, name, "leave it out" if update else "give a bundle and --update")


def _refuse_overwriting(model: Path, output: Path, beside: Path, ranges: Path | None) -> None:
    """Refuse to write over what is read, and over a file of another kind where ranges would go."""
    from calibration.ranges_file import FORMAT
    from edge_lsla.reading import read_json

    if output.resolve() in {read.resolve() for read in (model, ranges) if read is not None}:
        raise UsageError("the output would overwrite what is read", output, "choose another name")
    if not beside.exists():
        return
    try:
        ours = read_json(beside, "ranges file", UsageError).get("format") == FORMAT
    except (UsageError, AttributeError):
        ours = False
    if not ours:
        raise UsageError("the ranges would overwrite another file", beside, "choose another output or move it")


def _update(source: Path, output: Path, wanted: Update, report: Path | None) -> dict[str, Any]:
    """Do `calibrate --update`."""
    from calibration.report.write import check_report
    from edge_lsla.bundle import open_bundle
    from edge_lsla.recalibrating import recalibrate

    if source.suffix != ".lsla":
        raise UsageError("only a bundle is updated", source, "give one, or leave --update out")
    check_bundle_name(output)
    page = report or output.with_suffix(".report.html")
    check_report(page)
    with open_bundle(source) as bundle:
        manifest, gate = recalibrate(bundle, output, wanted, page)
    assert manifest.calibration is not None
    images, method = manifest.calibration["images"], manifest.calibration["method"]
    say().print(f"{output}: INT8 calibrated on {images} pictures, {output.stat().st_size / 1e6:.2f} MB")
    return {"output": str(output), "report": str(page), "images": images, "method": method, "gate": gate}
