"""INT8 graphs of one float32 graph, all from one calibration; used by everything that quantises in a checkout."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla.console import progress, say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray
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
        method: how ranges are found, see `calibration.settings.METHODS`; "auto": as keeps the logits best, for each
            backend, with corrected biases where they help on TensorRT.
        images: how many pictures.
        migrate: move outlier channels from activations into weights where that is exact.
        correct: give each INT8 layer's output the mean that it has in float.
        exclude: pictures that must not be calibrated on, such as those that judge.

    Raises:
        UsageError: there is no such method.
    """

    data: Path
    method: str = "auto"
    images: int = 256
    migrate: bool = False
    correct: bool = False
    exclude: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        from calibration.settings import check_method

        check_method(self.method)


class Quantiser:
    """Makes INT8 graphs; the pictures are measured once, when the first is asked for.

    From that one measurement each backend gets its own ranges: a method's error may depend on the backend's integers,
    and the method "auto" is chosen for each.

    Args:
        graph: float32, fused or not.
        description: its preprocessing.
        wanted: how to calibrate.
        measured: ranges from a file, instead of measuring; then nothing is migrated.
    """

    def __init__(
        self, graph: ModelProto, description: Description, wanted: Calibrate | None, measured: Ranges | None = None
    ) -> None:
        self._graph, self._description, self._wanted, self._given = graph, description, wanted, measured
        self._calibration: Calibration | None = None
        self._ranges: dict[tuple[str, str], Ranges] = {}
        self._whole: dict[tuple[str, str], tuple[ModelProto, QdqReport]] = {}

    @property
    def graph(self) -> ModelProto:
        """The float32 graph that is quantised: the given one, or the same function with other scales inside."""
        self._measure()
        return self._graph

    @property
    def calibration(self) -> Calibration | None:
        """What measuring gave; None where ranges came from a file."""
        self._measure()
        return self._calibration

    @property
    def data_sha256(self) -> str:
        """Digest of the pictures, see `calibration.identity`."""
        self._measure()
        if self._given is not None:
            return self._given.data_sha256
        assert self._calibration is not None
        return self._calibration.measured.ranges.data_sha256

    def ranges_for(self, backend: str, attention: str = "float") -> Ranges:
        """Return the ranges of `graph` for a backend: by the method wanted, or by the one chosen for it.

        Args:
            backend: "onnxruntime", or one for GPUs.
            attention: as for `int8`.
        """
        self._measure()
        if self._given is not None:
            return self._given
        assert self._wanted is not None
        assert self._calibration is not None
        key = (_form(backend), attention)
        if key not in self._ranges:
            if self._wanted.method == "auto":
                self._choose(*key)
            else:
                measured = self._calibration.measured
                self._ranges[key] = measured.by(self._wanted.method, symmetric=key[0] == "tensorrt")
        return self._ranges[key]

    def recorded(self, backends: Iterable[str]) -> dict[str, Any]:
        """Return how INT8 of some backends was calibrated, for a passport: method, images, and what was chosen by."""
        found = {backend: self.ranges_for(backend) for backend in backends}
        chosen = {
            name: {"method": one.method, **dataclasses.asdict(one.chosen)} for name, one in found.items() if one.chosen
        }
        return {
            "method": ", ".join(dict.fromkeys(one.method for one in found.values())),
            "images": max(one.images for one in found.values()),
            **({"chosen": chosen} if chosen else {}),
        }

    def int8(self, backend: str, keep: Collection[str] = (), attention: str = "float") -> tuple[ModelProto, QdqReport]:
        """Return the graph with Q/DQ in all layers but `keep`, and what was done.

        Args:
            backend: "onnxruntime" or "tensorrt", whose Q/DQ to write.
            keep: names of layers that stay float.
            attention: "float", or "int8" for the TensorRT plugin's kernels.

        Raises:
            GraphError, RangesError: see `calibration.qdq.insert_qdq`.
        """
        from calibration.qdq import insert_qdq
        from calibration.settings import QdqSettings

        settings = QdqSettings(backend=backend, attention=attention, keep_float=tuple(sorted(keep)))
        ranges = self.ranges_for(backend, attention)
        if not keep and (backend, attention) in self._whole:
            return self._whole[backend, attention]
        quantised, report = insert_qdq(self._graph, ranges, settings)
        correct = self._wanted is not None and self._wanted.correct
        if ranges.chosen is not None and self._given is None:
            correct = ranges.chosen.corrected_db is not None
        if correct and report.quantised:
            quantised, _ = self._corrected(quantised)
        return quantised, report

    def _choose(self, backend: str, attention: str) -> None:
        """Choose the ranges for a backend, and whether biases are corrected; tell it."""
        from calibration.method_choice import choose_ranges, rounded_db
        from calibration.qdq import insert_qdq
        from calibration.settings import QdqSettings

        assert self._wanted is not None
        assert self._calibration is not None
        settings = QdqSettings(backend=backend, attention=attention)
        with progress("choosing ranges") as step:
            ranges = choose_ranges(
                self._graph,
                self._calibration.measured,
                settings,
                self._pictures(),
                progress=lambda done, of: step(done, of, ""),
            )
        quantised, report = insert_qdq(self._graph, ranges, settings)
        if backend == "tensorrt" or self._wanted.correct:
            quantised, better = self._corrected(quantised)
            if better is not None and ranges.chosen is not None:
                chosen = dataclasses.replace(ranges.chosen, corrected_db=rounded_db(better))
                ranges = dataclasses.replace(ranges, chosen=chosen)
        self._ranges[backend, attention], self._whole[backend, attention] = ranges, (quantised, report)
        say().print(f"{backend}: ranges by {ranges.method}; {ranges.chosen}")

    def _corrected(self, quantised: ModelProto) -> tuple[ModelProto, float | None]:
        """Return a graph with corrected biases, and its logits' decibels; as it is, and None, where it is no better."""
        from calibration.bias_correction import correct_biases

        with progress("correcting biases") as step:
            corrected, change = correct_biases(
                self._graph, quantised, self._pictures(), progress=lambda done, of: step(done, of, "")
            )
        return (corrected, change.sqnr_after) if change.sqnr_after > change.sqnr_before else (quantised, None)

    def _pictures(self) -> Iterator[NDArray[np.float32]]:
        """Yield pictures to try a graph on: some of those that were measured, or the first where none were."""
        from calibration.pictures import CalibrationPictures
        from edge_lsla.preprocessing import normalise

        wanted, preprocessing = self._wanted, self._description.preprocessing
        assert wanted is not None
        pixels: Iterable[NDArray[np.uint8]]
        if self._calibration is not None:
            pixels = self._calibration.trial
        else:
            pixels = CalibrationPictures(wanted.data, wanted.images, preprocessing, exclude=wanted.exclude)
        return (normalise(one[None], preprocessing) for one in pixels)

    def _measure(self) -> None:
        if self._given is not None or self._calibration is not None:
            return
        from calibration.migration import migrate_scales

        assert self._wanted is not None  # whoever asks for INT8 has checked that there are pictures
        if self._wanted.migrate:
            peaks = self._run("measuring channels", min(self._wanted.images, PEAKS)).measured.peaks
            self._graph, report = migrate_scales(self._graph, peaks)
            say().print(
                f"scales moved into weights behind {len(report.migrated)} LayerNorms, with the same float numbers"
            )
        found = self._run("calibrating", self._wanted.images, self._evaluation())
        self._calibration = found
        for warning in found.warnings:
            say().print(warning, style="yellow")
        repeated = sum(one.reason == "repeated" for one in found.left_out)
        for one in found.left_out:
            if one.reason != "repeated":
                say().print(f"left out: {one.sentence}", style="yellow")
        also = f", {repeated} that show the same as others left out" if repeated else ""
        say().print(f"calibrated on {found.measured.ranges.images} pictures{also}")

    def _evaluation(self) -> Path | tuple[Path, ...] | None:
        """Return what the calibration pictures are compared with: those that judge, or a data set's test split."""
        from edge_lsla.data.folders import splits_of

        assert self._wanted is not None
        tested = self._wanted.data if "test" in splits_of(self._wanted.data) else None
        return self._wanted.exclude or tested

    def _run(self, title: str, images: int, evaluation: Path | tuple[Path, ...] | None = None) -> Calibration:
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
                CalibrationSettings(),
                lambda done, of: step(done, of, ""),
                evaluation=evaluation,
                exclude=wanted.exclude,
            )


def _form(backend: str) -> str:
    """Return whose Q/DQ a backend reads."""
    return "onnxruntime" if backend == "onnxruntime" else "tensorrt"
