"""Real videos, and a real HTTP camera on this machine that can stall, die and send garbage."""

import contextlib
import http.server
import io
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_lsla.pipeline.frames import Frame
from edge_lsla.predictions import Prediction

av = pytest.importorskip("av")

RATE = 20


def make_video(path: Path, frames: int = 60, size: tuple[int, int] = (160, 96), **kind: Any) -> Path:
    """Write a video whose frame N is 4·N bright left of the middle and black on the right."""
    options = {"movflags": "+faststart"} if kind.get("faststart") else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = 10
        if "rotation" in kind:
            stream.set_display_rotation(kind["rotation"])
        for number in range(frames):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[:, : size[0] // 2] = (4 * number) % 256
            # Noise, so that cutting the file in half cuts the frames about in half.
            pixels[:, -16:] = np.random.default_rng(number).integers(0, 255, (size[1], 16, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    short = path.with_name(f"cut-{path.name}")
    short.write_bytes(data[: int(len(data) * share) // 188 * 188 + 50])
    return short


def drain(capture: Any, timeout: float = 5, pause: float = 0) -> Iterator[Frame]:
    """Take frames until the source ends; its error goes up."""
    while True:
        try:
            frame = capture.take(timeout)
        except StopIteration:
            return
        if frame is None:
            return
        yield frame
        time.sleep(pause)


def jpeg(number: int) -> bytes:
    """Encode a picture whose brightness says its number, up to 50."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (5 * (number % 50),) * 3).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


class MjpegCamera:
    """An MJPEG camera: `rate` pictures a second, and after `after` of them what `then` says.

    `then` is "end" (closes), "stall" (says nothing more), "garbage", "cut" (closes inside a picture) or "go on".
    """

    def __init__(
        self, then: str = "go on", after: int = 10, rate: float = 50, status: int = 200, to: str = "", port: int = 0
    ) -> None:
        self.then, self.after, self.rate, self.status, self.to = then, after, rate, status, to
        self.over = threading.Event()
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):  # the other side has gone
                    camera.serve(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = False
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self.server.server_port}/live"

    def serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(self.status)
        if self.to:
            handler.send_header("Location", self.to)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        handler.end_headers()
        if self.status != 200:
            return
        number = 0
        while not self.over.is_set():
            if number == self.after and self.then != "go on":
                if self.then == "stall":
                    self.over.wait(30)
                elif self.then == "garbage":
                    handler.wfile.write(b"\x00\xff\x13garbage" * 20_000)
                elif self.then == "cut":
                    handler.wfile.write(self.part(number)[:-200])
                return
            handler.wfile.write(self.part(number))
            number += 1
            time.sleep(1 / self.rate)

    @staticmethod
    def part(number: int) -> bytes:
        data = jpeg(number)
        head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
        return head.encode() + data + b"\r\n"

    def __enter__(self) -> "MjpegCamera":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def brightness(pixels: np.ndarray) -> tuple[Prediction, ...]:
    """A classifier that everybody can check: bright or dark."""
    share = float(pixels[:, : pixels.shape[1] // 2].mean()) / 255
    ranked = sorted([("bright", share), ("dark", 1 - share)], key=lambda pair: -pair[1])
    return tuple(Prediction(i, label, p) for i, (label, p) in enumerate(ranked))


def classify(batch: Any) -> list[tuple[Prediction, ...]]:
    return [brightness(pixels) for pixels in batch]
