"""Metrics: what Prometheus's own tool says of the text, and what its numbers are."""

from __future__ import annotations

import math
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families
from status_parts import HOSTILE, FieldView, fetch, served

from edge_lsla.status.metrics import exposition

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool: apt-get install prometheus")


def values(text: bytes) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and the values of its labels."""
    families = text_string_to_metric_families(text.decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


@needs_promtool
@pytest.mark.parametrize(
    "view", [FieldView(), FieldView(problems=False), FieldView(HOSTILE)], ids=["ill", "well", "hostile"]
)
def test_promtool_has_nothing_against_it(view: FieldView) -> None:
    with served(view) as port:
        answer = fetch(port, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = subprocess.run([str(PROMTOOL), "check", "metrics"], input=answer.body, capture_output=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


@needs_promtool
def test_promtool_would_object() -> None:
    """These tests can fail."""
    text = b"# TYPE edge_lsla_Frames counter\nedge_lsla_Frames 1\n"
    found = subprocess.run([str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, check=False)
    assert found.returncode != 0
    assert b"_total" in found.stderr + found.stdout


def test_the_numbers_are_those_of_health() -> None:
    view = FieldView()
    health = view.health()
    found = values(exposition(health))
    expected = {
        ("edge_lsla_healthy",): 0,
        ("edge_lsla_problems",): 3,
        ("edge_lsla_frames_total",): health["frames"],
        ("edge_lsla_events_total",): health["events"],
        ("edge_lsla_stage_restarts_total",): 1,
        ("edge_lsla_uptime_seconds",): health["uptime_seconds"],
        ("edge_lsla_start_time_seconds",): health["started"],
        ("edge_lsla_temperature_celsius",): 61.5,
        ("edge_lsla_memory_bytes",): 312.4e6,
        ("edge_lsla_camera_watching", "trap-1"): 1,
        ("edge_lsla_camera_watching", "trap-2"): 0,
        ("edge_lsla_camera_frames_per_second", "trap-1"): 14.8,
        ("edge_lsla_camera_dropped_frames_total", "trap-2"): 1295,
        ("edge_lsla_camera_gaps_total", "trap-2"): 3,
        ("edge_lsla_delivery_connected", "field-mqtt"): 0,
        ("edge_lsla_delivery_backlog_events", "field-mqtt"): 1204,
        ("edge_lsla_delivered_events_total", "webhook"): 8412,
        ("edge_lsla_latency_seconds", "50"): 0.01142,
        ("edge_lsla_overhead_seconds", "99"): 0.00602,
        ("edge_lsla_queue_length", "frames"): 1,
        ("edge_lsla_store_bytes",): 6.412e9,
        ("edge_lsla_store_free_bytes",): 1.91e9,
        ("edge_lsla_store_undelivered_events",): 1204,
        ("edge_lsla_pace_frames_per_second",): 15,
        ("edge_lsla_clock_state", "synchronised"): 1,
        ("edge_lsla_clock_state", "jumped"): 0,
        (
            "edge_lsla_model_info",
            *(str(health["model"][key]) for key in ("backend", "digest", "name", "precision", "slot")),
        ): 1,
    }
    assert {key: found.get(key) for key in expected} == pytest.approx(expected, rel=1e-12)


def test_what_is_not_known_is_left_out() -> None:
    unknown = {
        "temperature_c": None,
        "pace": {"rate": None},
        "latency_ms": {"p50": math.nan},
        "model": None,
        "store": None,
    }
    for health in ({}, unknown):
        found = values(exposition(health))
        assert set(found) == {
            ("edge_lsla_problems",),
            ("edge_lsla_model_info", "", "", "", "", ""),
            *(("edge_lsla_clock_state", state) for state in ("synchronised", "unsynchronised", "jumped", "unknown")),
        }


def test_hostile_names_stay_inside_their_label() -> None:
    health = {"cameras": [{"name": f'{name}"}} 1\nedge_lsla_frames_total 7', "watching": True} for name in HOSTILE]}
    found = values(exposition(health))
    assert ("edge_lsla_frames_total",) not in found
    assert sum(name[0] == "edge_lsla_camera_watching" for name in found) == len(HOSTILE)
