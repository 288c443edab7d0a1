"""INT8 graphs of one float32 graph, all from one calibration; used by everything that quantises in a checkout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lsla.console import progress, say

if TYPE_CHECKING:
    from collections.abc import Collection

    from onnx import ModelProto

    from calibration.measure import Calibration
    from calibration.qdq import QdqReport
    from calibration.ranges_file import Ranges
    from edge_lsla.description import Description


PEAKS = 32  # pictures that the channels' peaks are taken from: 8 served as well as 224 on the demo model


@dataclass(frozen=True)
class Calibrate:
    """How to calibrate.

    Attributes:
        data: pictures, a data set (its training split is taken) or a video.
        method: how ranges are found, see `calibration.settings.METHODS`.
        images: how many pictures.
        migrate: move outlier channels from activations into weights where that is exact.
        correct: give each INT8 layer's output the mean that it has in float.
        exclude: pictures that must not be calibrated on, such as those that judge.
    """

    data: Path
    method: str = "minmax"
    images: int = 256
    migrate: bool = False
    correct: bool = False
    exclude: tuple[Path, ...] = ()


class Quantiser:
    """Makes INT8 graphs; the pictures are measured once, when the first is asked for.

    Args:
        graph: float32, fused or not.
        description: its preprocessing.
        wanted: how to calibrate.
        measured: ranges from a file, instead of measuring; then nothing is migrated.
    """

    def __init__(
        self, graph: ModelProto, description: Description, wanted: Calibrate | None, measured: Ranges | None = None
    ) -> None:
        self._graph, self._description, self._wanted, self._ranges = graph, description, wanted, measured
        self._calibration: Calibration | None = None

    @property
    def graph(self) -> ModelProto:
        """The float32 graph that is quantised: the given one, or the same function with other scales inside."""
        self._measure()
        return self._graph

    @property
    def ranges(self) -> Ranges:
        """Ranges of `graph`."""
        self._measure()
        assert self._ranges is not None
        return self._ranges

    @property
    def calibration(self) -> Calibration | None:
        """What measuring gave; None where ranges came from a file."""
        self._measure()
        return self._calibration

    def int8(self, backend: str, keep: Collection[str] = (), attention: str = "float") -> tuple[ModelProto, QdqReport]:
        """Return the graph with Q/DQ in all layers but `keep`, and what was done.

        Args:
            backend: "onnxruntime" or "tensorrt", whose Q/DQ to write.
            keep: names of layers that stay float.
            attention: "float", or "int8" for the TensorRT plugin's kernels.

        Raises:
            GraphError, RangesError: see `calibration.qdq.insert_qdq`.
        """
        from calibration.bias_correction import correct_biases
        from calibration.pictures import CalibrationPictures
        from calibration.qdq import insert_qdq
        from calibration.settings import QdqSettings
        from edge_lsla.preprocessing import normalise

        settings = QdqSettings(backend=backend, attention=attention, keep_float=tuple(sorted(keep)))
        quantised, report = insert_qdq(self.graph, self.ranges, settings)
        wanted, preprocessing = self._wanted, self._description.preprocessing
        if wanted is None or not wanted.correct or not report.quantised:
            return quantised, report
        pictures = CalibrationPictures(wanted.data, wanted.images, preprocessing, exclude=wanted.exclude)
        with progress("correcting biases") as step:
            batches = (normalise(pixels[None], preprocessing) for pixels in pictures)
            corrected, change = correct_biases(
                self.graph, quantised, batches, progress=lambda done, of: step(done, of, "")
            )
        return (corrected if change.sqnr_after > change.sqnr_before else quantised), report

    def _measure(self) -> None:
        if self._ranges is not None:
            return
        from calibration.migration import migrate_scales

        assert self._wanted is not None  # whoever asks for INT8 has checked that there are pictures
        if self._wanted.migrate:
            peaks = self._run("measuring channels", min(self._wanted.images, PEAKS)).measured.peaks
            self._graph, report = migrate_scales(self._graph, peaks)
            say().print(
                f"scales moved into weights behind {len(report.migrated)} LayerNorms, with the same float numbers"
            )
        found = self._run("calibrating", self._wanted.images)
        self._calibration, self._ranges = found, found.measured.ranges
        for warning in found.warnings:
            say().print(warning, style="yellow")
        repeated = sum(one.reason == "repeated" for one in found.left_out)
        for one in found.left_out:
            if one.reason != "repeated":
                say().print(f"left out: {one.sentence}", style="yellow")
        also = f", {repeated} that show the same as others left out" if repeated else ""
        say().print(f"calibrated on {self._ranges.images} pictures{also}")

    def _run(self, title: str, images: int) -> Calibration:
        from calibration.measure import measure_data
        from calibration.settings import CalibrationSettings

        wanted = self._wanted
        assert wanted is not None
        with progress(title) as step:
            return measure_data(
                self._graph,
                self._description.preprocessing,
                wanted.data,
                images,
                CalibrationSettings(method=wanted.method),
                lambda done, of: step(done, of, ""),
                exclude=wanted.exclude,
            )
