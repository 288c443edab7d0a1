"""From pictures to ranges, and to the few pictures that a bundle keeps."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.identity import DataDigest
from calibration.likeness import check_pictures, describe_pictures
from calibration.pictures import CalibrationPictures, LeftOut
from calibration.ranges import Measured, collect
from calibration.ranges_file import Ranges
from calibration.settings import CalibrationSettings
from edge_lsla.errors import DatasetError
from edge_lsla.preprocessing import Preprocessing, normalise

TRIAL = 128  # pictures kept to try quantised graphs on
COMPARED = 512  # evaluation pictures that calibration pictures are compared with


@dataclass(frozen=True)
class Calibration:
    """What measuring on pictures gave.

    Attributes:
        measured: ranges, histograms and peaks.
        left_out: pictures that were not run, and why.
        warnings: sentences on pictures that are few, alike, often repeated, or unlike the evaluation pictures.
        trial: up to 128 of the pictures, uint8 [K, S, S, 3]: the first, which are spread over the classes; of a video,
            whose first frames are alike, drawn at random, the same ones every time.
    """

    measured: Measured
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    trial: NDArray[np.uint8]


def measure_data(
    model: onnx.ModelProto,
    preprocessing: Preprocessing,
    data: Path,
    images: int,
    settings: CalibrationSettings,
    progress: Callable[[int, int], None],
    evaluation: Path | Sequence[Path] | None = None,
    exclude: Collection[Path] = (),
) -> Calibration:
    """Measure ranges on up to `images` pictures of a folder, data set or video; `progress` is told (done, of).

    Args:
        evaluation: pictures such as will come, or a data set, of which the test split is taken; the calibration
            pictures are compared with up to 512 of them that can be used.
        exclude: pictures that are not calibrated on, nor are copies of them.

    Raises:
        DatasetError: there is no picture that can be used.
        ImageError: a folder cannot be read.
        GraphError, RangesError, UsageError: see `calibration.ranges.collect`.
        MissingComponentError: a video, and PyAV is not installed.
    """
    pictures = CalibrationPictures(data, images, preprocessing, exclude=exclude)
    trial = _Trial(TRIAL, drawn=pictures.video)
    batches = (normalise(trial.add(pixels)[None], preprocessing) for pixels in pictures)
    measured = collect(model, batches, settings, lambda done: progress(done, pictures.expected))
    measured = dataclasses.replace(measured, ranges=dataclasses.replace(measured.ranges, requested=images))
    compared = None
    with contextlib.suppress(DatasetError):  # what is wrong with them is for those to say who judge with them
        if evaluation:
            compared = describe_pictures(CalibrationPictures(evaluation, COMPARED, preprocessing, "test"))
    warnings = check_pictures(pictures.described(), compared)
    if pictures.copies:
        warnings += (f"{pictures.copies} pictures are copies of some that judge, and were left out",)
    repeated = sum(one.reason == "repeated" for one in pictures.left_out)
    if repeated > measured.ranges.images:
        warnings += (
            f"{repeated} pictures show the same as others and were left out, {measured.ranges.images} remain; take "
            "them from more places and times",
        )
    return Calibration(measured, tuple(pictures.left_out), warnings, np.stack(trial.kept))


class _Trial:
    """The first pictures that it is given, or a random sample of all: Vitter 1985, algorithm R."""

    def __init__(self, most: int, drawn: bool) -> None:
        self.kept: list[NDArray[np.uint8]] = []
        self._most, self._drawn, self._seen, self._order = most, drawn, 0, random.Random(0)

    def add(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Consider a picture, and hand it back."""
        self._seen += 1
        if len(self.kept) < self._most:
            self.kept.append(pixels)
        elif self._drawn and (place := self._order.randrange(self._seen)) < self._most:
            self.kept[place] = pixels
        return pixels


def data_sha256(ranges: Ranges, preprocessing: Preprocessing, data: Path) -> str:
    """Return the digest that `ranges` would have if measured on `data`, for `Ranges.check`; the pictures are read.

    Raises:
        DatasetError, ImageError, MissingComponentError: see `measure_data`.
    """
    digest = DataDigest()
    for pixels in CalibrationPictures(data, ranges.requested or ranges.images, preprocessing):
        digest.update(normalise(pixels[None], preprocessing))
    return digest.hexdigest()


def golden_pixels(preprocessing: Preprocessing, data: Path | None, count: int) -> NDArray[np.uint8]:
    """Return the pictures of a golden set, uint8 [K, S, S, 3], K up to `count`.

    They are the first that calibration takes; without data, noise, which tells as well whether a device computes the
    same.

    Raises:
        DatasetError, ImageError, MissingComponentError: see `measure_data`.
    """
    if data is None:
        size = preprocessing.image_size
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return np.stack(list(islice(CalibrationPictures(data, count, preprocessing), count)))
