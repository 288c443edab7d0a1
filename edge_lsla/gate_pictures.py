"""The pictures that search and judge, decoded once where they fit into memory."""

from __future__ import annotations

from collections import Counter, defaultdict
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
LEAST = 10  # pictures that judge: with fewer, one of them is more than ten points
WHY = {"blank": "blank", "repeated": "the same as another of their class"}


class Pictures:
    """Decoded pictures, kept where they fit into memory and read again where not.

    Those that cannot be read are named and left out. So are, counted only, those that are blank, and those that show
    the same as another of their class: copies would make the result look surer than it is.

    Args:
        side: which.
        preprocessing: of the model.

    Attributes:
        side: what is left of it.
        notes: sentences on what was left out.
    """

    def __init__(self, side: Side, preprocessing: Preprocessing) -> None:
        from calibration.duplicates import SeenPictures, difference_hash
        from calibration.likeness import is_blank
        from edge_lsla.preprocessing import to_pixels

        self._preprocessing = preprocessing
        self._kept: list[NDArray[np.uint8]] = []
        keep = len(side) * 3 * preprocessing.image_size**2 <= KEPT_BYTES
        seen: defaultdict[int, SeenPictures] = defaultdict(SeenPictures)
        left_out: Counter[str] = Counter()
        places = []
        for place, path in enumerate(side.paths):
            try:
                pixels = to_pixels(path, preprocessing)
            except ImageError as error:
                say().print(f"left out: {error}", style="yellow")
                continue
            of_class, hashed = seen[side.labels[place] if side.labels else 0], difference_hash(pixels)
            if is_blank(pixels) or of_class.find(hashed):
                left_out["blank" if is_blank(pixels) else "repeated"] += 1
                continue
            of_class.add(str(path), hashed)
            places.append(place)
            if keep:
                self._kept.append(pixels)
        self.side = select_pictures(side, places)
        self.notes = tuple(
            f"left out: {left_out[why]} of {len(side)} pictures, {words}" for why, words in WHY.items() if left_out[why]
        )

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


def divide_pictures(data: Path, labels: tuple[str, ...] | None, sources: str | None) -> Divided:
    """Take the pictures that search and judge from a data set.

    Args:
        data: with the model's classes, or without any.
        labels: class names of the model; None: not known yet, and whether they are those of the data is not checked.
        sources: see `calibration.splits.clusters_of`.

    Raises:
        DatasetError, UsageError: see `calibration.splits.divide`; or too few pictures would judge.
    """
    from calibration.splits import divide
    from edge_lsla.data.folders import splits_of

    if not data.is_dir():
        raise DatasetError("pictures that judge must lie in a folder", data, "give a data set with val and test")
    try:
        found = divide(data, labels, sources)
    except DatasetError:
        folders = (path.name.replace("_", " ") for path in data.iterdir() if path.is_dir())
        if splits_of(data) or any(name in (labels or ()) for name in folders):
            raise  # a data set, and something is wrong with it
        found = divide(data, None, sources, labelled=False)
    check_enough("judge", len(found.gate), LEAST)
    return found


def check_enough(what: str, count: int, least: int) -> None:
    """Refuse to do something with too few pictures.

    Raises:
        DatasetError: there are fewer than `least`.
    """
    if count < least:
        raise DatasetError(
            f"too few pictures to {what} with: {count} are left and at least {least} are needed",
            "--data",
            "give more pictures that differ from each other",
        )


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
