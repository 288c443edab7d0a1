"""`infer camera` on an HTTP stream of this machine: does memory grow, and is every frame the newest one?

The stream is motion JPEG at 30 frames a second. Each frame carries its number as black and white blocks, so that what
was classified can be held against what had been sent at that moment.
"""

from __future__ import annotations

import http.server
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import keep
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.sources import open_source
from edge_lsla.pipeline.watch import WatchSettings, watch
from edge_lsla.predictions import Prediction

SECONDS, WARM_UP, RATE, BITS, BLOCK = 60, 15, 30, 16, 16
DEMO = Path(__file__).parents[1] / "demo"


def frame(number: int, ground: NDArray[np.uint8]) -> bytes:
    """Encode one 640x480 frame with its number in the top row of blocks."""
    pixels = ground.copy()
    for bit in range(BITS):
        pixels[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def read_number(pixels: NDArray[np.uint8]) -> int:
    """Read the number of a decoded frame."""
    middle = BLOCK // 2
    return sum(int(pixels[middle, bit * BLOCK + middle, 0] > 127) << bit for bit in range(BITS))


class Stream(http.server.ThreadingHTTPServer):
    """Serves numbered frames at 30 a second to each client, from number 0."""

    daemon_threads = True
    sent = 0


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # http.server's name
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with Image.open(DEMO / "samples" / "ant_1.jpg") as sample:
            ground = np.asarray(sample.resize((640, 480)))
        started, number = time.monotonic(), 0
        try:
            while True:
                data = frame(number, ground)
                header = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(header.encode() + data + b"\r\n")
                self.server.sent = number  # type: ignore[attr-defined]
                number += 1
                time.sleep(max(0.0, started + number / RATE - time.monotonic()))
        except OSError:
            pass  # the client went away, as clients do

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        pass


def soak(url: str, engine: str) -> dict[str, object]:
    """Run the verb for a minute and watch its memory from outside."""
    command = [sys.executable, "cli.py", "infer", "camera", url, "--engine", engine, "--no-window", "--json"]
    process = subprocess.Popen(
        [*command, "--max-seconds", str(SECONDS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    watched, sizes, started = psutil.Process(process.pid), [], time.monotonic()
    while process.poll() is None and time.monotonic() - started < SECONDS + 30:
        sizes.append((time.monotonic() - started, watched.memory_info().rss / 2**20))
        time.sleep(0.5)
    out, _ = process.communicate(timeout=30)
    report = json.loads(out.splitlines()[-1])
    first = [size for at, size in sizes if WARM_UP <= at < WARM_UP + 10]
    last = [size for at, size in sizes if SECONDS - 10 <= at < SECONDS]
    return {
        "seconds": report["seconds"],
        "frames": report["frames"],
        "dropped": report["dropped"],
        "fps": report["fps"],
        "latency_p95_ms": report["latency_p95_ms"],
        "memory_after_warm_up_mb": round(float(np.median(first)), 1),
        "memory_at_the_end_mb": round(float(np.median(last)), 1),
        "growth_percent": round(100 * (float(np.median(last)) / float(np.median(first)) - 1), 2),
    }


def newness(url: str, server: Stream) -> dict[str, object]:
    """Classify slowly (100 ms a frame) and count how many frames had been sent since the one in hand."""
    behind: list[int] = []

    def slow(frames: object) -> list[tuple[Prediction, ...]]:
        assert isinstance(frames, list)
        behind.append(server.sent - read_number(frames[0]))
        time.sleep(0.1)
        return [(Prediction(0, "x", 1.0),)]

    source = open_source(url, SourceSettings())
    report = watch(source, slow, [], WatchSettings(max_seconds=20), threading.Event())
    return {
        "slow_frames": report.frames,
        "slow_dropped": report.dropped,
        "frames_behind_median": int(np.median(behind)),
        "frames_behind_largest": max(behind[3:]),  # the first frames wait for the decoder to find its feet
    }


def main() -> None:
    server = Stream(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/stream"
    with tempfile.TemporaryDirectory() as folder:
        engine = f"{folder}/demo.lsla"
        weights, data = str(DEMO / "vit_lsla_demo.safetensors"), str(DEMO / "calibration")
        command = ["build-engine", weights, "-o", engine, "--precision", "int8", "--data", data]
        subprocess.run([sys.executable, "cli.py", *command], check=True, stdout=subprocess.DEVNULL)
        figures = {**soak(url, engine), **newness(url, server)}
    server.shutdown()
    keep("camera_soak", figures)


if __name__ == "__main__":
    main()
