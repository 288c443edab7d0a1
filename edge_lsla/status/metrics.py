"""The service's health in Prometheus's text format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from edge_lsla.events import CLOCKS

__all__ = ["CONTENT_TYPE", "exposition"]
PREFIX = "edge_lsla_"
MODEL_LABELS = ("name", "digest", "precision", "backend", "slot")
MILLISECOND = 0.001
MEGABYTE = 1e6
Samples = Sequence[tuple[tuple[str, ...], Optional[float]]]
# name, kind, what it says, key of health(), factor to the unit in the name
SINGLE = (
    ("healthy", "gauge", "Whether the service reports no problem", "ok", 1),
    ("start_time_seconds", "gauge", "When the service was started, seconds since the epoch", "started", 1),
    ("uptime_seconds", "gauge", "How long the service has been running", "uptime_seconds", 1),
    ("frames", "counter", "Frames that were looked at", "frames", 1),
    ("events", "counter", "Events that were recorded", "events", 1),
    ("stage_restarts", "counter", "Stages of the service that were restarted", "restarts", 1),
    ("temperature_celsius", "gauge", "The device's temperature", "temperature_c", 1),
    ("memory_bytes", "gauge", "Memory of the service", "memory_mb", MEGABYTE),
)
# the same, for a list of health() whose rows carry a name
LISTED = (
    ("cameras", "camera", "camera_watching", "gauge", "Whether the camera gives frames", "watching"),
    ("cameras", "camera", "camera_frames_per_second", "gauge", "Frame rate of the camera", "fps"),
    ("cameras", "camera", "camera_dropped_frames", "counter", "Frames left out for newer ones", "dropped"),
    ("cameras", "camera", "camera_gaps", "counter", "Times that the camera stopped giving frames", "gaps"),
    ("deliveries", "sink", "delivery_connected", "gauge", "Whether the receiver answers", "connected"),
    ("deliveries", "sink", "delivery_backlog_events", "gauge", "Events that wait for delivery", "backlog"),
    ("deliveries", "sink", "delivered_events", "counter", "Events that the receiver acknowledged", "delivered"),
)
STORE = (
    ("store_bytes", "Size of the event store with its crops", "bytes"),
    ("store_free_bytes", "Space left on the event store's disk", "free_bytes"),
    ("store_events", "Events in the store", "events"),
    ("store_undelivered_events", "Events in the store that some receiver has not got", "undelivered"),
)


def exposition(health: Mapping[str, Any]) -> bytes:
    """Return the text that Prometheus reads, for what `View.health` gave; what is missing or null is left out."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Health(health))
    return generate_latest(registry)


class _Health(Collector):
    def __init__(self, health: Mapping[str, Any]) -> None:
        self.health = health

    def collect(self) -> Iterable[Metric]:
        health = self.health
        for name, kind, text, key, factor in SINGLE:
            yield _family(name, kind, text, (), [((), _number(health.get(key), factor))])
        yield _gauge("problems", "Problems that the service reports", (), [((), len(health.get("problems") or ()))])
        model = health.get("model") or {}
        values = tuple(_text(model.get(label)) for label in MODEL_LABELS)
        about = "The model that watches; digest: SHA-256 of the artifact that runs"
        yield _gauge("model_info", about, MODEL_LABELS, [(values, 1)])
        for group, label, name, kind, text, key in LISTED:
            rows = {_text(row.get("name")): _number(row.get(key)) for row in health.get(group) or ()}
            yield _family(name, kind, text, (label,), [((row,), value) for row, value in rows.items()])
        for name, text in (("latency", "From frame to result"), ("overhead", "What the service adds to inference")):
            found = health.get(f"{name}_ms") or {}
            samples = [((key.lstrip("p"),), _number(value, MILLISECOND)) for key, value in found.items()]
            yield _gauge(f"{name}_seconds", f"{text}, percentiles", ("percentile",), samples)
        queues = [((_text(name),), _number(value)) for name, value in (health.get("queues") or {}).items()]
        yield _gauge("queue_length", "What waits inside the service", ("queue",), queues)
        store = health.get("store") or {}
        for name, text, key in STORE:
            yield _gauge(name, text, (), [((), _number(store.get(key)))])
        rate = (health.get("pace") or {}).get("rate")
        yield _gauge("pace_frames_per_second", "Most frames a second that are allowed", (), [((), _number(rate))])
        drift = health.get("drift") or {}
        ratio = max((one.get("ratio", 0) for one in drift.get("worst") or ()), default=None)
        yield _gauge("drift_ratio", "How often values leave their range, to calibration, worst layer", (),
                     [((), _number(ratio))])  # fmt: skip
        clock = health.get("clock", "unknown")
        states = [((state,), float(state == clock)) for state in CLOCKS]
        yield _gauge("clock_state", "How far the device's clock can be trusted", ("state",), states)


def _family(name: str, kind: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(PREFIX + name, text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    return _family(name, "gauge", text, labels, samples)


def _number(value: Any, factor: float = 1) -> float | None:
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
        return None
    return float(value) * factor


def _text(value: Any) -> str:
    """Return a label's value; half a surrogate pair, which no UTF-8 can carry, becomes a question mark."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode("utf-8")
