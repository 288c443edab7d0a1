"""The verb `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla.atomic import check_output, write_bytes
from edge_lsla.console import say
from edge_lsla.errors import UsageError
from edge_lsla.verbs.engine import check_bundle_name
from edge_lsla.verbs.options import CorrectBiases, Data, Images, Method

if TYPE_CHECKING:
    from edge_lsla.quantising import Calibrate


def calibrate(
    model: Annotated[Path, typer.Argument(help="A float32 ONNX file, best fused; with --update a bundle.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The quantised ONNX file, ranges go beside it; or the new bundle.")
    ],
    data: Data = None,
    method: Method = "minmax",
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
) -> dict[str, Any]:
    """Measure activation ranges and write an INT8 (Q/DQ) model; with --update, a bundle whose INT8 is made anew."""
    from calibration.measure import data_sha256
    from calibration.ranges_file import Ranges
    from calibration.settings import CalibrationSettings, QdqSettings
    from edge_lsla.description import describe
    from edge_lsla.quantising import Calibrate, Quantiser
    from edge_lsla.surgery.onnx_file import read_onnx

    QdqSettings(backend=backend, attention=attention)
    CalibrationSettings(method=method)
    check_output(output)
    if update:
        _refuse({"--ranges": ranges, "--backend": backend != "onnxruntime", "--attention": attention != "float"}, True)
        if data is None:
            raise UsageError("calibration needs pictures", "--data", "give pictures of the field, such as a reservoir")
        wanted = Calibrate(data, method, images, migrate is not False, correct_biases)
        return _update(model, output, wanted, evaluate, 0.5 if max_drop is None else max_drop, report)
    _refuse({"--evaluate": evaluate, "--max-drop": max_drop, "--report": report}, False)
    migrate = bool(migrate)
    if data is None and ranges is None:
        raise UsageError("calibration needs pictures or ranges", "--data, --ranges", "give one of them")
    if data is None and correct_biases:
        raise UsageError("biases are corrected on pictures", "--correct-biases", "give --data too")
    if ranges is not None and migrate:
        raise UsageError("ranges of a file do not fit a graph that --migrate changes", "--ranges", "leave one out")
    graph = read_onnx(model)
    description = describe(graph, model)
    measured = None
    if ranges is not None:
        measured = Ranges.load(ranges)
        measured.check(graph, data_sha256(measured, description.preprocessing, data) if data is not None else None)
    pictures = Calibrate(data, method, images, migrate, correct_biases) if data is not None else None
    quantiser = Quantiser(graph, description, pictures, measured)
    quantised, done = quantiser.int8(backend, attention=attention)
    beside = output.with_suffix(".ranges.json")
    write_bytes(output, quantised.SerializeToString(deterministic=True))
    quantiser.ranges.save(beside)
    say().print(
        f"{output}: {len(done.quantised)} layers in INT8, weights {done.weight_bytes_before / 1e6:.2f} -> "
        f"{done.weight_bytes_after / 1e6:.2f} MB, ranges in {beside}"
    )
    taken = quantiser.ranges.images
    return {"output": str(output), "ranges": str(beside), "images": taken, "layers": len(done.quantised)}


def _refuse(options: dict[str, object], update: bool) -> None:
    for name, value in options.items():
        if value is not None and value is not False:
            why = "a bundle is updated as it was built" if update else "this judges bundles"
            raise UsageError(why, name, "leave it out" if update else "give a bundle and --update")


def _update(
    source: Path, output: Path, calibrate: Calibrate, evaluate: Path | None, max_drop: float, report: Path | None
) -> dict[str, Any]:
    """Do `calibrate --update`."""
    from edge_lsla.bundle import open_bundle
    from edge_lsla.recalibrating import Update, recalibrate

    if source.suffix != ".lsla":
        raise UsageError("only a bundle is updated", source, "give one, or leave --update out")
    check_bundle_name(output)
    page = report or output.with_suffix(".report.html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError("a report is an HTML file", page, "give a name that ends in .html")
    check_output(page)
    with open_bundle(source) as bundle:
        manifest, gate = recalibrate(bundle, output, Update(calibrate, evaluate, max_drop), page)
    assert manifest.calibration is not None
    images = manifest.calibration["images"]
    say().print(f"{output}: INT8 calibrated on {images} pictures, {output.stat().st_size / 1e6:.2f} MB")
    return {"output": str(output), "report": str(page), "images": images, "gate": gate}
