import asyncio
import re
import signal
import time
from collections.abc import Callable
from itertools import islice

import pytest

from benchmarks.rtsp_camera import SIZES, RtspCamera, lacking
from edge_lsla.errors import SourceError
from edge_lsla.pipeline.sources import SourceSettings, open_source


def needs_server(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.rtsp(pytest.mark.skipif(lacking() is not None, reason=str(lacking()))(test))


class Firewalled(RtspCamera):
    """Its pictures come by TCP only: by UDP they go to a port on which nobody waits."""

    async def _ask(self, asked: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await asked.read(65536):
            server.write(re.sub(rb"client_port=\d+-\d+", b"client_port=8-9", data))


@needs_server
@pytest.mark.parametrize("stream", ["rtsp", "rtsp jpeg"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_pictures_by_either_transport(stream: str, transport: str) -> None:
    with RtspCamera(stream) as camera:
        with open_source(camera.url, SourceSettings(rtsp_transport=transport)) as source:
            assert (source.live, source.size, source.rate) == (True, SIZES[0], 15)
            frames = list(islice(source, 10))
        by_relay = camera.packets
    assert [frame.sequence for frame in frames] == list(range(10))
    assert by_relay >= 10 if transport == "tcp" else by_relay == 0


class Terse(RtspCamera):
    """It does not say beforehand what comes (the names of what it says are strange), and begins between key frames."""

    def changed(self, packet: bytes) -> bytes:
        if packet.startswith(b"$\0"):
            self.seen = getattr(self, "seen", 0) + 1
            return b"" if self.seen < 20 else packet
        return re.sub(rb"(?<=a[=-])framerate|sprop(?=-parameter)", lambda name: b"x" * len(name[0]), packet)


@needs_server
def test_a_camera_that_says_little_of_its_stream() -> None:
    with Terse("rtsp") as camera, open_source(camera.url) as source:
        assert (source.size, source.rate) == (SIZES[0], 0)
        frames = list(islice(source, 20))
    assert all(frame.pixels.max() > 200 > 50 > frame.pixels.min() for frame in frames)  # a white ball on black


@needs_server
def test_where_udp_is_filtered_tcp_is_used() -> None:
    settings = SourceSettings(open_timeout=6, read_timeout=1, rtsp_transport="udp")
    with Firewalled("rtsp jpeg") as camera, open_source(camera.url, settings) as source:
        assert len(list(islice(source, 5))) == 5
        assert camera.packets >= 5


@needs_server
def test_a_camera_that_wants_a_password() -> None:
    with RtspCamera("rtsp jpeg") as camera:
        camera.server.tell("lock")

        def opened(login: str, path: str = "/live") -> str:
            try:
                with open_source(camera.url.replace("//", f"//{login}").replace("/live", path)) as source:
                    return f"a picture of {source.size[0]}x{source.size[1]}"
            except SourceError as error:
                return str(error)

        assert opened("watcher:right@") == "a picture of 640x480"
        assert opened("").startswith("the camera wants a user name and password: rtsp://127.0.0.1")
        wrong = opened("watcher:hunter2@")
        assert wrong.startswith("the camera refuses this user name and password: rtsp://***@127.0.0.1")
        assert "hunter2" not in wrong
        assert "the server has no such stream" in opened("watcher:right@", "/elsewhere")


@needs_server
def test_a_picture_that_was_held_back_is_not_told_as_new() -> None:
    with RtspCamera("rtsp") as camera, open_source(camera.url, SourceSettings(read_timeout=1.5)) as source:
        next(source)
        camera.server.send(signal.SIGSTOP)
        stopped = time.monotonic()
        late: list[float] = []
        with pytest.raises(SourceError, match=r"no picture for 1\.5 s"):
            late.extend(frame.captured - stopped for frame in source)
        camera.server.send(signal.SIGCONT)
    assert all(seconds < 1.2 for seconds in late)
