"""Which pictures a model is calibrated on, and how they are streamed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.duplicates import Copies, SeenPictures, difference_hash
from calibration.likeness import BLANK_CONTRAST, Descriptions, describe
from edge_lsla.data.folders import load_split, splits_of
from edge_lsla.data.video_frames import find_videos, is_video, read_frames
from edge_lsla.errors import DatasetError, ImageError, SourceError
from edge_lsla.preprocessing import Preprocessing, find_pictures, to_pixels

SEED = 0
AHEAD = 16  # pictures that are decoded ahead


@dataclass(frozen=True)
class LeftOut:
    """A picture that is not calibrated on.

    Attributes:
        reason: "unreadable", "blank" or "repeated".
        sentence: says which and why.
    """

    reason: str
    sentence: str


class CalibrationPictures:
    """Up to `images` pictures of a data set, the same ones every time, as uint8 [S, S, 3], read while they are taken.

    Taken are: of a labelled data set its split, spread evenly over the classes; of any other folder all the pictures
    below it; of a video, or of a folder that holds videos and no pictures, frames spread evenly over each. A picture
    that cannot be read, that is blank, or that shows the same as one before it is left out, and the next one is taken
    in its place; from a video, none is.

    Args:
        data: a folder, a data set or a video; or files, in any order.
        images: how many at most.
        preprocessing: of the model.
        split: of a data set.
        exclude: files that are not taken, nor are copies of them.

    Attributes:
        expected: how many pictures will be taken at most.
        copies: how many were copies of excluded ones, and not these themselves; counted while they are taken.
        video: whether they are frames of videos.
        left_out: filled while they are taken.

    Raises:
        DatasetError: there is no picture, or something is wrong with the data set; while they are taken: none is left.
        ImageError: the folder cannot be read.
    """

    def __init__(
        self,
        data: Path | Sequence[Path],
        images: int,
        preprocessing: Preprocessing,
        split: str = "train",
        exclude: Collection[Path] = (),
    ) -> None:
        self._data, self._images, self._preprocessing = data, images, preprocessing
        files = _in_order(data, split) if isinstance(data, Path) else _shuffled(data)
        without = set(exclude)
        self._files = tuple(path for path in files if path not in without)
        self._excluded = Copies(without)
        self.copies = 0
        if not self._files:
            raise DatasetError("no picture is left to calibrate on", data, "give more pictures")
        self.video = is_video(self._files[0])
        self.expected = images if self.video else min(images, len(self._files))
        self.left_out: list[LeftOut] = []
        self._values: list[tuple[float, ...]] = []
        self._seen = SeenPictures()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        self.left_out, self._values, self._seen, self.copies = [], [], SeenPictures(), 0
        for name, found in self._frames() if self.video else self._pictures():
            if isinstance(found, (ImageError, SourceError)):
                self.left_out.append(LeftOut("unreadable", str(found)))
                continue
            if not self._fits(name, found):
                continue
            yield found
            if len(self._values) == self._images:
                return
        if not self._values:
            if not self.left_out:
                raise DatasetError("no picture is left to calibrate on", self._data, "give some that do not judge")
            blank = all(one.reason == "blank" for one in self.left_out)
            what = "all pictures to calibrate on are blank" if blank else "no picture to calibrate on can be read"
            first = "".join(one.sentence for one in self.left_out[:1])
            raise DatasetError(what, self._data, f"check the files (the first: {first})")

    def described(self) -> Descriptions:
        """Describe the pictures that were taken so far."""
        return Descriptions(np.array(self._values, np.float32), self._seen.hashes)

    def _fits(self, name: str, pixels: NDArray[np.uint8]) -> bool:
        described = describe(pixels)
        if described[1] < BLANK_CONTRAST:
            self.left_out.append(
                LeftOut("blank", f"picture is blank, grey level {described[0]:.0f}: {name}; remove it")
            )
            return False
        hashed = difference_hash(pixels)
        other = self._seen.find(hashed)
        if other is not None:
            self.left_out.append(LeftOut("repeated", f"picture shows the same as {other}: {name}; remove it"))
            return False
        self._values.append(described)
        self._seen.add(name, hashed)
        return True

    def _pictures(self) -> Iterator[tuple[str, NDArray[np.uint8] | ImageError]]:
        def pixels(path: Path) -> NDArray[np.uint8] | ImageError:
            try:
                return to_pixels(path, self._preprocessing)
            except ImageError as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            for start in range(0, len(self._files), AHEAD):
                given = self._files[start : start + AHEAD]
                some = [path for path in given if path not in self._excluded]
                self.copies += len(given) - len(some)
                yield from zip(map(str, some), pool.map(pixels, some))

    def _frames(self) -> Iterator[tuple[str, NDArray[np.uint8] | SourceError]]:
        each = -(-self._images // len(self._files))
        for video in self._files:
            try:
                for frame in read_frames(video, each):
                    yield f"{video} at {frame.seconds:.2f} s", to_pixels(frame.pixels, self._preprocessing)
            except SourceError as error:
                yield str(video), error


def choose_pictures(data: Path, images: int) -> tuple[Path, ...]:
    """Return the files of the first `images` pictures that calibration looks at, or the videos.

    Raises:
        DatasetError: there is no picture.
        ImageError: the folder cannot be read.
    """
    return _in_order(data, "train")[:images]


def _in_order(data: Path, split: str) -> tuple[Path, ...]:
    """List the pictures, or the videos, in the order in which they are looked at."""
    if is_video(data):
        return (data,)
    try:
        chosen = load_split(data, split)
        labelled = list(zip(chosen.labels, chosen.paths))
    except DatasetError:
        if splits_of(data):
            raise
        labelled = [(0, path) for path in find_pictures(data)]
    if not labelled:
        videos = find_videos(data)
        if not videos:
            raise DatasetError(
                "no picture to calibrate on", data, "give a folder of pictures or videos from the field, or one video"
            )
        return tuple(videos)
    by_class: dict[int, list[Path]] = defaultdict(list)
    for label, path in labelled:
        by_class[label].append(path)
    order = random.Random(SEED)
    for paths in by_class.values():
        order.shuffle(paths)
    return tuple(_in_turn([by_class[label] for label in sorted(by_class)]))


def _shuffled(files: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(random.Random(SEED).sample(files, len(files)))


def _in_turn(classes: Iterable[list[Path]]) -> Iterator[Path]:
    """Give the first of each class, then the second of each, and so on."""
    waiting = [iter(paths) for paths in classes]
    while waiting:
        left = []
        for one in waiting:
            path = next(one, None)
            if path is not None:
                yield path
                left.append(one)
        waiting = left
