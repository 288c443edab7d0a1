"""The verb `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edge_lsla.atomic import check_output, write_bytes
from edge_lsla.console import say
from edge_lsla.errors import UsageError
from edge_lsla.verbs.options import CorrectBiases, Data, Images, Method, Migrate


def calibrate(
    model: Annotated[Path, typer.Argument(help="A float32 ONNX file, best fused.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The quantised ONNX file; ranges go beside it.")],
    data: Data = None,
    method: Method = "minmax",
    images: Images = 256,
    backend: Annotated[str, typer.Option(help="Whose Q/DQ to write: onnxruntime or tensorrt.")] = "onnxruntime",
    ranges: Annotated[
        Optional[Path], typer.Option(help="Use ranges measured before; with --data, only if measured on that.")
    ] = None,
    attention: Annotated[str, typer.Option(help="float, or int8 for the TensorRT plugin's int8 kernels.")] = "float",
    migrate: Migrate = False,
    correct_biases: CorrectBiases = False,
) -> dict[str, Any]:
    """Measure activation ranges and write an INT8 (Q/DQ) model."""
    from calibration.measure import data_sha256
    from calibration.ranges_file import Ranges
    from calibration.settings import CalibrationSettings, QdqSettings
    from edge_lsla.description import describe
    from edge_lsla.quantising import Calibrate, Quantiser
    from edge_lsla.surgery.onnx_file import read_onnx

    QdqSettings(backend=backend, attention=attention)
    CalibrationSettings(method=method)
    check_output(output)
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
    wanted = Calibrate(data, method, images, migrate, correct_biases) if data is not None else None
    quantiser = Quantiser(graph, description, wanted, measured)
    quantised, report = quantiser.int8(backend, attention=attention)
    beside = output.with_suffix(".ranges.json")
    write_bytes(output, quantised.SerializeToString(deterministic=True))
    quantiser.ranges.save(beside)
    say().print(
        f"{output}: {len(report.quantised)} layers in INT8, weights {report.weight_bytes_before / 1e6:.2f} -> "
        f"{report.weight_bytes_after / 1e6:.2f} MB, ranges in {beside}"
    )
    taken = quantiser.ranges.images
    return {"output": str(output), "ranges": str(beside), "images": taken, "layers": len(report.quantised)}
