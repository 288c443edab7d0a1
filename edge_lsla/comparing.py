"""Any two forms of a classifier side by side on a folder's pictures: what the verb `compare` does.

Composes stages: it uses `calibration`, which no installed wheel has.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla.errors import DatasetError, ImageError, UsageError
from edge_lsla.forms import DEFAULT_OPSET, Form, OpenedForm, open_form

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration.compare import CompareSettings
    from calibration.comparison import Comparison
    from edge_lsla.preprocessing import Preprocessing

IMAGES = 64


@dataclass(frozen=True)
class FormsCompared:
    """What came out, and on which pictures.

    Attributes:
        first, second: of each its path, kind ("checkpoint", "onnx" or "bundle"), name and precision.
        comparison: the numbers.
        worst: the pictures of `comparison.worst`, with the names of the classes that the two gave.
        skipped: pictures that cannot be read, an error each.
        notes: what a reader of the numbers must know.
    """

    first: dict[str, str]
    second: dict[str, str]
    comparison: Comparison
    worst: tuple[tuple[Path, str, str], ...]
    skipped: tuple[ImageError, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        fields = self.comparison.to_dict()
        worst = [
            {**entry, "path": str(path), "first": first, "second": second}
            for entry, (path, first, second) in zip(fields["worst"], self.worst)
        ]
        skipped = [str(error) for error in self.skipped]
        more = {"worst": worst, "skipped": skipped, "notes": list(self.notes)}
        return {"first": self.first, "second": self.second, **fields, **more}


def compare_forms(
    first: Form,
    second: Form,
    data: Path,
    *,
    images: int = IMAGES,
    split: str = "test",
    settings: CompareSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FormsCompared:
    """Compare two forms of a classifier on up to `images` pictures of a folder; the first is the reference.

    Both get the first's preprocessing. `progress` is told (done, of).

    Raises:
        UsageError: the two differ in image size or number of classes, or there is no such split.
        DatasetError: the folder holds no picture that can be read, or something is wrong with the data set.
        InputError, GateError, MissingComponentError: a form cannot be opened; see what opens it.
    """
    from calibration.compare import compare

    paths = choose_pictures(data, split, images)
    with contextlib.ExitStack() as stack:
        alike = first.path.name == second.path.name
        opened = open_form(first, stack, whole_path=alike), open_form(second, stack, whole_path=alike)
        _refuse_unlike(*opened)
        opset = next((one.opset for one in opened if one.opset), DEFAULT_OPSET)
        sides = opened[0].side(opset), opened[1].side(opset)
        used: list[Path] = []
        skipped: list[ImageError] = []
        batches = itertools.islice(_stream(paths, opened[0].preprocessing, used, skipped), images)
        count = min(images, len(paths))

        def step(_: int) -> None:
            if progress is not None:
                progress(len(used), count)

        try:
            comparison = compare(*sides, batches, step, settings)
        except DatasetError as error:
            if used or not skipped:
                raise
            raise DatasetError("none of the pictures can be read", data, f"check the files ({skipped[0]})") from error
    labels = [one.labels for one in opened]
    worst = tuple(
        (used[one.index], _label(labels[0], one.first), _label(labels[1], one.second)) for one in comparison.worst
    )
    facts = [
        {"path": str(one.form.path), "kind": one.kind, "name": side.name, "precision": side.precision}
        for one, side in zip(opened, sides)
    ]
    notes = (*_differences(*opened, comparison), *comparison.notes)
    return FormsCompared(facts[0], facts[1], comparison, worst, tuple(skipped), notes)


def choose_pictures(data: Path, split: str, images: int) -> tuple[Path, ...]:
    """Order the pictures of a split of a data set, or of any folder: first `images`, evenly spread, then the others.

    Raises:
        UsageError: no such split.
        DatasetError: the folder holds no picture, or something is wrong with the data set.
        ImageError: the folder cannot be read.
    """
    from edge_lsla.data.folders import SPLITS, load_split, splits_of
    from edge_lsla.preprocessing import find_pictures

    if images < 1:
        raise UsageError("at least one picture is needed", "images", "give 1 or more")
    if split not in SPLITS:
        raise UsageError(f"no such split {split!r}", "--split", f"use {', '.join(SPLITS)}")
    try:
        paths = load_split(data, split).paths
    except DatasetError:
        if splits_of(data):
            raise
        paths = tuple(find_pictures(data))
    if not paths:
        raise DatasetError("no picture to compare on", data, "give a folder of pictures")
    count = min(images, len(paths))
    first = [number * len(paths) // count for number in range(count)]
    return tuple(paths[number] for number in (*first, *sorted(set(range(len(paths))) - set(first))))


def _refuse_unlike(first: OpenedForm, second: OpenedForm) -> None:
    for what, sizes, remedy in (
        ("input sizes", [one.preprocessing.image_size for one in (first, second)], "compare forms of one model"),
        ("numbers of classes", [len(one.labels) for one in (first, second)], "compare models of the same classes"),
    ):
        if sizes[0] != sizes[1]:
            where = f"{first.form.path} has {sizes[0]}, {second.form.path} has {sizes[1]}"
            raise UsageError(f"the two differ in their {what}", where, remedy)


def _differences(first: OpenedForm, second: OpenedForm, comparison: Comparison) -> Iterator[str]:
    """Say what else the two differ in, a sentence each."""
    if first.preprocessing != second.preprocessing:
        yield f"the two were made for different preprocessing; both got that of {first.name}"
    if first.labels != second.labels:
        yield "the two call their classes by different names; the order of the logits counts here"
    if first.checkpoint and second.checkpoint and first.checkpoint != second.checkpoint:
        yield "the two were made from different checkpoints"
    if first.torch and second.torch and first.torch != second.torch:
        yield f"tensors were named by {first.torch} and {second.torch}, and a name may mean another tensor there"
    if comparison.other_shape:
        yield f"left out, because their shapes differ: {', '.join(comparison.other_shape)}"


def _stream(
    paths: tuple[Path, ...], preprocessing: Preprocessing, used: list[Path], skipped: list[ImageError]
) -> Iterator[NDArray[np.float32]]:
    """Yield each picture as float32 [1, 3, S, S]: a batch of one takes least memory, and every graph takes it."""
    from edge_lsla.preprocessing import to_tensor

    for path in paths:
        try:
            image = to_tensor(path, preprocessing)
        except ImageError as error:
            skipped.append(error)
            continue
        used.append(path)
        yield image[None]


def _label(labels: tuple[str, ...], index: int | None) -> str:
    return "no class" if index is None else labels[index]
