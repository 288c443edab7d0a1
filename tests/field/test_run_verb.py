"""`run`: the service as a user starts it, from a synthetic camera to records, and what it survives."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from field_parts import Start, end, get, health, rows, wait_for, wait_until

from benchmarks.mosquitto import PROGRAM, Broker, Subscriber
from edge_lsla.errors import BundleError
from edge_lsla.service.checking import check_config
from edge_lsla.service.config import read_config
from edge_lsla.service.parts import opened_parts
from edge_lsla.slots.slots import Slots

ROOT = Path(__file__).parents[2]


def test_the_shipped_configuration_is_valid(tmp_path: Path) -> None:
    config = read_config(ROOT / "deploy" / "field.toml")
    assert config.cameras[0].finding.regions == "motion"
    text = (ROOT / "deploy" / "field.toml").read_text(encoding="utf-8")
    # What is commented out must be valid too: it is what users take first.
    opened = re.sub(r"^# (\[|[a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    without_source = opened.replace('source = "0" ', '# source = "0" ')
    assert opened != text
    (tmp_path / "field.toml").write_text(without_source, encoding="utf-8")
    whole = read_config(tmp_path / "field.toml")
    assert whole.mqtt is not None
    assert whole.webhook is not None


def test_a_recording_is_watched_to_its_end(command: Any, configured: Callable[..., Path], tmp_path: Path) -> None:
    outcome = command("run", configured(frames=60))
    assert outcome.code == 0
    summary = outcome.json["summary"]
    assert summary["ended"] == "end of file"
    assert summary["unrecorded"] == summary["restarts"] == summary["gaps"] == 0
    assert 0 < summary["frames"] <= 60
    data = tmp_path / "data"
    arrived = rows(data, "SELECT track FROM events WHERE kind = 'arrived'")
    left = rows(data, "SELECT track FROM events WHERE kind = 'left'")
    assert arrived
    assert sorted(arrived) == sorted(left)
    (effort,) = rows(data, "SELECT source, seconds, frames, engine FROM effort")
    assert (effort[0], effort[2]) == ("trap-1", summary["frames"])
    assert 0 < effort[1] < 60
    assert re.fullmatch("[0-9a-f]{64}", effort[3])
    engines = {json.loads(body)["engine"] for (body,) in rows(data, "SELECT body FROM events WHERE kind = 'arrived'")}
    assert engines == {effort[3]}


def test_it_shows_itself_and_stops_when_asked(process: Start, configured: Callable[..., Path], tmp_path: Path) -> None:
    service = process("run", configured())
    port = wait_for(service, r"http://127\.0\.0\.1:([0-9]+)/")[1]
    wait_until(lambda: get(port, "/live/trap-1.jpg")[0] == 200)
    wait_until(lambda: health(port)["events"] > 0)
    found = health(port)
    assert found["model"]["slot"] == "a"
    assert [(one["what"], one["precision"]) for one in found["model"]["history"]] == [("installed", "fp32")]
    assert found["device"] == json.loads((tmp_path / "data" / "device.json").read_text())["device"] == "edge-lsla"
    assert found["cameras"][0]["name"] == "trap-1"
    assert found["frames"] > 0
    assert found["overhead_ms"]["p99"] > 0
    recent = json.loads(get(port, "/api/recent")[1])
    events = recent if isinstance(recent, list) else recent["events"]
    pictured = next(event for event in events if event["crop"])
    assert get(port, f"/crops/{pictured['id']}.jpg")[1].startswith(b"\xff\xd8")
    assert b"edge_lsla" in get(port, "/metrics")[1]
    code, seconds, error = end(service, signal.SIGTERM)
    assert (code, "Traceback" in error) == (0, False)
    assert seconds < 10  # two seconds, on a machine that has them
    assert rows(tmp_path / "data", "SELECT count(*) FROM effort") == [(1,)]


def test_after_a_kill_it_goes_on(process: Start, command: Any, configured: Callable[..., Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    service = process("run", configured())
    wait_for(service, "status page")
    wait_until(lambda: (data / "events.db").exists() and rows(data, "SELECT 1 FROM events WHERE kind = 'arrived'"))
    end(service, signal.SIGKILL)
    before = {track for (track,) in rows(data, "SELECT track FROM events WHERE kind = 'arrived'")}
    outcome = command("run", configured(frames=30))
    assert outcome.code == 0
    assert outcome.json["summary"]["unrecorded"] == 0
    left = [track for (track,) in rows(data, "SELECT track FROM events WHERE kind = 'left'")]
    assert before <= set(left)
    assert len(left) == len(set(left))


def test_two_services_do_not_share_a_folder(process: Start, command: Any, configured: Callable[..., Path]) -> None:
    service = process("run", configured())
    wait_for(service, "status page")
    outcome = command("run", configured(frames=5))
    assert outcome.code != 0
    assert str(configured().parent / "data") in outcome.json["error"]
    assert end(service, signal.SIGINT)[0] == 0


def test_check_starts_nothing(command: Any, configured: Callable[..., Path], tmp_path: Path) -> None:
    outcome = command("run", configured(), "--check")
    assert outcome.code == 0
    assert any(line.startswith("camera trap-1: synthetic") for line in outcome.json["checks"])
    assert not (tmp_path / "data").exists()
    wrong = configured(more='[[cameras]]\nname = "b"\nsource = "/dev/video97"\n[mqtt]\nhost = "b"\nusername = "u"\n'
                            'password_file = "/nowhere"\n')  # fmt: skip
    outcome = command("run", wrong, "--check")
    assert outcome.code == 2
    assert "no such camera: /dev/video97" in outcome.json["error"]
    assert "and 1 more" in outcome.json["error"]


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("threads = 1", "threads = 1000000", "model: threads are a number from 1 to 256"),
        ("threads = 1", 'backend = "x"', "model: no such backend 'x'"),
        ("threads = 1", 'backend = "tensorrt"', "model: bundle holds nothing for tensorrt fp32"),
        ('precision = "fp32"', 'precision = "../x"', "model: unknown precision '../x'"),
        ('precision = "fp32"', 'precision = "int8"', "model: bundle holds nothing for auto int8"),
        ("", '[mqtt]\nhost = "b"\nname = "webhook"\n[webhook]\nurl = "https://b/"', "two receivers have the same name"),
        ("", '[mqtt]\nhost = "b"\nca_file = "{config}"', "mqtt: cannot use the certificates or key"),
        ("", '[webhook]\nurl = "https://b/"\nca_file = "{config}"', "webhook: cannot use the certificates or key"),
    ],
)
def test_check_finds_what_run_would_refuse(configured: Callable[..., Path], old: str, new: str, match: str) -> None:
    path = configured()
    text = path.read_text()
    new = new.replace("{config}", str(path))
    path.write_text(text.replace(old, new) if old else f"{text}\n{new}\n")
    (wrong,) = (one.text for one in check_config(read_config(path), has_demo=False) if not one.good)
    assert match in wrong


def test_a_damaged_first_model_is_found_and_installed_again(
    configured: Callable[..., Path], tmp_path: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, installed = read_config(configured()), tmp_path / "data" / "models" / "a.lsla"
    Slots(installed.parent, config.slots).install(bundle)
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    installed.write_bytes(data)
    (wrong,) = (one.text for one in check_config(config, has_demo=False) if not one.good)
    assert wrong.startswith("model: ")
    assert str(installed) in wrong
    with pytest.raises(BundleError, match=str(installed)), opened_parts(config, tmp_path / "absent", print):
        pass
    with opened_parts(config, bundle, print) as parts:
        assert parts.model.describe()["slot"] == "a"
    assert installed.read_bytes() == bundle.read_bytes()
    assert "no installed model can be opened" in caplog.text
    assert all(one.good for one in check_config(config, has_demo=False))


def test_one_bad_camera_does_not_stop_the_others(
    command: Callable[..., Any], configured: Callable[..., Path], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"no video at all" * 100)
    outcome = command("run", configured(frames=60, more=f'[[cameras]]\nname = "b"\nsource = "{damaged}"\n'))
    assert outcome.code == 0
    assert outcome.json["summary"]["frames"] > 0
    assert outcome.json["summary"]["restarts"] == 0
    assert outcome.err.count("camera b: the recording") == 1


def test_when_every_camera_is_lost_the_process_ends(
    command: Callable[..., Any], configured: Callable[..., Path], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"no video at all" * 100)
    config = configured()
    config.write_text(config.read_text().replace('"synthetic"', f'"{damaged}"'))
    outcome = command("run", config)
    assert outcome.code == 1
    assert "every camera is lost: trap-1" in outcome.json["error"]


def test_another_configured_bundle_replaces_two_damaged_models(
    configured: Callable[..., Path], tmp_path: Path, bundle: Path
) -> None:
    from slot_parts import write

    config = read_config(configured())
    slots = Slots(tmp_path / "data" / "models", config.slots)
    slots.install(bundle)
    slots.install(write(tmp_path / "second.lsla", "second"))
    slots.begin_trial(slots.state().candidate.digest)
    for slot in ("a", "b"):
        (slots.path / f"{slot}.lsla").write_bytes(bundle.read_bytes()[:-100])
    with opened_parts(config, write(tmp_path / "third.lsla", "third"), print) as parts:
        assert parts.model.name == "third"


def test_check_asks_for_the_signature_that_run_will_ask_for(configured: Callable[..., Path], tmp_path: Path) -> None:
    path = configured(more=f'[slots]\nrequire_signature = true\ntrusted_keys = "{tmp_path}"')
    (wrong,) = (one.text for one in check_config(read_config(path), has_demo=False) if not one.good)
    assert "not signed" in wrong


@pytest.mark.broker
@pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: apt install mosquitto")
def test_what_is_recorded_arrives_at_the_broker(
    process: Start, configured: Callable[..., Path], tmp_path: Path
) -> None:
    broker = Broker(tmp_path)
    more = f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ntls = false\n[forward]\nlongest_wait_seconds = 1\n'
    with broker, Subscriber(broker.port, "edge-lsla/edge-lsla/trap-1/#") as subscriber:
        broker.stop()  # and is away while the service starts and records
        service = process("run", configured(more=more, regions="motion"))
        port = wait_for(service, r"http://127\.0\.0\.1:([0-9]+)/")[1]
        wait_until(lambda: health(port)["events"] > 0)
        wait_until(lambda: any(problem.startswith("mqtt has not taken") for problem in health(port)["problems"]))
        broker.start()
        wait_until(lambda: health(port)["deliveries"][0]["delivered"] > 0)
        assert end(service, signal.SIGTERM)[0] == 0
        upto = rows(tmp_path / "data", "SELECT upto FROM deliveries WHERE sink = 'mqtt'")[0][0]
        recorded = {one for (one,) in rows(tmp_path / "data", f"SELECT id FROM events WHERE seq <= {upto}")}
        assert recorded
        wait_until(lambda: recorded <= {json.loads(message.payload)["id"] for message in subscriber.messages})
