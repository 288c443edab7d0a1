"""On a full or read-only disk the store says so in one sentence, keeps what it has, and goes on when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NAMESPACE = ["unshare", "-rm"]


def can_mount() -> bool:
    try:
        return (
            subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
        )
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not can_mount(), reason="no disk can be mounted in a namespace here")


def run(scenario: str, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    command = [*NAMESPACE, sys.executable, HERE / "small_disks.py", scenario, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_event_without_room_is_refused_whole_and_recorded_later(tmp_path: Path) -> None:
    found = run("full_while_running", tmp_path)
    assert "the event cannot be recorded, the disk is full" in found["said"]
    assert found["again"].startswith("StoreFullError: the event cannot be recorded, the disk is full")
    assert found["again"].endswith("free some space")
    assert found["events"] == found["readable"] == found["recorded"] - 1
    assert found["crops"] == 5
    assert found["whole"]
    assert found["kept"]
    assert found["problems"] == []


def test_an_event_whose_crop_does_not_fit_is_recorded_without_it(tmp_path: Path) -> None:
    found = run("room_for_the_row_only", tmp_path)
    assert found["crop"] is None
    assert found["details"] == {"crop": None, "crop_missing": "No space left on device"}
    assert found["crops"] == 1
    assert found["state"] == ["events are recorded without crops: No space left on device"]


def test_a_store_opens_on_a_full_disk_and_makes_room(tmp_path: Path) -> None:
    found = run("full_at_opening", tmp_path)
    assert found["opened"] == 2  # the individual was closed
    assert found["crops"] == 1
    assert found["events"] == 3
    assert found["refused"].startswith("StoreFullError: the records cannot be opened, the disk is full")


def test_retention_needs_no_room_to_make_some(tmp_path: Path) -> None:
    found = run("retention_on_a_full_disk", tmp_path)
    assert found["crops"] == 5
    assert found["undelivered"] == 0
    assert found["lacking"] == 0
    assert found["free"] > 0.4e6


def test_a_read_only_disk_can_be_read(tmp_path: Path) -> None:
    found = run("read_only", tmp_path)
    assert found["refused"].startswith("UsageError: the folder of the records cannot be written")
    assert found["read"] == 1
    assert found["problems"] == []
