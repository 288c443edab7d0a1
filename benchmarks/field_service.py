"""The field service on a synthetic camera: its own overhead, its frame rate beside the bare engine's, and a soak.

    python -m benchmarks.field_service overhead [SECONDS]    camera to recorded event, less capture and inference
    python -m benchmarks.field_service rate [SECONDS]        frames per second beside the bare engine, in turns
    python -m benchmarks.field_service soak [SECONDS]        memory over half an hour

Wants an otherwise idle machine.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.machine import keep
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.sources import open_source
from edge_lsla.runner.model import load
from edge_lsla.service.config import Config
from edge_lsla.service.served_model import ServedModel, opener
from edge_lsla.service.service import Service

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "output" / "demo" / "pests.lsla"
PICTURES = tuple(sorted((ROOT / "demo" / "samples").glob("*.jpg")))
SIZE, RATE = (640, 480), 30.0
FASTEST = 10_000.0  # frames a second: as fast as they can be made
TURNS = 5
INSECTS = 6
MOST_FPS = 700  # that a recording has frames for
WARM_UP = 60.0  # seconds until memory is looked at


def synthetic(regions: str, rate: float) -> dict[str, Any]:
    """Return a synthetic camera's section of the configuration; for "motion", insects walk before it."""
    walking = {"insects": INSECTS} if regions == "motion" else {}
    opening = {"size": SIZE, "rate": rate, "pictures": PICTURES, **walking}
    return {"name": "trap", "source": "synthetic", "opening": opening, "finding": {"regions": regions}}


def configuration(folder: Path, camera: dict[str, Any]) -> Config:
    """Return a service with one camera, and nothing to deliver to."""
    values = {"data": folder, "model": {"bundle": BUNDLE}, "cameras": [camera], "status": {"port": 0}}
    return Config.model_validate(values)


def served(camera: dict[str, Any], seconds: float, look: Any = None) -> tuple[Service, Any]:
    """Run the service for a time; `look` is called with its health and the elapsed seconds every second."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(configuration(Path(folder) / "data", camera), BUNDLE, print)
        stop, begin = threading.Event(), time.monotonic()

        def watch() -> None:
            while not stop.wait(1.0):
                if look is not None and service.health is not None:
                    look(service.health, time.monotonic() - begin)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            return service, service.run(threading.Event(), seconds)
        finally:
            stop.set()
            watcher.join()


def percentiles(values: Any) -> dict[str, float]:
    found = np.percentile(np.asarray(list(values)), (50, 95, 99))
    return {name: round(float(value), 2) for name, value in zip(("p50", "p95", "p99"), found)}


def computed() -> float:
    """Return seconds of the CPU that this process and its ended children have taken."""
    return sum(psutil.Process().cpu_times()[:4])


def disk(count: int = 300) -> dict[str, float]:
    """Return milliseconds that an event with a crop costs on the bare disk: a new file and a line, both synced."""
    crop, times = os.urandom(8192), []
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb", buffering=0) as log:
        for number in range(count):
            time.sleep(1 / RATE)
            begin = time.perf_counter()
            with (Path(folder) / f"{number}.jpg").open("wb", buffering=0) as file:
                file.write(crop)
                os.fsync(file.fileno())
            log.write(crop)
            os.fdatasync(log.fileno())
            times.append(1000 * (time.perf_counter() - begin))
    return percentiles(times)


def overhead(seconds: float) -> dict[str, Any]:
    """Return milliseconds of overhead per event and per frame, for whole frames and for moving regions."""
    figures: dict[str, Any] = {"seconds": seconds, "size": SIZE, "frames_per_second": RATE, "bare_disk_ms": disk()}
    for regions in ("full", "motion"):
        before = computed()
        service, summary = served(synthetic(regions, RATE), seconds)
        parts = service.parts
        figures[regions] = {
            "frames": summary.frames,
            "fps": round(summary.frames / summary.seconds, 2),
            "events": summary.events,
            "cores_with_camera": round((computed() - before) / summary.seconds, 2),
            "event_overhead_ms": percentiles(parts.recording.overheads),
            "frame_overhead_ms": percentiles(parts.eyes[0].looking.overheads),
        }
    return figures


def draw(count: int) -> list[NDArray[np.uint8]]:
    """Return frames of the synthetic camera, uint8 [480, 640, 3]."""
    with open_source("synthetic", SourceSettings(SIZE, RATE, frames=count, pictures=PICTURES)) as source:
        return [frame.pixels for frame in source]


def film(path: Path, frames: Sequence[NDArray[np.uint8]], count: int) -> None:
    """Write an MJPEG recording, as a USB camera sends it, of `count` frames: the given ones over and over."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=round(RATE))
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p"
        pictures = [av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuvj420p") for pixels in frames]
        packets = [bytes(packet) for picture in (*pictures, None) for packet in stream.encode(picture)]
        for number in range(count):
            packet = av.Packet(packets[number % len(packets)])
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, round(RATE)), True
            container.mux(packet)


