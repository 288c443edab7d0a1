from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_lsla.errors import SourceError
from edge_lsla.pipeline.address import names_recording, parse_address
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.sources import open_source


def picture(path: Path, value: int, size: tuple[int, int] = (20, 10)) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)


def test_pictures_come_once_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, value in (("b.png", 2), ("a.png", 1), ("sub/c.bmp", 4), ("c.png", 3)):
        picture(tmp_path / name, value)
    (tmp_path / "notes.txt").write_text("not a picture")
    with open_source(str(tmp_path), SourceSettings(rate=4)) as source:
        assert (source.live, source.rate, source.size) == (False, 4, (20, 10))
        frames = list(source)
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [1, 2, 3, 4]
    assert [frame.time for frame in frames] == [0, 0.25, 0.5, 0.75]
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3]
    assert all(frame.pixels.dtype == np.uint8 and frame.pixels.shape == (10, 20, 3) for frame in frames)


def test_a_picture_that_cannot_be_read_leaves_a_gap_in_the_numbers(tmp_path: Path) -> None:
    picture(tmp_path / "b.png", 2)
    (tmp_path / "a.png").write_bytes(b"not a picture")
    (tmp_path / "c.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    picture(tmp_path / "d.png", 4, (8, 8))
    with open_source(str(tmp_path)) as source:
        assert [(frame.sequence, frame.time) for frame in source] == [(1, 1.0), (3, 3.0)]


def test_folders_that_give_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no picture in the folder"):
        open_source(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with open_source(str(tmp_path)) as source, pytest.raises(SourceError, match="no picture of the folder can be read"):
        next(source)


def test_closing_ends_the_iteration(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png", 1)
    source = open_source(str(tmp_path))
    next(source)
    source.close()
    assert list(source) == []


def test_which_sources_are_recordings_by_their_text(tmp_path: Path) -> None:
    recordings = ["clip.mp4", str(tmp_path), "concat:a", "/media/usb/clip.mp4"]
    live = ["synthetic", "0", "/dev/video0", "csi", "csi:1", "rtsp://camera.local/s", "http://h/v", "HTTPS://h/v"]
    assert [names_recording(spec) for spec in recordings] == [True] * 4
    assert [names_recording(spec) for spec in live] == [False] * 8
    assert parse_address(str(tmp_path)).kind == "folder"
