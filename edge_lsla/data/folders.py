"""Data sets on disk: the official IP102 classification layout, and a folder per class; no torch."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import DatasetError
from edge_lsla.preprocessing import IMAGE_SUFFIXES, find_pictures
from edge_lsla.reading import read_text

SPLITS = ("train", "val", "test")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # lone surrogates stand for bytes that are no text


@dataclass(frozen=True)
class PictureSet:
    """Labelled pictures.

    Attributes:
        paths: one file a picture, in a fixed order.
        labels: the class index of each picture.
        classes: class names, by index.
        divided: False where the data set has no splits, so that any split asked for is all of it.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    divided: bool = True

    def __len__(self) -> int:
        return len(self.paths)

    def matching(self, pattern: str) -> PictureSet:
        """Return the pictures whose file name fits a shell pattern.

        Raises:
            DatasetError: none does.
        """
        kept = [(p, label) for p, label in zip(self.paths, self.labels) if fnmatch.fnmatch(p.name, pattern)]
        if not kept:
            raise DatasetError("no picture's name fits", pattern, "correct the pattern")
        paths, labels = tuple(p for p, _ in kept), tuple(label for _, label in kept)
        return dataclasses.replace(self, paths=paths, labels=labels)

    def ordered_as(self, classes: tuple[str, ...]) -> PictureSet:
        """Return the same pictures, labelled by their class's place in another order of the same names.

        Raises:
            DatasetError: a name is missing on either side.
        """
        only_here, only_there = sorted(set(self.classes) - set(classes)), sorted(set(classes) - set(self.classes))
        if only_here or only_there:
            parts = [f"only in the {side}: {', '.join(names[:6])}" for names, side in
                     ((only_here, "data set"), (only_there, "bundle")) if names]  # fmt: skip
            raise DatasetError(
                "data set and bundle differ in their classes", "; ".join(parts), "give both the same names"
            )
        place = {name: index for index, name in enumerate(classes)}
        labels = tuple(place[self.classes[label]] for label in self.labels)
        return dataclasses.replace(self, labels=labels, classes=classes)

    def digest(self) -> str:
        """Return a SHA-256 over names, labels and classes, hexadecimal; the folder may have moved."""
        rows = [(path.parent.name, path.name, label) for path, label in zip(self.paths, self.labels)]
        return hashlib.sha256(json.dumps([self.classes, rows]).encode()).hexdigest()


def splits_of(root: Path) -> tuple[str, ...]:
    """Name the splits that a folder has, as folders or as lists; none: it is not divided, or no data set."""
    return tuple(name for name in SPLITS if (root / name).is_dir() or (root / f"{name}.txt").is_file())


def load_split(root: Path, split: str) -> PictureSet:
    """Read one split of a data set.

    Known layouts: IP102's (`images/`, `train.txt`, `val.txt`, `test.txt` with "name label" lines, `classes.txt`), and
    a folder per class, below `root/<split>` where that exists, else below `root` itself, which is then not divided.

    Raises:
        DatasetError: the folder is missing, empty, or in no layout known here; a list names a missing picture or an
            impossible label.
    """
    if not root.is_dir():
        raise DatasetError("no such data set folder", root, "check the path")
    if (root / f"{split}.txt").is_file() and (root / "images").is_dir():
        return _ip102(root, split)
    if any((root / f"{name}.txt").is_file() for name in SPLITS) and (root / "images").is_dir():
        raise DatasetError(f"the data set has no {split}.txt", root, "choose another split")
    folder = root / split
    if not folder.is_dir():
        if any((root / name).is_dir() for name in SPLITS):
            raise DatasetError(f"the data set has no folder {split}", root, "choose another split")
        folder = root
    return _folder_per_class(folder, root)


def _folder_per_class(folder: Path, root: Path) -> PictureSet:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DatasetError("no folder per class found", folder, "make one folder for each class, or use IP102's layout")
    classes = tuple(name.replace("_", " ") for name in names)
    _check_names(classes, folder)
    listed = root / "classes.txt"
    if listed.is_file():
        classes = read_classes(listed)
    folder_of = {name.replace("_", " "): name for name in names}
    unknown = sorted(set(folder_of) - set(classes))
    if unknown:
        raise DatasetError(f"folder {unknown[0]!r} is not in classes.txt", folder, "rename it or correct classes.txt")
    paths: list[Path] = []
    labels: list[int] = []
    for index, name in enumerate(classes):
        if name in folder_of:
            found = find_pictures(folder / folder_of[name])
            paths += found
            labels += [index] * len(found)
    if not paths:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DatasetError("no picture found", folder, f"the files must end in {suffixes}")
    return PictureSet(tuple(paths), tuple(labels), classes, divided=folder != root)


def read_classes(path: Path) -> tuple[str, ...]:
    """Read one class name a line; a leading running number, as in IP102's classes.txt, is dropped.

    Raises:
        DatasetError: the file is unreadable, empty, or names a class twice.
    """
    lines = [line.strip() for line in read_text(path, "class list", DatasetError).splitlines() if line.strip()]
    numbered = [re.fullmatch(r"(\d+)[\s,:.]+(.+)", line) for line in lines]
    if all(numbered) and [m[1] for m in numbered if m] == [str(n) for n in range(1, len(lines) + 1)]:
        lines = [m[2].strip() for m in numbered if m]
    if not lines or len(set(lines)) != len(lines):
        raise DatasetError("class list is empty or names a class twice", path, "correct it")
    _check_names(lines, path)
    return tuple(lines)


def _check_names(names: Iterable[str], where: Path) -> None:
    """Refuse names that no bundle could hold."""
    for name in names:
        if CONTROL.search(name):
            raise DatasetError(f"class name {name!a} has a control character", where, "rename the class")


def _ip102(root: Path, split: str) -> PictureSet:
    listing = root / f"{split}.txt"
    paths: list[Path] = []
    labels: list[int] = []
    lines = read_text(listing, "list", DatasetError).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not re.fullmatch("[0-9]{1,6}", label):
            raise DatasetError("line is not 'name label'", f"{listing}:{number}", "correct it")
        path = root / "images" / name.strip()
        if Path(name.strip()).is_absolute() or ".." in Path(name.strip()).parts:
            raise DatasetError("picture lies outside images/", f"{listing}:{number}", "correct it")
        if not path.is_file():
            raise DatasetError(f"picture {name} is missing from images/", f"{listing}:{number}", "fetch it again")
        paths.append(path)
        labels.append(int(label))
    if not paths:
        raise DatasetError("list is empty", listing, "choose another split")
    if (root / "classes.txt").is_file():
        classes = read_classes(root / "classes.txt")
    else:
        classes = tuple(f"class {i}" for i in range(max(labels) + 1))
    if max(labels) >= len(classes):
        raise DatasetError(f"label {max(labels)} but only {len(classes)} classes", listing, "correct classes.txt")
    return PictureSet(tuple(paths), tuple(labels), classes)
