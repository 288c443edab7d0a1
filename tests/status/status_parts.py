"""A service as the status page sees it, with pictures, weeks of counts and troubles; and plain HTTP to ask it with."""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from edge_lsla.events import Box, Event
from edge_lsla.status.server import StatusServer
from edge_lsla.status.settings import StatusSettings

SAMPLES = Path(__file__).parents[2] / "demo" / "samples"
LABELS = ("ant", "bee", "beetle", "bug", "butterfly", "cricket", "fly", "lady beetle", "mosquito", "spider")
TOKEN = "a-token-of-the-orchard-7Qx"
UPDATE = {"what": "refused", "name": "pests-2026-06", "slot": "A", "bundle": "77aa" * 16, "precision": "fp16"}
HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "</title></svg><svg onload=window.hacked=1>",
    "' & \x00\x1b[2J \ud800 \u202egpj.exe \ufffe",
    "javascript:window.hacked=1//" + "x" * 300,
    "__proto__",
    "图片 🐞 " + "漢" * 60,
)


@functools.lru_cache(maxsize=64)
def insect(label: str, side: int) -> Image.Image:
    found = sorted(SAMPLES.glob(f"{label.replace(' ', '_')}_*.jpg"))
    with Image.open(found[0] if found else next(SAMPLES.glob("*.jpg"))) as picture:
        return picture.convert("RGB").resize((side, side))


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=quality)
    return memory.getvalue()


