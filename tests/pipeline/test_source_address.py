import os
from pathlib import Path

import pytest

from edge_lsla.errors import SourceError
from edge_lsla.pipeline.address import mask, parse_address


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:hunter2@camera.local:554/s1", "rtsp://***@camera.local:554/s1"),
        ("rtsp://admin:p@ss/word@camera.local/s1", "rtsp://***@camera.local/s1"),
        ("rtsp://hunter2@camera.local/s1", "rtsp://***@camera.local/s1"),
        ("http://h/v?user=me&pwd=hunter2&fps=5", "http://h/v?user=***&pwd=***&fps=5"),
        ("http://h/v?access_token=hunter2#x", "http://h/v?access_token=***#x"),
        ("https://h/v?fps=5", "https://h/v?fps=5"),
        ("clip.mp4", "clip.mp4"),
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


def test_a_fifo_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    with pytest.raises(SourceError, match="regular file"):
        parse_address(str(tmp_path / "fifo.mp4"))


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "concat:a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    address = parse_address("concat:a.mp4")
    assert (address.kind, address.target) == ("file", str(tmp_path.resolve() / "concat:a.mp4"))