def bare(model: Any, frames: Sequence[NDArray[np.uint8]], seconds: float) -> float:
    """Return frames a second of the engine alone, one frame at a time."""
    with contextlib.closing(model):
        for pixels in frames[:16]:
            model.classify([pixels])
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            model.classify([frames[done % len(frames)]])
            done += 1
        return done / (time.perf_counter() - begin)


def rate(seconds: float) -> dict[str, Any]:
    """Return frames a second of the service and of the bare engine, in turns, and their median ratio.

    The frames are those of a recording, as fast as they are asked for; the synthetic camera has to draw them, for which
    it takes a core of its own. The engine is measured as the service opens it, and as `load` does; the faster counts.
    """
    frames, figures = draw(90), []
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "trap.avi"
        film(recording, frames, round(seconds * MOST_FPS))
        camera = {"name": "trap", "source": str(recording), "finding": {"regions": "full"}}
        for _ in range(TURNS):
            alone = [
                bare(opener("auto", None, None, 8, True)(BUNDLE), frames, seconds),
                bare(ServedModel(load(BUNDLE)), frames, seconds),
            ]
            service, summary = served(camera, seconds)
            if summary.ended != "limit":
                raise SystemExit("the recording was too short")
            drawn, _ = served(synthetic("full", FASTEST), seconds)
            figures.append([*alone, *(one.parts.eyes[0].looking.fps_over_all for one in (service, drawn))])
    names = ("engine_as_served_fps", "engine_as_loaded_fps", "service_fps", "service_beside_drawing_fps")
    return {
        **{name: [round(value, 1) for value in column] for name, column in zip(names, zip(*figures))},
        "ratio": round(float(np.median([row[2] / max(row[:2]) for row in figures])), 3),
    }


def soak(seconds: float) -> dict[str, Any]:
    """Return memory of the service and its capture process after warm-up and at the end, and how it went."""
    memory: list[tuple[float, float]] = []
    process = psutil.Process()

    def look(health: Any, elapsed: float) -> None:
        if elapsed >= WARM_UP and (not memory or elapsed - memory[-1][0] >= 10):
            both = [process, *process.children(recursive=True)]
            memory.append((elapsed, sum(one.memory_info().rss for one in both) / 1e6))

    service, summary = served(synthetic("motion", RATE), seconds, look)
    values = [mb for _, mb in memory]
    sixth = max(1, len(values) // 6)
    first, last = (float(np.median(part)) for part in (values[:sixth], values[-sixth:]))
    return {
        "seconds": round(summary.seconds),
        "frames": summary.frames,
        "fps": round(summary.frames / summary.seconds, 2),
        "events": summary.events,
        "gaps": summary.gaps,
        "restarts": summary.restarts,
        "memory_mb": {"after_warm_up": round(first, 1), "at_the_end": round(last, 1), "largest": round(max(values), 1)},
        "growth_percent": round((last / first - 1) * 100, 2),
        "event_overhead_ms": percentiles(service.parts.recording.overheads),
    }


def main(arguments: list[str]) -> None:
    what = arguments[0] if arguments else "overhead"
    work, usual = {"overhead": (overhead, 240.0), "rate": (rate, 10.0), "soak": (soak, 1800.0)}[what]
    keep(f"field_{what}", work(float(arguments[1]) if len(arguments) > 1 else usual))


if __name__ == "__main__":
    main(sys.argv[1:])
