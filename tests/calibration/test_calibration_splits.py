"""Search and gate pictures: which, and never of one source on both sides."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from calibration.splits import Divided, clusters_of, divide
from edge_lsla.errors import DatasetError, UsageError

HELDOUT = Path(__file__).parents[2] / "demo" / "heldout"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(found: Divided) -> tuple[list[str], list[str]]:
    return [p.name for p in found.search.paths], [p.name for p in found.gate.paths]


def test_divided_data_set_searches_with_val_and_judges_with_test(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}/{a}_{c}_{i}.jpg" for s, a in (("train", "x"), ("val", "x"), ("test", "y"))
                      for c in ("ant", "bee") for i in range(3)))  # fmt: skip
    found = divide(tmp_path, ("bee", "ant"))
    assert {p.parent.parent.name for p in found.search.paths} == {"val"}
    assert {p.parent.parent.name for p in found.gate.paths} == {"test"}
    assert found.gate.labels == (1, 1, 1, 0, 0, 0)  # ants come first in the folder, bees in the model
    assert not any("both" in note for note in found.notes)
    touch(tmp_path, "val/ant/z_1.jpg", "test/ant/z_2.jpg", "val/ant/v_1.jpg", "test/ant/w_1.jpg")
    assert any(note == "1 source, z, has pictures in both val and test" for note in divide(tmp_path).notes)


def test_undivided_demo_pictures_are_divided_by_artwork(tmp_path: Path) -> None:
    found = divide(HELDOUT)
    assert len(found.search) == len(found.gate) == 210
    assert not set(found.search.clusters) & set(found.gate.clusters)
    assert set(found.search.labels or ()) == set(found.gate.labels or ()) == set(range(14))
    assert len(set(found.search.clusters)) == 14
    assert "fluent-emoji_ant" in {*found.search.clusters, *found.gate.clusters}
    shutil.copytree(HELDOUT, tmp_path / "moved")
    assert names(divide(tmp_path / "moved")) == names(found)


def test_only_one_split_is_divided(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/ant/{a}_{i}.jpg" for s in ("train", "val") for a in "abcd" for i in range(5)))
    found = divide(tmp_path)
    assert len(found.search) == len(found.gate) == 10
    assert {p.parent.parent.name for p in (*found.search.paths, *found.gate.paths)} == {"val"}
    assert "only val" in found.notes[0]


def test_pictures_without_classes_have_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"walk{w}-{i:04d}.png" for w in range(6) for i in range(9)))
    found = divide(tmp_path)
    assert found.search.labels is found.gate.labels is None
    assert len(found.search) == len(found.gate) == 27
    assert not set(found.search.clusters) & set(found.gate.clusters)
    assert any("agreement with the float model stands for top-1" in note for note in found.notes)
    inside = touch(tmp_path / "days", "monday/a_1.png", "tuesday/b_1.png", "tuesday/c_1.png", "monday/d_1.png")
    assert divide(inside, labelled=False).gate.labels is None


def test_a_source_in_two_classes_stays_on_one_side(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{a}_{i}.jpg" for c in ("ant", "bee") for a in ("both", c, f"{c}s") for i in range(4)))
    found = divide(tmp_path)
    assert not set(found.search.clusters) & set(found.gate.clusters)
    assert {found.search.clusters.count("both"), found.gate.clusters.count("both")} == {0, 8}


def test_names_tell_the_source(tmp_path: Path) -> None:
    given = {
        "fluent-emoji_ant_0001.jpg": "fluent-emoji_ant",
        "walk3-0117.png": "walk3",
        "leaf (12).jpg": "leaf",
        "plain.jpg": "plain",
        "00017.jpg": "c/00017",
    }
    found, note = clusters_of([tmp_path / "c" / name for name in given])
    assert found == tuple(given.values())
    assert note is None


def test_camera_names_tell_nothing(tmp_path: Path) -> None:
    found, note = clusters_of([tmp_path / c / f"IMG_{i:04d}.jpg" for c in ("ant", "bee") for i in range(5)])
    assert len(set(found)) == 10
    assert note is not None
    assert "file names tell no source" in note


def test_a_regular_expression_tells_the_source(tmp_path: Path) -> None:
    paths = [tmp_path / "ant" / name for name in ("trap7_1.jpg", "trap7_2.jpg", "trap8_1.jpg", "other.jpg")]
    found, note = clusters_of(paths, r"^(trap\d+)_")
    assert found == ("trap7", "trap7", "trap8", "ant/other.jpg")
    assert note is not None
    assert "1 pictures fit no source" in note
    for pattern, why in (("(", "not a regular expression"), ("trap", "0 groups"), ("(a)(b)", "2 groups")):
        with pytest.raises(UsageError, match=why):
            clusters_of(paths, pattern)
    with pytest.raises(UsageError, match="no picture's name fits"):
        clusters_of(paths, "(bee)")


def test_what_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="only training pictures"):
        divide(touch(tmp_path / "a", "train/ant/x_1.jpg"))
    one = touch(tmp_path / "b", "ant/x_1.jpg", "ant/x_2.jpg")
    with pytest.raises(DatasetError, match="all 2 pictures are of one source"):
        divide(one, pattern="^(x)_")
    with pytest.raises(DatasetError, match="no picture found"):
        divide(touch(tmp_path / "c", "readme.txt"))
    with pytest.raises(DatasetError, match="differ in their classes"):
        divide(touch(tmp_path / "d", "ant/x_1.jpg", "bee/y_1.jpg"), ("ant", "wasp"))
