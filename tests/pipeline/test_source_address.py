import os
from pathlib import Path

import pytest

from edge_lsla.errors import SourceError
from edge_lsla.events import Gap
from edge_lsla.pipeline.address import mask, names_device, parse_address
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.supervision import CameraLost, SupervisedCamera, SupervisionSettings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:hunter2@camera.local:554/s1", "rtsp://***@camera.local:554/s1"),
        ("rtsp://admin:p@ss/word@camera.local/s1", "rtsp://***@camera.local/s1"),
        ("rtsp://hunter2@camera.local/s1", "rtsp://***@camera.local/s1"),
        ("http://h/v?user=me&pwd=hunter2&fps=5", "http://h/v?user=***&pwd=***&fps=5"),
        ("http://h/v?access_token=hunter2#x", "http://h/v?access_token=***#***"),
        ("rtsp://cam/user=admin&password=hunter2&channel=1", "rtsp://cam/user=***&password=***&channel=1"),
        ("rtsp://cam:554/user=admin_password=hunter2_channel=1_stream=0.sdp?real", "rtsp://cam:554/user=***"),
        ("rtsp://cam/channel=1_PASSWORD=hunter2", "rtsp://cam/channel=1_PASSWORD=***"),
        ("rtsp://cam/channel=1&pwd=hunter2/x?y=hunter2#z", "rtsp://cam/channel=1&pwd=***#***"),
        ("http://cam/v;passwd=hunter2;fps=5", "http://cam/v;passwd=***;fps=5"),
        ("http://cam/v?pwd=hunter2", "http://cam/v?pwd=***"),
        ("http://cam/v?a=1&token=hunter2", "http://cam/v?a=***&token=***"),
        ("http://cam/v?a=1&apikey%3Dhunter2", "http://cam/v?a=***&***"),
        ("http://cam/v?X-Amz-Signature=hunter2&auth=hunter2", "http://cam/v?X-Amz-Signature=***&auth=***"),
        ("https://h/token/hunter2/live.m3u8", "https://h/token/***/live.m3u8"),
        ("https://h/live/pass/hunter2", "https://h/live/pass/***"),
        ("https://h/v?fps=5", "https://h/v?fps=5"),
        ("rtsp://h/passage/monitor?channel=1", "rtsp://h/passage/monitor?channel=1"),
        ("rtsp://h/keys/v?fps=5#t=3", "rtsp://h/keys/v?fps=5#***"),
        ("http://h/v?p=hunter2&channel=2", "http://h/v?p=***&channel=2"),
        ("http://h/v?hunter2", "http://h/v?***"),
        ("http://h/v#hunter2", "http://h/v#***"),
        ("http://h/v#hunter2?fps=5", "http://h/v#***"),
        ("rtsp://h:554/admin:hunter2/ch1", "rtsp://h:554/admin:***/ch1"),
        ("clip.mp4", "clip.mp4"),
        ("/data/clip.mp4", "/data/clip.mp4"),
    ],
)
def test_credentials_are_masked(url: str, shown: str) -> None:
    assert mask(url) == shown
    if "://" in url:
        address = parse_address(url)
        assert address.name == shown
        assert address.target == url
        assert "hunter2" not in repr(address)


@pytest.mark.parametrize(
    "spec",
    [
        "concat:a.mp4|b.mp4",
        "subfile:,,start,0,end,9,,:/etc/passwd",
        "data:video/mp4;base64,AAAA",
        "pipe:0",
        "file:///etc/passwd",
        "ftp://host/a.mp4",
        "udp://239.0.0.1:1234",
        "http:a.mp4",
        "lavfi:testsrc",
        "http+concat://host/",
    ],
)
def test_other_protocols_of_ffmpeg_are_refused(spec: str) -> None:
    with pytest.raises(SourceError, match="not a kind of source"):
        parse_address(spec)


@pytest.mark.parametrize(
    "spec", ["http://", "rtsp://:554/x", "http://host:port/x", "http://host/a\r\nX: y", "http://h:0/"]
)
def test_urls_that_lead_nowhere(spec: str) -> None:
    with pytest.raises(SourceError, match="not a URL"):
        parse_address(spec)


def test_what_is_not_there(tmp_path: Path) -> None:
    cases = {
        "": "no source given",
        "987": "no such camera",
        "/dev/video987": "no such camera",
        str(tmp_path / "a.mp4"): "no such video",
        "a\0b": "not a file name",
    }
    for spec, message in cases.items():
        with pytest.raises(SourceError, match=message):
            parse_address(spec)


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("admin:hunter2@10.0.0.5:554/stream", "***@10.0.0.5:554/stream"),
        ("rtsp:/admin:hunter2@h/x", "***@h/x"),
        ("rtsp//admin:hunter2@h/x", "***@h/x"),
        ("//admin:hunter2@h/x", "***@h/x"),
        ('"rtsp://admin:hunter2@h/x"', '"rtsp://***@h/x"'),
        ("admin:hunter2://x@h/x", "***@h/x"),
        ("rtsp:/h/x?password=hunter2", "rtsp:/h/x?password=***"),
        ("/dev/admin:hunter2@h", "***@h"),
        ("a\0admin:hunter2@h", "***@h'"),
    ],
)
def test_no_password_of_a_mistyped_url_is_shown(spec: str, shown: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_address(spec)
    assert caught.value.where == shown
    assert "hunter2" not in str(caught.value)
    assert "admin" not in str(caught.value)


@pytest.mark.parametrize("spec", ["0", "12", " /dev/video0\n", "/dev/v4l/by-id/usb-1"])
def test_a_device_is_known_by_its_name(spec: str) -> None:
    assert names_device(spec)
    assert not any(map(names_device, ("", "1234", "csi", "synthetic", "rtsp://h/dev/video0", "dev/video0")))


def test_a_fifo_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    with pytest.raises(SourceError, match="regular file"):
        parse_address(str(tmp_path / "fifo.mp4"))


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "concat:a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    address = parse_address("concat:a.mp4")
    assert (address.kind, address.target) == ("file", str(tmp_path.resolve() / "concat:a.mp4"))


def test_a_supervised_camera_shows_no_password_of_a_mistyped_url() -> None:
    gaps: list[Gap] = []
    camera = SupervisedCamera(
        "a", "admin:hunter2@h/x", SourceSettings(), SupervisionSettings(resets_per_hour=0), gaps.append
    )
    camera.start()
    try:
        with pytest.raises(CameraLost) as caught:
            camera.take(20)
    finally:
        camera.stop()
    assert "***@h/x" in str(camera.state.last_error)
    for said in (caught.value, camera.state, gaps):
        assert "hunter2" not in str(said)
