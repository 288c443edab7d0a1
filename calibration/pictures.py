"""Which pictures a model is calibrated on, and how they are streamed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_lsla.data.folders import load_split
from edge_lsla.errors import DatasetError, ImageError
from edge_lsla.preprocessing import Preprocessing, find_pictures, normalise, to_pixels

SEED = 0


def choose_pictures(data: Path, images: int) -> tuple[Path, ...]:
    """Take up to `images` pictures, the same ones every time, spread evenly over the classes where there are classes.

    A labelled data set gives its training split; any other folder all the pictures below it.

    Raises:
        DatasetError: the folder holds no picture.
        ImageError: the folder cannot be read.
    """
    try:
        split = load_split(data, "train")
        labelled = list(zip(split.labels, split.paths))
    except DatasetError:
        labelled = [(0, path) for path in find_pictures(data)]
    if not labelled:
        raise DatasetError("no picture to calibrate on", data, "give a folder of pictures from the field")
    by_class: dict[int, list[Path]] = defaultdict(list)
    for label, path in labelled:
        by_class[label].append(path)
    order = random.Random(SEED)
    for paths in by_class.values():
        order.shuffle(paths)
    turns = max(len(paths) for paths in by_class.values())
    spread = [
        by_class[label][turn] for turn in range(turns) for label in sorted(by_class) if turn < len(by_class[label])
    ]
    return tuple(spread[:images])


def stream(
    paths: tuple[Path, ...],
    preprocessing: Preprocessing,
    skipped: Callable[[ImageError], None],
) -> Iterator[NDArray[np.float32]]:
    """Yield each picture as float32 [1, 3, S, S]; one that cannot be read is handed to `skipped`.

    Raises:
        DatasetError: none of them can be read.
    """
    read = 0

    def pixels(path: Path) -> NDArray[np.uint8] | ImageError:
        try:
            return to_pixels(path, preprocessing)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(paths), 16):  # a bounded number is decoded ahead
            for result in pool.map(pixels, paths[start : start + 16]):
                if isinstance(result, ImageError):
                    skipped(result)
                else:
                    read += 1
                    yield normalise(result[None], preprocessing)
    if not read:
        raise DatasetError("none of the pictures to calibrate on can be read", paths[0].parent, "check the files")
