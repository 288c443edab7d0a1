"""The field service on a synthetic camera: its own overhead, its frame rate beside the bare engine's, and a soak.

    python -m benchmarks.field_service overhead [SECONDS]    camera to recorded event, less capture and inference
    python -m benchmarks.field_service rate [SECONDS]        frames per second beside the bare engine, in turns
    python -m benchmarks.field_service soak [SECONDS]        memory over half an hour

Wants an otherwise idle machine.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.machine import keep
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.sources import open_source
from edge_lsla.service.config import Config
from edge_lsla.service.served_model import opener
from edge_lsla.service.service import Service

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "output" / "demo" / "pests.lsla"
PICTURES = tuple(sorted((ROOT / "demo" / "samples").glob("*.jpg")))
SIZE, RATE = (640, 480), 30.0
FASTEST = 10_000.0  # frames a second: as fast as they can be made
TURNS = 5
WARM_UP = 60.0  # seconds until memory is looked at


def configuration(folder: Path, regions: str, rate: float) -> Config:
    """Return a service with one synthetic camera of insects that walk, and nothing to deliver to."""
    camera = {
        "name": "trap",
        "source": "synthetic",
        "opening": {
            "size": SIZE,
            "rate": rate,
            "pictures": PICTURES,
            **({"insects": 3} if regions == "motion" else {}),
        },
        "finding": {"regions": regions},
    }
    values = {"data": folder, "model": {"bundle": BUNDLE}, "cameras": [camera], "status": {"port": 0}}
    return Config.model_validate(values)


def served(regions: str, rate: float, seconds: float, look: Any = None) -> tuple[Service, Any]:
    """Run the service for a time; `look` is called with its health and the elapsed seconds every second."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(configuration(Path(folder) / "data", regions, rate), BUNDLE, print)
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


def overhead(seconds: float) -> dict[str, Any]:
    """Return milliseconds of overhead per event and per frame, for whole frames and for moving regions."""
    figures: dict[str, Any] = {"seconds": seconds, "size": SIZE, "frames_per_second": RATE}
    for regions in ("full", "motion"):
        service, summary = served(regions, RATE, seconds)
        parts = service.parts
        figures[regions] = {
            "frames": summary.frames,
            "fps": round(summary.frames / summary.seconds, 2),
            "events": summary.events,
            "event_overhead_ms": percentiles(parts.recording.overheads),
            "frame_overhead_ms": percentiles(parts.eyes[0].looking.overheads),
        }
    return figures


def bare(seconds: float) -> float:
    """Return frames a second of the engine alone on the same frames, one at a time."""
    camera = configuration(Path("unused"), "full", RATE).cameras[0]
    with open_source("synthetic", SourceSettings(SIZE, RATE, pictures=camera.opening.pictures)) as source:
        frames = [next(source).pixels for _ in range(16)]
    model = opener("auto", None, None, 8, True)(BUNDLE)
    try:
        for pixels in frames:
            model.classify([pixels])
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            model.classify([frames[done % len(frames)]])
            done += 1
        return done / (time.perf_counter() - begin)
    finally:
        model.close()


def rate(seconds: float) -> dict[str, Any]:
    """Return frames a second of the service and of the bare engine, in turns, and their median ratio."""
    pairs = []
    for _ in range(TURNS):
        alone = bare(seconds)
        service, _ = served("full", FASTEST, seconds)
        pairs.append((alone, service.parts.eyes[0].looking.fps_over_all))
    return {
        "bare_fps": [round(a, 1) for a, _ in pairs],
        "service_fps": [round(b, 1) for _, b in pairs],
        "ratio": round(float(np.median([b / a for a, b in pairs])), 3),
    }


def soak(seconds: float) -> dict[str, Any]:
    """Return memory of the service and its capture process after warm-up and at the end, and how it went."""
    memory: list[tuple[float, float]] = []
    process = psutil.Process()

    def look(health: Any, elapsed: float) -> None:
        if elapsed >= WARM_UP and (not memory or elapsed - memory[-1][0] >= 10):
            both = [process, *process.children(recursive=True)]
            memory.append((elapsed, sum(one.memory_info().rss for one in both) / 1e6))

    service, summary = served("motion", RATE, seconds, look)
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
    work, usual = {"overhead": (overhead, 120.0), "rate": (rate, 10.0), "soak": (soak, 1800.0)}[what]
    keep(f"field_{what}", work(float(arguments[1]) if len(arguments) > 1 else usual))


if __name__ == "__main__":
    main(sys.argv[1:])
