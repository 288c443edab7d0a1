"""A running service and a new model: bad ones are refused or rolled back, a good one answers without a lost batch."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from field_parts import Start, end, health, rows, wait_for, wait_until
from slot_parts import write

QUICK = """
[slots]
shadow_batches = 5
shadow_seconds = 0.2
shadow_share = 1.0
probation_seconds = 0.2
probation_batches = 5
latency_ratio = 1000
spare_disk_mb = 0
spare_memory_mb = 0
{more}
"""


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """As good as the first: the same network under another name."""
    return write(tmp_path / "second.lsla", "second")


def model_events(data: Path) -> list[dict[str, Any]]:
    found = rows(data, "SELECT body FROM events WHERE kind = 'model' ORDER BY seq")
    return [json.loads(body)["details"] for (body,) in found]


def start(process: Start, config: Path) -> tuple[Any, str]:
    service = process("run", config)
    port = wait_for(service, r"http://127\.0\.0\.1:([0-9]+)/")[1]
    wait_until(lambda: health(port)["frames"] > 0)
    return service, port


def test_a_good_model_is_switched_to_without_a_lost_frame(
    process: Start, command: Callable[..., Any], configured: Callable[..., Path], tmp_path: Path, second: Path
) -> None:
    config = configured(more=QUICK.format(more=""))
    service, port = start(process, config)
    outcome = command("update", second, "--config", config, "--wait", "--timeout", "90")
    assert (outcome.code, outcome.json["outcome"]) == (0, "promoted")
    found = health(port)
    assert (found["model"]["name"], found["model"]["slot"], found["model"]["phase"]) == ("second", "b", "steady")
    assert (found["restarts"], found["cameras"][0]["gaps"]) == (0, 0)
    assert found["failed"] == 0
    code, _, text = end(service, signal.SIGTERM)
    assert code == 0
    events = model_events(tmp_path / "data")
    assert [event["what"] for event in events] == ["switched", "promoted"]
    # One can match all that names the model: the file, its passport, the slots, the page, the events and the log.
    inspected = command("inspect", second)
    file, artifact = inspected.json["file_sha256"], inspected.json["artifacts"][0]["sha256"]
    assert file == hashlib.sha256(second.read_bytes()).hexdigest()
    assert re.search(rf"{file}\s+file\s+second.lsla", inspected.err)
    assert re.search(rf"{artifact}\s+artifact", inspected.err)
    status = command("update", "--status", "--config", config).json
    assert (status["phase"], status["active"]["digest"]) == ("steady", inspected.json["manifest_sha256"])
    known = [status["active"], *status["history"][1:], *found["model"]["history"][:-1], *events]
    assert {(one["file_sha256"], one["artifact_sha256"]) for one in known} == {(file, artifact)}
    assert (found["model"]["file_sha256"], found["model"]["digest"]) == (file, artifact)
    assert f"model second (file {file[:12]}, artifact {artifact[:12]}, fp32): switched: " in text
    # After a restart the new one answers at once.
    service, port = start(process, config)
    assert health(port)["model"]["name"] == "second"
    outcome = command("update", "--rollback", "--config", config)
    assert outcome.code == 0
    wait_until(lambda: health(port)["model"]["name"] == "first")
    assert end(service, signal.SIGTERM)[0] == 0


def test_bad_models_are_refused_and_the_active_one_goes_on(
    process: Start, command: Callable[..., Any], configured: Callable[..., Path], tmp_path: Path, second: Path
) -> None:
    config = configured(more=QUICK.format(more=""))
    service, port = start(process, config)
    flipped, cut = tmp_path / "flipped.lsla", tmp_path / "cut.lsla"
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(second.read_bytes()[:-100])
    failing = write(tmp_path / "failing.lsla", "failing", logits_off_by=3.0)
    other = write(tmp_path / "other.lsla", "other", labels=("moth", "wasp", "fly"))
    for bad, code in ((flipped, 2), (cut, 2), (tmp_path / "absent.lsla", 2), (failing, 4), (other, 4)):
        outcome = command("update", bad, "--config", config)
        assert (outcome.code, str(bad) in outcome.json["error"]) == (code, True), outcome.json
    # One that reaches the slots by another way is tested by the service itself.
    from edge_lsla.slots.settings import SlotSettings
    from edge_lsla.slots.slots import Slots

    Slots(tmp_path / "data" / "models", SlotSettings(spare_disk_mb=0)).install(failing)
    wait_until(lambda: model_events(tmp_path / "data"))
    (refused,) = model_events(tmp_path / "data")
    assert (refused["what"], refused["name"]) == ("refused", "failing")
    assert health(port)["model"]["name"] == "first"
    assert health(port)["restarts"] == 0
    assert end(service, signal.SIGTERM)[0] == 0


def test_a_signature_is_required_where_configured(
    command: Callable[..., Any], configured: Callable[..., Path], tmp_path: Path, second: Path, bundle: Path
) -> None:
    pytest.importorskip("cryptography")
    key, stranger = tmp_path / "release.pem", tmp_path / "stranger.pem"
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    signed = {}
    for path in (key, stranger):
        assert command("bundle", "keygen", path).code == 0
        signed[path] = tmp_path / f"{path.stem}.lsla"
        shutil.copy(second, signed[path])
        assert command("bundle", "sign", signed[path], "--key", path).code == 0
    shutil.copy(next(tmp_path.glob("release*.pub")), trusted)
    (tmp_path / "data").mkdir()
    config = configured(more=QUICK.format(more=f'require_signature = true\ntrusted_keys = "{trusted}"'))
    for bad in (second, signed[stranger]):
        outcome = command("update", bad, "--config", config)
        assert (outcome.code, "sign" in outcome.json["error"]) == (4, True)
    assert command("update", signed[key], "--config", config).code == 0


def test_a_model_that_is_too_slow_is_given_up(
    process: Start, command: Callable[..., Any], configured: Callable[..., Path], tmp_path: Path, second: Path
) -> None:
    config = configured(more=QUICK.format(more="latency_limit_ms = 0.0001"))
    service, port = start(process, config)
    outcome = command("update", second, "--config", config, "--wait", "--timeout", "90")
    assert outcome.code == 4
    assert "ms" in outcome.json["error"]
    assert health(port)["model"]["name"] == "first"
    frames = health(port)["frames"]
    wait_until(lambda: health(port)["frames"] > frames)
    assert end(service, signal.SIGTERM)[0] == 0
    assert [event["what"] for event in model_events(tmp_path / "data")] == ["refused"]
