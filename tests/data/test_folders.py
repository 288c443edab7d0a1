from __future__ import annotations

from pathlib import Path

import pytest

from edge_lsla.data.folders import load_split, read_classes
from edge_lsla.errors import DatasetError


def make_ip102(root: Path) -> Path:
    """Lay out three pictures of two classes as IP102's archive does."""
    (root / "images").mkdir()
    for name in ("00001.jpg", "00002.jpg", "a b.jpg"):
        (root / "images" / name).touch()
    (root / "train.txt").write_text("00001.jpg 0\na b.jpg 1\n")
    (root / "val.txt").write_text("00002.jpg 1\n")
    (root / "classes.txt").write_text("1     rice leaf roller                         \n2     corn borer \n")
    return root


def test_the_official_layout(tmp_path: Path) -> None:
    train = load_split(make_ip102(tmp_path), "train")
    assert [p.name for p in train.paths] == ["00001.jpg", "a b.jpg"]
    assert train.labels == (0, 1)
    assert train.classes == ("rice leaf roller", "corn borer")
    assert load_split(tmp_path, "val").labels == (1,)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train.txt", "00001.jpg\n", r"train.txt:1; correct"),
        ("train.txt", "00001.jpg 0\n00001.jpg x\n", r"train.txt:2"),
        ("train.txt", "no.jpg 0\n", "no.jpg is missing"),
        ("train.txt", "../classes.txt 0\n", "outside"),
        ("train.txt", "00001.jpg 7\n", "label 7 but only 2 classes"),
        ("train.txt", "\n", "list is empty"),
        ("classes.txt", "a\na\n", "twice"),
    ],
)
def test_mistakes_in_lists_are_told_with_their_line(tmp_path: Path, file: str, text: str, message: str) -> None:
    make_ip102(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_split(tmp_path, "train")


def test_a_missing_split_is_told(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(DatasetError, match=r"no test\.txt"):
        load_split(make_ip102(tmp_path), "test")
    with pytest.raises(DatasetError, match="no folder photos"):
        load_split(pictures, "photos")
    with pytest.raises(DatasetError, match="no such data set"):
        load_split(tmp_path / "no", "test")


def test_a_folder_per_class(tmp_path: Path) -> None:
    for name in ("lady_beetle/1.png", "ant/2.JPG", "ant/notes.txt", ".git/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = load_split(tmp_path, "val")
    assert found.classes == ("ant", "lady beetle")
    assert [p.name for p in found.paths] == ["2.JPG", "1.png"]
    (tmp_path / "classes.txt").write_text("lady beetle\nant\nbee\n")
    assert load_split(tmp_path, "val").labels == (0, 1)
    (tmp_path / "classes.txt").write_text("ant\n")
    with pytest.raises(DatasetError, match="lady beetle"):
        load_split(tmp_path, "val")


def test_pictures_are_chosen_by_name(pictures: Path) -> None:
    test = load_split(pictures, "test")
    some = test.matching("[01].jpg")
    assert len(some) == 6
    assert some.labels == (0, 0, 1, 1, 2, 2)
    assert some.digest() != test.digest()
    with pytest.raises(DatasetError, match="fits"):
        test.matching("x*")


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folder per class"):
        load_split(tmp_path, "train")
    (tmp_path / "ant").mkdir()
    with pytest.raises(DatasetError, match="no picture found"):
        load_split(tmp_path, "train")


def test_numbers_are_dropped_only_where_they_run_from_one(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("7 spot ladybird\n2 spot ladybird\n")
    assert read_classes(path) == ("7 spot ladybird", "2 spot ladybird")


def test_pictures_are_relabelled_by_name(pictures: Path) -> None:
    test = load_split(pictures, "test")
    turned = test.ordered_as(("lady beetle", "ant", "bee"))
    assert [turned.classes[label] for label in turned.labels] == [test.classes[label] for label in test.labels]
    with pytest.raises(DatasetError, match="only in the data set: bee; only in the bundle: wasp"):
        test.ordered_as(("ant", "wasp", "lady beetle"))


def test_a_flat_data_set_says_that_it_is_not_divided(pictures: Path) -> None:
    assert load_split(pictures, "test").divided
    assert not load_split(pictures / "test", "test").divided
