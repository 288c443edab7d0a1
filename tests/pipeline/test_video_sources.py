import re
import shutil
import sys
import time
import traceback
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_parts import MjpegCamera, cut, make_video

from edge_lsla.errors import EdgeLslaError, MissingComponentError, SourceError, UsageError
from edge_lsla.pipeline import decoding
from edge_lsla.pipeline.address import Address
from edge_lsla.pipeline.frames import Frame, Source
from edge_lsla.pipeline.sources import SourceSettings, open_source

QUICK = SourceSettings(open_timeout=1.0, read_timeout=0.6)


def read(source: Source) -> tuple[list[Frame], str | None]:
    frames: list[Frame] = []
    try:
        frames.extend(source)  # keeps what came before an error
    except SourceError as error:
        return frames, str(error)
    return frames, None


@pytest.mark.parametrize("name", ["plain.mp4", "plain.ts", "plain.mkv", "fast.mp4"])
def test_every_frame_of_a_file_in_order(videos: Path, name: str) -> None:
    with open_source(str(videos / name)) as source:
        assert (source.live, source.size, source.name) == (False, (160, 96), str(videos / name))
        assert source.rate == pytest.approx(20)
        frames, error = read(source)
    assert error is None
    assert [f.sequence for f in frames] == list(range(60))
    # A transport stream and Matroska keep milliseconds or coarser.
    np.testing.assert_allclose([f.time for f in frames], np.arange(60) / 20, atol=2e-3)
    shown = np.array([f.pixels[:, :64].mean() for f in frames])
    np.testing.assert_allclose(shown, 4 * np.arange(60), atol=3)  # what H.264 loses
    assert frames[0].pixels.dtype == np.uint8
    assert frames[0].pixels.shape == (96, 160, 3)


def test_rotation_in_the_file_is_respected(videos: Path) -> None:
    with open_source(str(videos / "turned.mp4")) as source:
        assert source.size == (96, 160)
        frame = list(source)[-1]
    # Turned counterclockwise, the bright left half comes to lie at the bottom.
    assert frame.pixels[88:].mean() > frame.pixels[20:80].mean() + 5


@pytest.mark.parametrize(("name", "least"), [("fast.mp4", 20), ("plain.mkv", 20), ("plain.ts", 20)])
def test_a_file_that_breaks_off_keeps_its_frames(videos: Path, name: str, least: int) -> None:
    with open_source(str(cut(videos / name, 0.6))) as source:
        frames, error = read(source)
        assert next(source, None) is None  # and it stays at its end
    assert least <= len(frames) < 45
    assert error is not None
    assert "\n" not in error
    assert "breaks off after" in error or "cut short after" in error


