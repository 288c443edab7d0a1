"""From a folder of pictures to ranges, and to the few pictures that a bundle keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.pictures import choose_pictures, stream
from calibration.ranges import collect_ranges
from calibration.ranges_file import Ranges
from calibration.settings import CalibrationSettings
from edge_lsla.errors import DatasetError, ImageError
from edge_lsla.preprocessing import Preprocessing, to_pixels


def measure_folder(
    model: onnx.ModelProto,
    preprocessing: Preprocessing,
    data: Path,
    images: int,
    settings: CalibrationSettings,
    progress: Callable[[int, int], None],
) -> tuple[Ranges, tuple[ImageError, ...]]:
    """Measure ranges on up to `images` pictures of a folder; `progress` is told (done, of).

    Returns:
        The ranges, and an error for each picture that could not be read and was left out.

    Raises:
        DatasetError: the folder holds no picture that can be read.
        GraphError, RangesError, UsageError: see `collect_ranges`.
    """
    paths = choose_pictures(data, images)
    skipped: list[ImageError] = []
    batches = stream(paths, preprocessing, skipped.append)
    ranges = collect_ranges(model, batches, settings, lambda done: progress(done, len(paths)))
    return ranges, tuple(skipped)


def golden_pixels(preprocessing: Preprocessing, data: Path | None, count: int) -> NDArray[np.uint8]:
    """Return the pictures of a golden set, uint8 [K, S, S, 3], K up to `count`.

    They are the first that calibration takes; without a folder, noise, which tells as well whether a device computes
    the same.

    Raises:
        DatasetError: no picture of the folder can be read.
    """
    if data is None:
        size = preprocessing.image_size
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    pixels: list[NDArray[np.uint8]] = []
    for path in choose_pictures(data, 4 * count):
        try:
            pixels.append(to_pixels(path, preprocessing))
        except ImageError:
            continue  # measuring ranges says which pictures cannot be read
        if len(pixels) == count:
            break
    if not pixels:
        raise DatasetError("no picture to calibrate on can be read", data, "check the files")
    return np.stack(pixels)
