"""INT8 graphs with saturation counters, and what they count on the calibration pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_lsla.console import progress

if TYPE_CHECKING:
    from onnx import ModelProto

    from edge_lsla.preprocessing import Preprocessing
    from edge_lsla.quantising import Calibrate


def with_counters(
    quantised: ModelProto,
    graphs: tuple[ModelProto, ModelProto],
    calibrate: Calibrate,
    preprocessing: Preprocessing,
) -> tuple[ModelProto, dict[str, float]]:
    """Return an INT8 graph with counters, and the shares that they give on the pictures it was calibrated on.

    Args:
        quantised: for ONNX Runtime.
        graphs: float32: the one that it was made from, and the one as it was exported, whose names tell the layers.
        calibrate: the pictures.
        preprocessing: of the model.

    Raises:
        GraphError: see `calibration.counters.add_counters`.
        DatasetError: no picture can be read.
    """
    from calibration.counters import activation_names, add_counters
    from calibration.pictures import CalibrationPictures
    from edge_lsla.preprocessing import normalise
    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner

    counting = add_counters(quantised, activation_names(*graphs))
    pictures = CalibrationPictures(calibrate.data, calibrate.images, preprocessing, exclude=calibrate.exclude)
    sums: dict[str, float] = {}
    with OnnxRuntimeRunner(counting.SerializeToString()) as runner, progress("counting saturation") as step:
        for done, pixels in enumerate(pictures, start=1):
            for name, share in runner.saturation(normalise(pixels[None], preprocessing)).items():
                sums[name] = sums.get(name, 0.0) + share
            step(done, pictures.expected, "")
    return counting, {name: round(total / done, 6) for name, total in sums.items()}
