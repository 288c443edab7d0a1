"""Frames spread over videos that are really encoded and decoded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_lsla.data.video_frames import find_videos, read_frames
from edge_lsla.errors import DatasetError, SourceError

av = pytest.importorskip("av")
RATE = 20


def make_video(path: Path, frames: int = 60, codec: str = "libx264", rotation: int = 0) -> Path:
    """Write a video with a key frame every 10 frames, whose frame N is 4·N bright, below it black."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.gop_size = 10
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            pixels = np.zeros((64, 96, 3), np.uint8)
            pixels[:32] = 4 * number % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("count", [1, 4, 7, 60])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
def test_the_middles_of_equal_parts(tmp_path: Path, name: str, count: int) -> None:
    frames = list(read_frames(make_video(tmp_path / name), count))
    expected = [(2 * part + 1) * 60 // (2 * count) for part in range(count)]
    assert [round(frame.seconds * RATE) for frame in frames] == expected
    for frame, number in zip(frames, expected):
        assert frame.pixels.shape == (64, 96, 3)
        assert frame.pixels[10, 48].mean() == pytest.approx(4 * number, abs=6)  # lossy


def test_a_video_that_knows_no_times_of_its_pictures(tmp_path: Path) -> None:
    frames = list(read_frames(make_video(tmp_path / "a.avi", codec="mpeg4"), 4))
    assert [round(frame.seconds * RATE) for frame in frames] == [7, 22, 37, 52]


def test_a_short_video_gives_each_frame_once(tmp_path: Path) -> None:
    assert len(list(read_frames(make_video(tmp_path / "a.mp4", frames=5), 50))) == 5


def test_frames_are_upright(tmp_path: Path) -> None:
    (frame,) = read_frames(make_video(tmp_path / "a.mp4", rotation=90), 1)
    assert frame.pixels.shape == (96, 64, 3)
    assert abs(float(frame.pixels[:, :20].mean()) - float(frame.pixels[:, -20:].mean())) > 100


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = make_video(tmp_path / "a.mp4", frames=200)
    decoded = 0
    from edge_lsla.data import video_frames

    due = video_frames._due

    def counting(frames, waiting):  # type: ignore[no-untyped-def]
        nonlocal decoded
        decoded += len(frames)
        return due(frames, waiting)

    monkeypatch.setattr(video_frames, "_due", counting)
    assert len(list(read_frames(video, 2))) == 2
    assert decoded <= 40  # two groups of ten, and what the decoder holds back


def test_a_cut_video_gives_what_is_left(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert 0 < len(list(read_frames(tmp_path / "cut.mkv", 60))) < 60


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    for data in (b"", b"no video at all", b"#EXTM3U\n#EXTINF:1\nother.ts\n"):
        bad.write_bytes(data)
        with pytest.raises(SourceError, match=r"bad\.mp4"):
            next(read_frames(bad, 3))
    with pytest.raises(SourceError, match="not a video that can be read"):
        next(read_frames(tmp_path / "absent.mp4", 3))


def test_videos_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.mkv", ".hidden.mp4", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_videos(tmp_path)] == ["a.mkv", "b.MP4"]
    with pytest.raises(DatasetError, match="no such folder"):
        find_videos(tmp_path / "absent")


def test_importing_it_loads_no_pyav() -> None:
    code = "import sys, edge_lsla.data.video_frames; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
