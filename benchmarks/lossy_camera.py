"""A real HTTP camera on this machine that can be told to fail, in the ways in which cameras fail."""

from __future__ import annotations

import contextlib
import functools
import io
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from PIL import Image

SIZES = ((160, 120), (320, 240))
RATE = 25
BOUNDARY = b"--picture\r\n"
REFUSED_SECONDS = 1.0
PACKETS = 188 * 4  # bytes of a transport stream that are sent at once
# "killed": reset inside a picture. "stalled": silence. "dripping": bytes that never make a picture. "garbage": noise.
# "damaged": pictures that cannot be decoded. "refused": reset, and nothing listens for a second. "resized": other
# pictures from one to the next, on the same connection.
STREAM_LOSSES = ("killed", "stalled", "dripping", "garbage", "refused", "resized")
LOSSES = {"mjpeg": (*STREAM_LOSSES, "damaged"), "mpegts": STREAM_LOSSES}


class LossyCamera:
    """Serves a picture 25 times a second to each client; a context manager.

    Args:
        stream: "mjpeg" (multipart/x-mixed-replace) or "mpegts" (H.264).

    Attributes:
        url: where it is served.
        size: width and height of the pictures just now.
        failed: set once the loss that was asked for has happened.
    """

    def __init__(self, stream: str = "mjpeg") -> None:
        self.size = SIZES[0]
        self.failed = threading.Event()
        self._stream = stream
        self._clips = {size: _transport_stream(size) for size in SIZES} if stream == "mpegts" else {}
        self._loss: str | None = None
        self._over = threading.Event()
        self._clients: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listening = _listen(0)
        self._port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/live"

    def lose(self, kind: str) -> None:
        """Fail, one of `LOSSES`; whoever connects afterwards is served well."""
        self.failed.clear()
        if kind == "resized":
            self.size = SIZES[1 - SIZES.index(self.size)]
            self.failed.set()
        elif kind == "refused":
            self._listening.close()
            for client in list(self._clients):
                _reset(client)
            self.failed.set()
            self._over.wait(REFUSED_SECONDS)
            self._listening = _listen(self._port)
            self._start(self._accept)
        else:
            self._loss = kind

    def __enter__(self) -> LossyCamera:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listening.close()
        for client in list(self._clients):
            _reset(client)
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *arguments: object) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=work, args=arguments))  # type: ignore[arg-type]
        self._threads[-1].start()

    def _accept(self) -> None:
        listening = self._listening
        with contextlib.suppress(OSError):  # closed
            while True:
                with contextlib.suppress(TimeoutError):
                    self._start(self._serve, listening.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        self._clients.add(client)
        with contextlib.suppress(OSError), client:  # the other side has gone
            client.settimeout(5)
            client.recv(4096)
            kind = b"video/mp2t" if self._stream == "mpegts" else b"multipart/x-mixed-replace; boundary=picture"
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n")
            begun, sent = time.monotonic(), 0.0
            for data, seconds in self._transport_packets() if self._stream == "mpegts" else self._pictures():
                if self._over.is_set():
                    break
                loss, self._loss = self._loss, None
                if loss is not None:
                    self._fail(client, loss, data)
                    break
                client.sendall(data)
                sent += seconds
                time.sleep(max(0.0, begun + sent - time.monotonic()))
        self._clients.discard(client)

    def _fail(self, client: socket.socket, loss: str, data: bytes) -> None:
        if loss == "killed":
            client.sendall(data[: len(data) // 2])
            _reset(client)
        self.failed.set()
        noise = random.Random(1)
        while loss != "killed" and not self._over.is_set():  # until the other side goes, and sending raises
            if loss == "stalled":
                client.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    if not client.recv(1):
                        return
                continue
            if loss == "damaged":
                client.sendall(_part(noise.randbytes(2000)))
            else:
                client.sendall(b"\xff" if loss == "dripping" else noise.randbytes(4000))
            self._over.wait(0.04)

    def _pictures(self) -> Iterator[tuple[bytes, float]]:
        number = 0
        while True:
            pixels = np.random.default_rng(number).integers(0, 255, (*self.size[::-1], 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels // 8 + number % 200).save(buffer, "JPEG")
            yield _part(buffer.getvalue()), 1 / RATE
            number += 1

    def _transport_packets(self) -> Iterator[tuple[bytes, float]]:
        while True:
            size, (clip, seconds) = self.size, self._clips[self.size]
            for at in range(0, len(clip), PACKETS):
                if size != self.size:
                    break
                yield clip[at : at + PACKETS], seconds * PACKETS / len(clip)


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    listening.settimeout(0.1)  # closing a socket does not wake who waits on it
    return listening


def _reset(client: socket.socket) -> None:
    """Break a connection off as a camera does that loses its power: no goodbye."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.shutdown(socket.SHUT_RD)
        client.close()


def _part(data: bytes) -> bytes:
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    return BOUNDARY + head.encode() + data + b"\r\n"


@functools.lru_cache
def _transport_stream(size: tuple[int, int], seconds: int = 2) -> tuple[bytes, float]:
    """Encode a clip with a key frame every half second; return it with its length in seconds."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = RATE // 2
        stream.options = {"tune": "zerolatency", "preset": "ultrafast"}
        for number in range(seconds * RATE):
            pixels = np.random.default_rng(number).integers(0, 60, (*size[::-1], 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels + number, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue(), float(seconds)
