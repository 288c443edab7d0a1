"""The CSI source on GStreamer's own test picture; nvarguscamerasrc itself exists on a Jetson alone."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edge_lsla.errors import MissingComponentError, SourceError
from edge_lsla.pipeline import csi
from edge_lsla.pipeline.address import parse_address
from edge_lsla.pipeline.csi import GStreamerSource, open_csi
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.sources import open_source

SETTINGS = SourceSettings(open_timeout=10, read_timeout=0.6)
needs_gstreamer = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None,
    reason="GStreamer is not installed: apt install gstreamer1.0-tools gstreamer1.0-plugins-base",
)


def colour(rgb: int, *more: str, live: str = "true") -> list[tuple[str, ...]]:
    picture = ("videotestsrc", "pattern=solid-color", f"foreground-color={0xFF000000 + rgb}", f"is-live={live}", *more)
    return [picture, ("video/x-raw,framerate=30/1",), ("identity",)]


def pipelines() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "gst" in child.name()]


@needs_gstreamer
def test_frames_come_in_the_right_colours_and_in_time() -> None:
    with GStreamerSource("csi:0", colour(0xC83214), (64, 48), 30, SETTINGS) as source:
        frames = [next(source) for _ in range(10)]
        assert pipelines()
    assert [frame.sequence for frame in frames] == list(range(10))
    assert all(frame.pixels.shape == (48, 64, 3) and frame.live and frame.source == "csi:0" for frame in frames)
    np.testing.assert_array_equal(frames[3].pixels[5, 7], (0xC8, 0x32, 0x14))
    captured = np.array([frame.captured for frame in frames])
    assert (np.diff(captured) > 0).all()
    assert abs(captured[-1] - time.monotonic()) < 5
    assert abs(frames[-1].time - time.time()) < 5
    assert not pipelines()


@needs_gstreamer
def test_a_frame_larger_than_a_pipe_is_read_whole() -> None:
    with GStreamerSource(
        "csi:0", [("videotestsrc", "pattern=ball", "is-live=true")], (1280, 720), 30, SETTINGS
    ) as source:
        frames = [next(source) for _ in range(3)]
    for frame in frames:
        assert frame.pixels.shape == (720, 1280, 3)
        bright = frame.pixels[..., 0] > 128
        assert 0 < bright.mean() < 0.05  # one ball, not torn into many


@needs_gstreamer
def test_a_pipeline_that_ends_is_a_loss_and_no_file_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with GStreamerSource("csi:0", colour(0, "num-buffers=5"), (64, 48), 30, SETTINGS) as source:
        for _ in range(5):
            next(source)
        with pytest.raises(SourceError, match="the camera's pipeline ended: csi:0"):
            next(source)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@needs_gstreamer
def test_a_pipeline_that_stands_still_is_given_up_in_time() -> None:
    with GStreamerSource("csi:0", colour(0), (64, 48), 30, SETTINGS) as source:
        next(source)
        for process in pipelines():
            process.suspend()
        with pytest.raises(SourceError, match=r"no picture for 0\.6 s"):
            list(source)  # what was in the pipe comes first
        begin = time.monotonic()
        source.close()
        assert time.monotonic() - begin < 2
    assert not pipelines()
    assert next(source, None) is None


@needs_gstreamer
def test_closing_twice_ends_the_iteration() -> None:
    source = GStreamerSource("csi:0", colour(0), (64, 48), 30, SETTINGS)
    source.close()
    source.close()
    assert list(source) == []


HOLDER = """
import time
from edge_lsla.pipeline.csi import GStreamerSource
from edge_lsla.pipeline.settings import SourceSettings
source = GStreamerSource("csi:0", [("videotestsrc", "is-live=true")], (64, 48), 30, SourceSettings())
print(source._process.pid, flush=True)
time.sleep(60)
"""


@needs_gstreamer
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv, of util-linux, is not installed")
def test_a_pipeline_ends_with_a_reader_that_is_killed_even_when_it_hangs() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder, holder.stdout:
        pipeline = psutil.Process(int(holder.stdout.readline()))
        pipeline.suspend()
        holder.kill()
        gone = time.monotonic() + 5
        while pipeline.is_running() and pipeline.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < gone
            time.sleep(0.01)


@needs_gstreamer
@pytest.mark.skipif(Path("/dev/nvhost-vi").exists() or Path("/etc/nv_tegra_release").exists(), reason="a Jetson")
def test_without_a_jetson_the_error_says_what_is_missing() -> None:
    with pytest.raises(SourceError, match=r"pipeline ended: csi:0; .*nvarguscamerasrc"):
        open_source("csi", SETTINGS)


def test_without_gstreamer_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingComponentError, match=r"apt install gstreamer1\.0-tools"):
        open_source("csi:1", SETTINGS)


@pytest.mark.parametrize(("settings", "caps"), [
    ({}, "width=1280,height=720,framerate=30/1"),
    ({"size": (1920, 1080), "rate": 29.97}, "width=1920,height=1080,framerate=2997/100"),
    ({"rate": 0.5}, "width=1280,height=720,framerate=1/2"),
])  # fmt: skip
def test_the_sensor_is_asked_for_what_was_set(
    settings: dict[str, Any], caps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(csi, "GStreamerSource", lambda *arguments: asked.append(arguments))
    open_csi(parse_address("csi:2"), SourceSettings(**settings))
    name, elements = asked[0][:2]
    assert name == "csi:2"
    assert elements[0] == ("nvarguscamerasrc", "sensor-id=2")
    assert elements[1] == (f"video/x-raw(memory:NVMM),{caps}",)


@pytest.mark.parametrize(
    "spec", ["csi:10", "csi:0 ! filesink location=x", "csi:-1", "csi:a", "csi:", "csi:0:1", "CSI:0"]
)
def test_an_address_that_is_not_a_sensor_is_refused(spec: str) -> None:
    with pytest.raises(SourceError):
        parse_address(spec)


def test_the_addresses_of_sensors() -> None:
    assert [parse_address(spec).name for spec in ("csi", "csi:0", "csi:7", " csi ")] == [
        "csi:0",
        "csi:0",
        "csi:7",
        "csi:0",
    ]
