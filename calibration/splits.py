"""Pictures to search with and pictures to judge with, never of one artwork or source on both sides."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calibration.report.wording import plain
from edge_lsla.data.folders import PictureSet, load_split, splits_of
from edge_lsla.errors import DatasetError, UsageError
from edge_lsla.preprocessing import find_pictures

NUMBER = re.compile(r"[\s_.()-]*\d+\)?$")  # a running number, with what separates it


@dataclass(frozen=True)
class Side:
    """Pictures for one purpose.

    Attributes:
        paths: one file a picture.
        labels: class indices; None where the folder has no classes. Then agreement with float stands for top-1.
        clusters: what each picture was made from; pictures of one cluster are not independent.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    clusters: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Divided:
    """A data set for search and gate.

    Attributes:
        search, gate: the two sides.
        classes: class names by label; empty without labels.
        notes: sentences on how it was divided and what to beware of.
        shared: sources of the pictures that judge, of which others are searched with or calibrated on.
    """

    search: Side
    gate: Side
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    shared: frozenset[str] = frozenset()


def divide(
    data: Path, classes: tuple[str, ...] | None = None, pattern: str | None = None, labelled: bool = True
) -> Divided:
    """Take the pictures to search with and those to judge with from a data set.

    A data set with `val` and `test` gives the one to search and the other to judge. One with only one of them, one
    without splits, and a folder of pictures without classes are divided by cluster: in each class, clusters in the
    order of their hashes go to the side that has fewer pictures. The same names give the same sides, wherever the data
    set lies.

    Args:
        data: a data set in a layout of `edge_lsla.data.folders`, or a folder of pictures.
        classes: the model's class names, whose order the labels take.
        pattern: see `clusters_of`.
        labelled: False takes all pictures below the folder as pictures without classes.

    Raises:
        DatasetError: no pictures, only training pictures, other classes than the model's, or too few sources to divide.
        UsageError: see `clusters_of`.
    """
    present = splits_of(data)
    if present == ("train",):
        raise DatasetError("the data set has only training pictures", data, "add val and test, or give another folder")
    has_classes = labelled and data.is_dir() and any(p.is_dir() and not p.name.startswith(".") for p in data.iterdir())
    if labelled and (present or has_classes):
        if {"val", "test"} <= set(present):
            found = _of_two(_load(data, "val", classes), _load(data, "test", classes), pattern)
        else:
            only = "test" if "test" in present else "val"
            pictures = _load(data, only, classes)
            where = f"only {only}" if pictures.divided else "no splits"
            found = _of_one(pictures.paths, pictures.labels, pictures.classes, pattern, data, where)
        return beside(found, load_split(data, "train").paths, pattern) if "train" in present else found
    return _of_one(tuple(find_pictures(data)), None, (), pattern, data, "no splits and no classes")


def beside(divided: Divided, calibrated: Sequence[Path], pattern: str | None = None) -> Divided:
    """Note which sources of the pictures that judge are among the files to calibrate on, too.

    Args:
        divided: a data set.
        calibrated: files; those that judge do not count.
        pattern: see `clusters_of`.
    """
    shared = _shared(divided.gate.paths, calibrated, pattern)
    if not shared:
        return divided
    note = f"{_name(shared)} both among the pictures that judge and among those to calibrate on"
    return replace(divided, notes=(*divided.notes, note), shared=divided.shared | shared)


def _shared(judging: Sequence[Path], others: Sequence[Path], pattern: str | None) -> frozenset[str]:
    """Return the sources that both have pictures of, so far as names tell: one picture alone has its folder's name."""
    left = sorted(set(others) - set(judging))
    clusters, _ = clusters_of([*judging, *left], pattern)
    both = set(clusters[: len(judging)]) & set(clusters[len(judging) :])
    return frozenset(name for name in both if "/" not in name)


def _name(shared: frozenset[str]) -> str:
    first, count = plain(min(shared)), len(shared)
    return f"1 source, {first}, has pictures" if count == 1 else f"{count} sources, such as {first}, have pictures"


def check_pattern(pattern: str | None) -> None:
    """Refuse a pattern that `clusters_of` could not use.

    Raises:
        UsageError: it is not a regular expression with one group.
    """
    if pattern is not None:
        _compiled(pattern)