@functools.lru_cache(maxsize=64)
def trap(seed: int, labels: tuple[str, ...]) -> bytes:
    """Draw a sticky trap with a grid and insects in boxes, 640×480."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 5, (480, 640, 1)) + np.array([222, 196, 84])
    image = Image.fromarray(grain.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))
    drawing = ImageDraw.Draw(image)
    for at in range(40, 640, 80):
        drawing.line([(at, 0), (at, 480)], fill=(196, 168, 60))
        drawing.line([(0, at), (640, at)], fill=(196, 168, 60))
    places = rng.permutation(12)[: len(labels)]
    for label, place in zip(labels, places):
        side = int(rng.integers(60, 110))
        left = 30 + int(place % 4) * 150 + int(rng.integers(0, 20))
        top = 40 + int(place // 4) * 145 + int(rng.integers(0, 15))
        image.paste(insect(label, side), (left, top))
        drawing.rectangle((left - 2, top - 2, left + side + 2, top + side + 2), outline=(37, 99, 235), width=3)
        drawing.rectangle((left - 2, top - 20, left + 8 + 7 * len(label), top - 2), fill=(37, 99, 235))
        drawing.text((left + 3, top - 18), label.encode("ascii", "replace").decode(), fill=(255, 255, 255))
    return jpeg(image)


class FieldView:
    """A service in the field, made up: one camera watches, one is lost, the broker is away."""

    def __init__(self, labels: tuple[str, ...] = LABELS, problems: bool = True) -> None:
        self.labels, self.ill = labels, problems
        self.device = "orchard-3" if labels is LABELS else labels[0]
        self.begun = time.time() - 12 * 86400 - 3 * 3600
        self.names = ["trap-1", "trap-2"] if labels is LABELS else list(labels[:4])
        self.shots = {name: [trap(index * 10 + n, labels[n % 3 : n % 3 + 4]) for n in range(3)]
                      for index, name in enumerate(self.names)}  # fmt: skip
        self.asked: list[str] = []
        self.events = self._events()

    def _events(self) -> list[dict[str, Any]]:
        rng = np.random.default_rng(5)
        now, found = time.time(), []
        for index in range(24):
            label = self.labels[int(rng.integers(len(self.labels)))] if index % 7 != 3 else "unknown"
            at = now - 20 - 9 * index**1.9
            told = {"source": self.names[index % len(self.names)], "track": f"{index:032x}", "label": label}
            told |= {"confidence": float(rng.uniform(0.55, 0.99)), "box": Box(10, 10, 90, 90), "clock": "synchronised"}
            arrived = Event("arrived", at, id=f"{0xA0000 + index:032x}", **told)
            if index > 2:
                left = Event(
                    "left", at + 14, id=f"{0xB0000 + index:032x}", **told, details={"seconds": 14.2, "frames": 200}
                )
                found.append(left.to_dict())
            found.append(arrived.to_dict())
            if index == 9:
                found.append(Event("model", at - 5, details=UPDATE).to_dict())
        return found

    def health(self) -> dict[str, Any]:
        self.asked.append("health")
        cameras = [
            {"name": name, "watching": not (self.ill and index == 1), "fps": 0.0 if self.ill and index == 1 else 14.8,
             "dropped": 1283 * index + 12, "gaps": 3 * index,
             "last_error": self.labels[1] if self.labels is not LABELS
             else "the stream ended: rtsp://10.0.0.7/main" if index == 1 else None}
            for index, name in enumerate(self.names)
        ]  # fmt: skip
        words = list(self.labels) if self.labels is not LABELS else [
            "Camera trap-2 is lost since 02:14: the stream ended; it is reopened again and again.",
            "The broker field-mqtt has been away for 3 days: 1204 events wait.",
            "The disk is nearly full: 1.9 GB are left; pictures of delivered events are being deleted.",
        ]  # fmt: skip
        return {
            "ok": not self.ill, "problems": words if self.ill else [],
            "device": self.device,
            "reservoir": {"seen": 90210, "size": 256},
            "started": self.begun, "uptime_seconds": time.time() - self.begun,
            "model": {"name": "pests-2026-05", "digest": "9f2c41d07a" * 6 + "abcd", "precision": "int8",
                      "backend": "onnxruntime", "slot": "B", "file_sha256": "f11e" * 16, "history": self.history()},
            "cameras": cameras,
            "latency_ms": {"p50": 11.42, "p95": 18.91, "p99": 27.3},
            "overhead_ms": {"p50": 1.31, "p95": 2.87, "p99": 6.02},
            "frames": 15_482_113, "events": 8412, "queues": {"frames": 1, "events": 0},
            "deliveries": [
                {"name": "field-mqtt", "connected": not self.ill, "backlog": 1204 if self.ill else 0, "delivered": 7208,
                 "last_error": "connection refused: broker.example port 8883"},
                {"name": "webhook", "connected": True, "backlog": 0, "delivered": 8412, "last_error": "timed out"}],
            "store": {"bytes": 6_412_000_000, "free_bytes": 1_910_000_000, "events": 8412,
                      "undelivered": 1204 if self.ill else 0},
            "temperature_c": 61.5,
            "pace": {"rate": 15.0, "reason": "warm: 61.5 °C"} if self.ill else {"rate": None, "reason": ""},
            "clock": "synchronised", "memory_mb": 312.4, "restarts": 1,
        }  # fmt: skip

    def history(self) -> list[dict[str, Any]]:
        names = (self.labels if self.labels is not LABELS else ("pests-2026-05",) * 2)[:5]
        return [{"time": self.begun, "what": "promoted", "name": name, "digest": "51e0" * 16, "precision": "int8",
                 "file_sha256": "f11e" * 16, "artifact_sha256": "9f2c41d07a" * 6 + "abcd",
                 "reason": "it answered 800 batches on probation without a fault"} for name in names]  # fmt: skip

    def cameras(self) -> list[str]:
        return self.names

    def picture(self, camera: str) -> bytes | None:
        self.asked.append(f"picture {camera}")
        if self.ill and camera == self.names[1]:
            return self.shots[camera][0]
        return self.shots[camera][int(time.time() * 2) % 3]

    def recent(self, limit: int) -> list[dict[str, Any]]:
        return self.events[:limit]

    def counts(self, hours: float) -> dict[str, Any]:
        until = time.time()
        steps = max(1, round(hours))
        rng = np.random.default_rng(round(hours))
        counts = {}
        for index, label in enumerate((*self.labels, "unknown")):
            of_day = [1.2 + math.sin((step - 6 - index) / 24 * 2 * math.pi) for step in range(steps)]
            counts[label] = [int(n) for n in rng.poisson([max(0.0, rate) * 9 / (1 + index) for rate in of_day])]
        return {"since": until - steps * 3600, "until": until, "step_seconds": 3600, "labels": counts}

    def crop(self, event_id: str) -> bytes | None:
        self.asked.append(f"crop {event_id}")
        for event in self.events:
            if event["id"] == event_id and event["kind"] == "arrived":
                return jpeg(insect(event["label"], 160))
        return None


@contextlib.contextmanager
def served(view: Any, **changes: Any) -> Iterator[int]:
    """Serve a view on a free port of loopback, and give the port."""
    server = StatusServer(view, StatusSettings(**{"port": 0, **changes}))
    url = server.start()
    try:
        yield int(url.rstrip("/").rpartition(":")[2])
    finally:
        server.stop()


class Answer:
    """Status, headers (lower case) and body of one answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def fetch(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """Ask once, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()