def test_files_that_are_no_videos(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video " * 1000)
    (tmp_path / "short.mp4").write_bytes(b"\0\0\0 ftypisom")
    headless = cut(videos / "plain.mp4", 0.6)  # its index was at the end
    for path in (tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "short.mp4", headless):
        with pytest.raises(SourceError) as caught:
            open_source(str(path))
        assert str(path) in str(caught.value)
        assert "Errno" not in str(caught.value)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(SourceError, match="only sound"):
        open_source(str(tmp_path / "sound.mkv"))


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ffconcat", "frames.mpd", "session.sdp"])
def test_playlists_are_refused_under_any_name(videos: Path, tmp_path: Path, name: str) -> None:
    import av

    shutil.copy(videos / "plain.ts", tmp_path / "plain.ts")
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nplain.ts\n#EXT-X-ENDLIST\n"
    concat = "ffconcat version 1.0\nfile plain.ts\n"
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 26\n"
    mpd = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>'
    bodies = {"list.m3u8": hls, "frames.mpd": mpd, "session.sdp": sdp}
    (tmp_path / name).write_text(bodies.get(name, concat))
    if name in ("list.m3u8", "list.mp4"):  # FFmpeg itself would follow them, which is why they are refused
        with av.open(str(tmp_path / name)) as container:
            assert container.format.name in ("hls", "concat")
    with pytest.raises(SourceError, match="not a video that can be read"):
        open_source(str(tmp_path / name))


def test_a_file_named_like_a_protocol_is_opened_as_a_file(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(videos / "plain.mp4", tmp_path / "concat:a%03d.mp4")
    monkeypatch.chdir(tmp_path)
    with open_source("concat:a%03d.mp4") as source:
        assert len(list(source)) == 60


def test_an_http_camera() -> None:
    with MjpegCamera() as camera, open_source(camera.url.replace("//", "//me:hunter2@") + "?token=hunter2") as source:
        assert source.live
        assert source.size == (64, 48)
        assert "hunter2" not in source.name
        frames = list(islice(source, 12))
    assert [f.sequence for f in frames] == list(range(12))
    assert all(f.live and abs(f.time - time.time()) < 60 for f in frames)
    shown = np.diff([f.pixels.mean() for f in frames])
    np.testing.assert_allclose(shown, 5, atol=2)  # what JPEG loses


@pytest.mark.parametrize(
    ("then", "message"),
    [("end", "ended by the other side"), ("cut", "ended by|broke off"), ("garbage", "ended by|broke off|damaged")],
)
def test_a_stream_that_dies(then: str, message: str) -> None:
    with MjpegCamera(then, after=12) as camera, open_source(camera.url, QUICK) as source:
        frames, error = read(source)
    assert 10 <= len(frames) <= 13
    assert error is not None
    assert re.search(message, error), error


def test_a_stream_that_stalls_is_given_up_in_time() -> None:
    with MjpegCamera("stall", after=12) as camera, open_source(camera.url, QUICK) as source:
        begin = time.monotonic()
        frames, error = read(source)
        assert time.monotonic() - begin < 3
    assert len(frames) >= 10
    assert error is not None
    assert "no picture for 0.6 s" in error


def test_servers_that_give_no_video() -> None:
    with MjpegCamera(then="garbage", after=0) as camera, pytest.raises(SourceError):
        open_source(camera.url, QUICK)
    with MjpegCamera(then="stall", after=0) as camera:
        begin = time.monotonic()
        with pytest.raises(SourceError, match="no answer within 1 s"):
            open_source(camera.url, QUICK)
        assert time.monotonic() - begin < 4
    with MjpegCamera(status=404) as camera, pytest.raises(SourceError, match="the server has no such stream"):
        open_source(camera.url, QUICK)
    with MjpegCamera(status=401) as camera, pytest.raises(SourceError, match="user name and password"):
        open_source(camera.url, QUICK)
    with pytest.raises(SourceError, match="nothing listens"):
        open_source(camera.url, QUICK)
    with pytest.raises(SourceError):
        open_source("rtsp://127.0.0.1:9/x", QUICK)


def test_a_redirect_to_a_local_file_is_not_followed(videos: Path) -> None:
    with MjpegCamera(status=302, to=f"file://{videos}/plain.mp4") as camera, pytest.raises(SourceError):
        open_source(camera.url, QUICK)


@pytest.mark.parametrize("url", ["http://me:hunter2@127.0.0.1:9/x", "rtsp://me:hunter2@127.0.0.1:9/x?token=hunter2"])
def test_errors_do_not_show_the_password(url: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(url, QUICK)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown.replace(repr(url), "").replace(url, "")  # the test's own source lines aside


class SilentCamera:
    """Stands in for a V4L2 container, which this machine lacks: some packets, then EAGAIN for ever."""

    def __init__(self, packets: list[Any]) -> None:
        self.packets = packets

    def demux(self, stream: object) -> Any:
        while self.packets:
            yield self.packets.pop(0)
        raise BlockingIOError(11, "Resource temporarily unavailable")


def test_a_camera_that_falls_silent() -> None:
    source = decoding.DecodedSource.__new__(decoding.DecodedSource)
    source._address = Address("camera", "/dev/video0", "/dev/video0")
    source._settings = QUICK
    source._stream, source._closed = None, False

    class Packet:
        def __init__(self, size: int) -> None:
            self.size = size

    source._container = SilentCamera([Packet(5), Packet(0), Packet(7)])
    packets = source._packets()
    assert [next(packets).size, next(packets).size] == [5, 7]  # a damaged buffer, size 0, is left out
    begin = time.monotonic()
    with pytest.raises(SourceError, match=r"no picture for 0.6 s: /dev/video0"):
        next(packets)
    assert 0.5 < time.monotonic() - begin < 2


def test_without_pyav_the_error_says_what_to_install(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingComponentError, match=r"pip install av opencv-python"):
        open_source(str(videos / "plain.mp4"))
    with open_source("synthetic", SourceSettings(frames=2, rate=100)) as source:
        assert len(list(source)) == 2


def test_the_synthetic_source_is_deterministic_and_moves() -> None:
    settings = SourceSettings(size=(160, 120), rate=200, frames=20)
    with open_source("synthetic", settings) as one, open_source("synthetic", settings) as two:
        assert (one.live, one.size, one.rate) == (True, (160, 120), 200)
        pairs = list(zip(one, two))
    assert len(pairs) == 20
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in pairs)
    assert not np.array_equal(pairs[0][0].pixels, pairs[1][0].pixels)
    assert pairs[-1][0].time - pairs[0][0].time == pytest.approx(19 / 200)


def test_the_synthetic_source_drifts_over_given_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for name, colour in (("a.png", (220, 0, 0)), ("b.png", (0, 0, 220))):
        Image.new("RGB", (40, 60), colour).save(tmp_path / name)
    settings = SourceSettings(size=(80, 60), rate=2, pictures=(tmp_path / "a.png", tmp_path / "b.png"))
    source = open_source("synthetic", settings)
    source.rate = 1e6  # type: ignore[misc]  # the pictures of the beginning, without waiting for them
    first = next(source).pixels[30, 40]
    source._sequence = 4_000_000  # type: ignore[attr-defined]  # four seconds on, under the second picture
    source._begin -= 4  # type: ignore[attr-defined]
    second = next(source).pixels[30, 40]
    source.close()
    assert first[0] > 200 > 50 > first[2]
    assert second[2] > 200 > 50 > second[0]


@pytest.mark.parametrize(
    "field",
    [
        {"size": (0, 10)},
        {"rate": 0},
        {"rate": float("nan")},
        {"open_timeout": -1},
        {"read_timeout": 0},
        {"rtsp_transport": "pigeon"},
        {"pixel_format": "a:b"},
        {"frames": 0},
    ],
)
def test_settings_name_the_field(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        SourceSettings(**field)


def test_closing_twice_and_reading_on(videos: Path) -> None:
    source = open_source(str(videos / "plain.mp4"))
    next(source)
    source.close()
    source.close()
    assert next(source, None) is None


def test_a_damaged_middle_costs_frames_and_not_the_rest(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.ts")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = b"\x55" * 400
    path.write_bytes(data)
    with open_source(str(path)) as source:
        try:
            frames = list(source)
        except EdgeLslaError as error:
            pytest.fail(str(error))
    assert len(frames) >= 45
    assert frames[-1].time > 2.5