def clusters_of(paths: Sequence[Path], pattern: str | None = None) -> tuple[tuple[str, ...], str | None]:
    """Name the cluster of each picture from its file name, and say what was done where that needs saying.

    By default the name without its ending and its last running number: `fluent-emoji_ant_0001.jpg` is of
    `fluent-emoji_ant`, frame `walk3-0117.png` of `walk3`. Where that tells no more than the folders do (`IMG_0001.jpg`,
    or `ant_0001.jpg` below `ant`), every picture counts as independent.

    Args:
        paths: pictures.
        pattern: a regular expression with one group, searched in the file name; the group is the cluster. A picture
            that it does not fit is a cluster of its own.

    Raises:
        UsageError: the pattern is not a regular expression with one group, or fits no picture.
    """
    if pattern is not None:
        expression = _compiled(pattern)
        found = [expression.search(path.name) for path in paths]
        if not any(found):
            raise UsageError("no picture's name fits", pattern, "correct the regular expression")
        alone = sum(match is None for match in found)
        named = tuple(m[1] or "" if m else f"{p.parent.name}/{p.name}" for m, p in zip(found, paths))
        return named, f"{alone} pictures fit no source and count as independent" if alone else None
    named = tuple(NUMBER.sub("", path.stem) or f"{path.parent.name}/{path.stem}" for path in paths)
    if len(set(named)) <= len({path.parent for path in paths}) < len(paths):
        return tuple(f"{path.parent.name}/{path.name}" for path in paths), (
            "file names tell no source, so every picture counts as independent, which frames of one video are not; "
            "a regular expression can tell the source"
        )
    return named, None


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"not a regular expression ({error})", pattern, "correct it") from error
    if expression.groups != 1:
        raise UsageError(f"regular expression has {expression.groups} groups", pattern, "give one group, the source")
    return expression


def _load(data: Path, split: str, classes: tuple[str, ...] | None) -> PictureSet:
    pictures = load_split(data, split)
    return pictures if classes is None else pictures.ordered_as(classes)


def _of_two(val: PictureSet, test: PictureSet, pattern: str | None) -> Divided:
    if val.classes != test.classes:
        raise DatasetError("val and test differ in their classes", "data set", "give classes.txt, or the same folders")
    sides, notes = [], ["val is searched with and test is judged with"]
    for name, pictures in (("val", val), ("test", test)):
        clusters, note = clusters_of(pictures.paths, pattern)
        sides.append(Side(pictures.paths, pictures.labels, clusters))
        notes += [f"{name}: {note}"] if note else []
    shared = _shared(test.paths, val.paths, pattern)
    notes += [f"{_name(shared)} in both val and test"] if shared else []
    return Divided(sides[0], sides[1], val.classes, tuple(notes), shared)


def _of_one(
    paths: tuple[Path, ...],
    labels: tuple[int, ...] | None,
    classes: tuple[str, ...],
    pattern: str | None,
    data: Path,
    where: str,
) -> Divided:
    if not paths:
        raise DatasetError("no picture found", data, "give a folder of pictures")
    clusters, note = clusters_of(paths, pattern)
    to_gate = _chosen_for_gate(clusters, labels or (0,) * len(paths))
    sides = []
    for wanted in (False, True):
        places = [i for i, cluster in enumerate(clusters) if (cluster in to_gate) == wanted]
        if not places:
            raise DatasetError(
                f"all {len(paths)} pictures are of one source, and a source cannot be searched and judged with both",
                data,
                "give pictures of more sources, or name sources by a regular expression",
            )
        sides.append(
            Side(
                tuple(paths[i] for i in places),
                None if labels is None else tuple(labels[i] for i in places),
                tuple(clusters[i] for i in places),
            )
        )
    notes = [
        f"the data set has {where}: it was divided by source into {len(sides[0])} pictures to search with and "
        f"{len(sides[1])} to judge with"
    ]
    notes += [note] if note else []
    if labels is None:
        notes.append("there are no labels: agreement with the float model stands for top-1, and each flip is a loss")
    else:
        absent = sum(1 for side in sides for label in set(labels) if label not in (side.labels or ()))
        notes += [f"{absent} times a class is on one side only, for its pictures are of one source"] if absent else []
    return Divided(sides[0], sides[1], classes, tuple(notes))


def _chosen_for_gate(clusters: tuple[str, ...], labels: tuple[int, ...]) -> set[str]:
    sizes: dict[str, int] = {}
    label_of: dict[str, int] = {}
    for cluster, label in zip(clusters, labels):
        sizes[cluster] = sizes.get(cluster, 0) + 1
        label_of[cluster] = min(label_of.get(cluster, label), label)
    ordered = sorted(sizes, key=lambda name: (label_of[name], hashlib.sha256(name.encode()).hexdigest()))
    gate: set[str] = set()
    balance: dict[int, int] = {}  # pictures at the gate less those of the search, by class
    for cluster in ordered:
        label = label_of[cluster]
        here, over_all = balance.get(label, 0), sum(balance.values())
        sign = 1 if (here, over_all) <= (0, 0) else -1
        balance[label] = here + sign * sizes[cluster]
        gate |= {cluster} if sign > 0 else set()
    return gate
