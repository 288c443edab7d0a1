"""The pictures that search and judge, decoded once where they fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lsla.console import say
from edge_lsla.errors import DatasetError, ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration.splits import Divided, Side
    from edge_lsla.preprocessing import Preprocessing

KEPT_BYTES = 2**30  # of decoded pictures that stay in memory


class Pictures:
    """Decoded pictures, kept where they fit into memory and read again where not.

    Args:
        side: which; those that cannot be read are named and left out.
        preprocessing: of the model.
    """

    def __init__(self, side: Side, preprocessing: Preprocessing) -> None:
        from edge_lsla.preprocessing import to_pixels

        self._preprocessing = preprocessing
        self._kept: list[NDArray[np.uint8]] = []
        keep = len(side) * 3 * preprocessing.image_size**2 <= KEPT_BYTES
        places = []
        for place, path in enumerate(side.paths):
            try:
                pixels = to_pixels(path, preprocessing)
            except ImageError as error:
                say().print(f"left out: {error}", style="yellow")
                continue
            places.append(place)
            if keep:
                self._kept.append(pixels)
        self.side = select_pictures(side, places)

    def __len__(self) -> int:
        return len(self.side)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield each as float32 [1, 3, S, S], normalised."""
        from edge_lsla.preprocessing import normalise, to_tensor

        if self._kept:
            for pixels in self._kept:
                yield normalise(pixels[None], self._preprocessing)
        else:
            for path in self.side.paths:
                yield to_tensor(path, self._preprocessing)[None]


def divide_pictures(data: Path, labels: tuple[str, ...], sources: str | None) -> Divided:
    """Take the pictures that search and judge from a data set.

    Args:
        data: with the model's classes, or without any.
        labels: class names of the model.
        sources: see `calibration.splits.clusters_of`.

    Raises:
        DatasetError, UsageError: see `calibration.splits.divide`.
    """
    from calibration.splits import divide

    try:
        return divide(data, labels, sources)
    except DatasetError:
        if any(path.is_dir() and path.name in labels for path in data.iterdir()):
            raise  # classes, and other ones than the model's
        return divide(data, None, sources, labelled=False)


def first_pictures(side: Side, most: int | None) -> Side:
    """Return at most `most` pictures, spread evenly over the side."""
    if most is None or len(side) <= most:
        return side
    return select_pictures(side, [index * len(side) // most for index in range(most)])


def select_pictures(side: Side, places: Sequence[int]) -> Side:
    """Return the pictures at these places."""
    from calibration.splits import Side as Pick

    return Pick(
        tuple(side.paths[place] for place in places),
        None if side.labels is None else tuple(side.labels[place] for place in places),
        tuple(side.clusters[place] for place in places),
    )
