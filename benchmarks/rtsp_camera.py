"""A real RTSP camera on this machine that can be told to fail: GStreamer's server, and a connection that spoils it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

SIZES = ((640, 480), (320, 240))
AWAY_SECONDS = 1.0
STOPPED_SECONDS = 3.0  # more than the time after which a silent camera is lost
START_SECONDS = 30.0
HEAD = 4 + 12  # bytes of an interleaved packet before its payload: RFC 2326, 10.12, and RFC 3550, 5.1
# What works by RTP over UDP, which goes past the relay. "killed": the server is, and comes back a second later with
# another size. "stopped": it hangs for two seconds. "denied", "missing": every connection is dropped, and DESCRIBE is
# answered by 401 or 404 for a second. "torn down": the server ends the session. "resized": other pictures from one to
# the next, in the same session.
ANYHOW = ("killed", "stopped", "denied", "missing", "torn down", "resized")
# "stalled": the connection falls silent. "half open": broken off, and on the next connection PLAY is never answered.
# "garbage": noise instead of the stream. "damaged": every packet's payload is noise.
OVER_TCP = (*ANYHOW, "stalled", "half open", "garbage", "damaged")
RTSP_LOSSES = {"rtsp": OVER_TCP, "rtsp jpeg": OVER_TCP, "rtsp udp": ANYHOW}


PACKAGES = (
    "python3-gi",
    "gir1.2-gst-rtsp-server-1.0",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",  # RTP
    "gstreamer1.0-plugins-bad",  # h264parse
    "gstreamer1.0-plugins-ugly",  # x264enc
)


@functools.cache
def lacking() -> str | None:
    """Say what is missing for the server to run here; None where it runs."""
    try:
        RtspServer("h264", SIZES[0]).kill()
    except (OSError, ValueError):
        return "GStreamer's RTSP server is not installed: apt install " + " ".join(PACKAGES)
    return None


class RtspServer:
    """`benchmarks.rtsp_server` in a process of the system's Python.

    Attributes:
        port: where it listens.
    """

    def __init__(self, coder: str, size: tuple[int, int]) -> None:
        program = shutil.which("python3", path="/usr/bin") or "python3"
        script = Path(__file__).with_name("rtsp_server.py")
        self._process = subprocess.Popen(
            [program, str(script), coder, str(size[0]), str(size[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        assert self._process.stdout is not None
        try:
            self.port = int(self._process.stdout.readline())
        except BaseException:
            self.kill()
            raise

    def tell(self, order: str) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


class RtspCamera:
    """Serves moving pictures 15 times a second; a context manager.

    Args:
        stream: a key of `RTSP_LOSSES`.

    Attributes:
        url: where it is served; the relay listens there, the server behind it.
        size: width and height of the pictures just now.
        packets: of pictures, that came through the relay: by TCP.
    """

    def __init__(self, stream: str = "rtsp") -> None:
        self.size = SIZES[0]
        self.packets = 0
        self._coder = "jpeg" if stream == "rtsp jpeg" else "h264"
        self._loss: str | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rtsp relay")
        self._port = 0

    def lose(self, kind: str) -> None:
        """Fail, one of `RTSP_LOSSES`; whoever connects afterwards is served well."""
        if kind == "resized":
            self.size = SIZES[1 - SIZES.index(self.size)]
            self.server.tell(f"size {self.size[0]} {self.size[1]}")
        elif kind == "killed":
            self.server.kill()
            self._do(self._cut(closing=True))
            time.sleep(AWAY_SECONDS)
            self.size = SIZES[1 - SIZES.index(self.size)]
            self.server = RtspServer(self._coder, self.size)
            self._do(self._listen())
        elif kind == "stopped":
            self.server.send(signal.SIGSTOP)
            time.sleep(STOPPED_SECONDS)
            self.server.send(signal.SIGCONT)
        elif kind in ("denied", "missing"):
            away, back = ("lock", "unlock") if kind == "denied" else ("hide", "show")
            self.server.tell(away)
            self.server.tell("drop")
            time.sleep(AWAY_SECONDS)
            self.server.tell(back)
        elif kind == "torn down":
            self.server.tell("end")
        else:
            self._loss = kind
            if kind == "half open":
                self._do(self._cut())

    def changed(self, packet: bytes) -> bytes:
        """Return what a client gets of a packet, or of a line of an answer; for cameras that differ."""
        return packet

    def __enter__(self) -> RtspCamera:
        self.server = RtspServer(self._coder, self.size)
        self._thread.start()
        self._do(self._listen())
        self.url = f"rtsp://127.0.0.1:{self._port}/live"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()
        self._do(self._cut(closing=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._relay, "127.0.0.1", self._port)
        self._port = self._listening.sockets[0].getsockname()[1]

    async def _cut(self, closing: bool = False) -> None:
        if closing:
            self._listening.close()
        for client in list(self._clients):
            client.transport.abort()
        while self._clients:
            await asyncio.sleep(0.01)

    async def _relay(self, asked: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Join a client with the server until either goes."""
        self._clients.add(client)
        ways: list[asyncio.Task[None]] = []
        with contextlib.suppress(OSError):
            answered, server = await asyncio.open_connection("127.0.0.1", self.server.port)
            ways = [asyncio.create_task(self._ask(asked, server)), asyncio.create_task(self._answer(answered, client))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            server.transport.abort()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        client.transport.abort()
        self._clients.discard(client)

    async def _ask(self, asked: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        mute = False
        while data := await asked.read(65536):
            if self._loss == "half open" and data.startswith(b"PLAY"):
                self._loss, mute = None, True
            if not mute:
                server.write(data)

    async def _answer(self, answered: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        noise = random.Random(1)
        loss = None
        while True:
            packet = self.changed(await _packet(answered))
            self.packets += packet.startswith(b"$\0")
            if self._loss not in (None, "half open") and packet.startswith(b"$"):
                loss, self._loss = self._loss, None
            if loss == "garbage":
                packet = noise.randbytes(len(packet))
            elif loss == "damaged" and packet.startswith(b"$"):
                packet = packet[:HEAD] + noise.randbytes(len(packet) - HEAD)
            if loss != "stalled":
                client.write(packet)
                await client.drain()


async def _packet(answered: asyncio.StreamReader) -> bytes:
    """Read an interleaved packet, or a line or body of an answer."""
    begin = await answered.readexactly(1)
    if begin != b"$":
        return begin + await answered.readline()
    head = await answered.readexactly(3)
    return begin + head + await answered.readexactly(int.from_bytes(head[1:], "big"))
