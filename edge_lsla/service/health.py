"""How the running service is, for the status page and the metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_lsla.errors import EdgeLslaError
from edge_lsla.governor.governor import Pace
from edge_lsla.records.store import Store, StoreState
from edge_lsla.service.config import Config
from edge_lsla.service.looking import Seen
from edge_lsla.service.parts import Eye, Parts
from edge_lsla.service.recording import to_jpeg
from edge_lsla.service.stages import Stages

PICTURE_QUALITY = 80
STEP_SECONDS = 3600.0  # of the counts over time
BACKLOG_NOTED = 1000  # events that wait for a receiver


class Health:
    """Everything that `edge_lsla.status.view.View` asks for.

    Attributes:
        device: the configured name.
        pace: what the governor last decided.
        temperature_c: of the hottest sensor, degrees Celsius; None where it is not known.
        memory_mb: resident memory.
        page_problem: why the status page is not up; "" where it is.
    """

    def __init__(self, config: Config, parts: Parts, stages: Stages) -> None:
        self._parts, self._stages, self.device = parts, stages, config.device
        self._eyes = {eye.name: eye for eye in parts.eyes}
        self._started, self._began = time.time(), time.monotonic()
        self.pace = Pace(None)
        self.temperature_c: float | None = None
        self.page_problem = ""
        self._drawn: dict[str, tuple[Seen, bytes | None]] = {}
        self.memory_mb = 0.0

    def cameras(self) -> list[str]:
        """Return the configured names."""
        return list(self._eyes)

    def picture(self, camera: str) -> bytes | None:
        """Return the newest frame with what was found in it, JPEG."""
        eye = self._eyes.get(camera)
        seen = eye.looking.seen if eye is not None else None
        if seen is None:
            return None
        drawn = self._drawn.get(camera)
        if drawn is None or drawn[0] is not seen:  # asked for twice a second, by every viewer
            drawn = self._drawn[camera] = (seen, _draw(seen))
        return drawn[1]

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest events; `crop` says whether there is one."""
        return [{**event, "crop": bool(event.get("crop"))} for event in self._parts.store.recent(limit)]

    def counts(self, hours: float) -> dict[str, Any]:
        """Return individuals by label, in steps over the last hours."""
        now = time.time()
        return self._parts.store.counts(now - hours * 3600, now, STEP_SECONDS)

    def crop(self, event_id: str) -> bytes | None:
        """Return an event's crop, JPEG."""
        return self._parts.store.crop(event_id)

    def health(self) -> dict[str, Any]:
        """Return the figures, JSON-ready; the keys are those of the status page and the metrics."""
        parts = self._parts
        store = _store_state(parts.store)
        cameras = [_camera(eye) for eye in parts.eyes]
        deliveries = [forwarder.state for forwarder in parts.forwarders]
        served = parts.model.model
        model = {**getattr(served, "describe", dict)(), **parts.model.describe()}
        problems = [*self._problems(deliveries, model.get("problem")), *store.problems]
        return {
            "ok": not problems,
            "problems": problems,
            "device": self.device,
            "started": self._started,
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            "model": model,
            "cameras": cameras,
            "latency_ms": _percentiles([ms for eye in parts.eyes for ms in list(eye.looking.latencies)]),
            "overhead_ms": _percentiles(list(parts.recording.overheads)),
            "frames": sum(eye.looking.frames for eye in parts.eyes),
            "failed": sum(eye.looking.failed for eye in parts.eyes),
            "events": parts.recording.events,
            "queues": {"frames": parts.engine.waiting, "events": parts.recording.waiting},
            "deliveries": [
                {
                    "name": one.name,
                    "connected": one.connected,
                    "backlog": one.backlog,
                    "delivered": one.delivered,
                    "last_error": one.last_error,
                }
                for one in deliveries
            ],
            "store": {
                "bytes": store.bytes,
                "free_bytes": store.free_bytes,
                "events": store.events,
                "undelivered": store.undelivered,
            },
            "temperature_c": self.temperature_c,
            "pace": {"rate": self.pace.rate, "reason": self.pace.reason},
            "clock": parts.clock_state,
            "memory_mb": round(self.memory_mb, 1),
            "restarts": self._stages.restarts,
            **parts.sampling.facts(),
        }

    def _problems(self, deliveries: Sequence[Any], model: str | None) -> list[str]:
        found = []
        for eye in self._parts.eyes:
            state = eye.camera.state
            if not (state.watching or state.paused or state.ended):
                lasts = duration(time.time() - state.since)
                found.append(f"camera {eye.name} does not watch, for {lasts}: {state.last_error or 'it starts'}")
        if self._parts.recording.problem:
            found.append(self._parts.recording.problem)
        for one in deliveries:
            if not one.connected or one.backlog > BACKLOG_NOTED:
                found.append(f"{one.name} has not taken {one.backlog} events: {one.last_error or 'it is slow'}")
        if self._parts.clock_state == "jumped":
            found.append(f"the clock jumped by {self._parts.clock.jump_seconds:+.0f} s: times around it may be wrong")
        if self._parts.clock_state == "unsynchronised":
            found.append("the clock is not synchronised: times may be wrong")
        found += [one for one in (model, self.page_problem) if one]
        return [*found, *self._parts.sampling.problems, *self._stages.problems]


def duration(seconds: float) -> str:
    """Return a time in the greatest unit that it has twice: "44 s", "90 s", "2 min", "3 h", "5 days"."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _store_state(store: Store) -> StoreState:
    try:
        return store.state
    except EdgeLslaError as error:  # the disk is gone
        return StoreState(0, 0, 0, 0, (str(error),))


def _draw(seen: Seen) -> bytes | None:
    from edge_lsla.sinks.annotate import annotate

    found = seen.found.detections
    whole = [one for one in found if (one.box.width, one.box.height) == seen.frame.pixels.shape[1::-1]]
    boxes = [(one.box, one.label, one.confidence) for one in found if one not in whole]
    shown = whole[0] if whole else None
    pixels = annotate(
        seen.frame.pixels, shown.predictions if shown else (), label=shown.label if shown else None, regions=boxes
    )
    return to_jpeg(pixels, PICTURE_QUALITY)


def _camera(eye: Eye) -> dict[str, Any]:
    state = eye.camera.state
    return {
        "name": eye.name,
        "watching": state.watching,
        "fps": round(eye.looking.fps, 2),
        "dropped": state.dropped,
        "gaps": eye.looking.gaps,
        "last_error": None if state.watching else state.last_error,
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    found = np.percentile(np.asarray(values), (50, 95, 99))
    return {name: round(float(value), 3) for name, value in zip(("p50", "p95", "p99"), found)}
