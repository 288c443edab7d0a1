"""The pictures that search and judge: what is left out of them, and what is said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from calibration.duplicates import Copies
from calibration.splits import divide
from edge_lsla.errors import DatasetError
from edge_lsla.gate_evaluations import _state
from edge_lsla.gate_pictures import Pictures, divide_pictures
from edge_lsla.precision_choice import FormMeasured, _as_fast
from edge_lsla.preprocessing import Preprocessing

SMALL = Preprocessing(32)


def draw(seed: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, split in enumerate(("train", "val", "test")):
        for index, name in enumerate(("ant", "bee")):
            for picture in range(4):
                seed = 100 * number + 10 * index + picture
                draw(seed, tmp_path / split / name / f"{split}{picture}_{name}_1.png")
    return tmp_path


def test_blank_and_copied_pictures_do_not_judge(data: Path) -> None:
    Image.new("RGB", (40, 40)).save(data / "test" / "ant" / "black_1.png")
    for copy in range(10):
        shutil.copy(data / "test" / "bee" / "test0_bee_1.png", data / "test" / "bee" / f"copy{copy}_1.png")
    pictures = Pictures(divide(data).gate, SMALL)
    assert len(pictures) == len(list(pictures)) == len(pictures.side.clusters) == 8
    assert pictures.notes == (
        "left out: 1 of 19 pictures, blank",
        "left out: 10 of 19 pictures, the same as another of their class",
    )
    assert Pictures(divide(data).search, SMALL).notes == ()


def test_a_wrong_folder_in_a_split_is_told_and_labels_stay(data: Path) -> None:
    (data / "classes.txt").write_text("ant\nbee\n")
    draw(900, data / "val" / "zebra" / "z_1.png")
    with pytest.raises(DatasetError, match=r"folder 'zebra' is not in classes\.txt"):
        divide_pictures(data, ("ant", "bee"), None)
    shutil.rmtree(data / "val" / "zebra")
    with pytest.raises(DatasetError, match="differ in their classes"):
        divide_pictures(data, ("wasp", "moth"), None)
    with pytest.raises(DatasetError, match="too few pictures to judge with: 4 are left and at least 10 are needed"):
        divide_pictures(data / "test", ("ant", "bee"), None)
    for seed in range(24):  # folders that are no classes of the model
        draw(seed, data / "plain" / f"day{seed % 2}" / f"{seed}.png")
    assert divide_pictures(data / "plain", ("wasp", "moth"), None).gate.labels is None


def test_a_video_cannot_judge(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(DatasetError, match="must lie in a folder"):
        divide_pictures(tmp_path / "a.mp4", ("ant",), None)


def test_sources_that_are_calibrated_on_are_told(data: Path) -> None:
    assert not divide(data).shared
    draw(901, data / "train" / "ant" / "test1_ant_2.png")
    found = divide(data)
    assert found.shared == {"test1_ant"}
    assert found.notes[-1] == (
        "1 source, test1_ant, has pictures both among the pictures that judge and among those to calibrate on"
    )


def test_control_characters_of_a_source_are_shown_as_escapes(data: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        draw(910 + number, data / split / "ant" / f"\x1b[31mred\udcff_{number}.png")
    notes = divide(data).notes
    assert len(notes) == 3
    assert all(r"\x1b[31mred\udcff" in note and note.isprintable() for note in notes[1:])


def test_copies_are_found_by_their_bytes(tmp_path: Path) -> None:
    for name, content in (("a", b"1234"), ("b", b"1234"), ("c", b"4321"), ("d", b"12")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "d")
    copies = Copies([tmp_path / "a", tmp_path / "d"])
    assert [name for name in ("b", "c", "d", "link", "absent") if tmp_path / name in copies] == ["b", "d", "link"]


def test_states_of_searches_long_past_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = _state({"model": "a"})
    assert kept is not None
    for name in (kept.name, "old.json"):
        (kept.parent / name).touch()
    os.utime(kept.parent / "old.json", (0, 0))
    other = _state({"model": "b"})
    assert other != kept
    assert list(kept.parent.iterdir()) == [kept]


def test_forms_about_as_fast_are_told() -> None:
    def form(name: str, *span: float) -> FormMeasured:
        precision = "fp32" if name == "fp32" else "int8"
        median = sum(span) / 2
        return FormMeasured(name, precision, (), onnx.ModelProto(), np.zeros((1, 2)), np.ones(1), median, 1, span)

    (told,) = _as_fast([form("fp32", 2.0, 2.2), form("int8", 1.0, 1.1), form("mixed", 1.9, 2.1)])
    assert told.startswith("mixed takes about as long as fp32 here (1.90 to 2.10 ms against 2.00 to 2.20")
