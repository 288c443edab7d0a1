"""Delivery to a real mosquitto: what arrives, where, and what the broker may refuse."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from delivery_parts import QUICK, Memory, broker_settings, event
from paho.mqtt.client import MQTTMessage

from benchmarks.mosquitto import PROGRAM, Broker, Subscriber, wait_for
from edge_lsla.delivery.forwarder import Forwarder
from edge_lsla.delivery.mqtt import MqttSender
from edge_lsla.delivery.sender import DeliveryError
from edge_lsla.errors import EdgeLslaError

pytestmark = [pytest.mark.broker, pytest.mark.skipif(PROGRAM is None, reason="no mosquitto: apt-get install mosquitto")]
NEVER = threading.Event()


def events_in(messages: list[MQTTMessage]) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in messages if message.payload.startswith(b"{")]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_events_arrive_as_json_on_their_topics_and_the_status_with_them(broker: Broker, version: str) -> None:
    outbox = Memory(45)  # more than the window
    outbox.add(event(46, source=""))
    sender = MqttSender(broker_settings(broker.port, version=version), "trap 1")
    with Subscriber(broker.port) as subscriber:
        with Forwarder(outbox, sender, QUICK) as forwarder:
            wait_for(lambda: len(events_in(subscriber.messages)) == 46)
            wait_for(lambda: forwarder.state.backlog == 0)
            assert forwarder.state.connected
            assert forwarder.state.last_error is None
        wait_for(lambda: subscriber.messages[-1].topic == "farm/status")
    assert events_in(subscriber.messages) == [{**item.to_dict(), "device": "trap 1"} for _, item in outbox.events]
    assert [message.topic for message in subscriber.messages] == [
        "farm/status",
        *["farm/trap-1/arrived"] * 45,
        "farm/device/arrived",
        "farm/status",
    ]
    assert [message.payload for message in subscriber.messages if message.topic == "farm/status"] == [
        b"online",
        b"offline",
    ]
    assert {message.qos for message in subscriber.messages} == {1}
    assert "edge-lsla-trap-1-mqtt" in broker.log()  # the same client identifier each time


def test_mqtt_5_carries_the_id_and_the_media_type_and_no_expiry(broker: Broker) -> None:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    received: list[MQTTMessage] = []
    ready = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: received.append(message)
    client.connect("127.0.0.1", broker.port)
    client.subscribe("farm/+/arrived", qos=1)
    client.loop_start()
    assert ready.wait(30)
    sender = MqttSender(broker_settings(broker.port), "trap-1")
    assert sender.send([(7, event(1))], NEVER) == 7
    wait_for(lambda: received)
    sender.close()
    client.disconnect()
    client.loop_stop()
    assert received[0].properties.json() == {"ContentType": "application/json", "UserProperty": [("id", "id1")]}


def test_a_device_that_vanishes_is_offline_by_its_last_will(broker: Broker) -> None:
    sender = MqttSender(broker_settings(broker.port), "trap-1")
    with Subscriber(broker.port) as subscriber:
        sender.send([], NEVER)
        wait_for(lambda: [message.payload for message in subscriber.messages] == [b"online"])
        assert sender._link is not None
        connection = sender._link._client.socket()
        assert connection is not None
        connection.close()  # without a word
        wait_for(lambda: [message.payload for message in subscriber.messages] == [b"online", b"offline"])
    sender.close()


def test_hostile_names_make_one_level_of_a_topic_each(broker: Broker) -> None:
    names = ["a/b", "#", "+", "$SYS", "nul\0", "new\nline", "ä 1", "\ud800", "x" * 5000, "%2F", "../.."]
    batch = [(number, event(number, source=name)) for number, name in enumerate(names, 1)]
    sender = MqttSender(broker_settings(broker.port), "trap-1")
    with Subscriber(broker.port, "farm/+/arrived") as subscriber:
        assert sender.send(batch, NEVER) == len(names)
        wait_for(lambda: len(subscriber.messages) == len(names))
    sender.close()
    assert [message["source"] for message in events_in(subscriber.messages)] == names  # whole, in the payload
    levels = [message.topic.split("/")[1] for message in subscriber.messages]
    assert len(set(levels)) == len(levels)
    assert [levels[number] for number in (0, 1, 2, 6, 9, 10)] == ["a%2Fb", "%23", "%2B", "ä 1", "%252F", "..%2F.."]


def test_nothing_that_the_broker_sends_is_acted_on(broker: Broker) -> None:
    sender = MqttSender(broker_settings(broker.port), "trap-1")
    assert sender.send([(1, event(1))], NEVER) == 1
    for topic in ("farm/trap-1/arrived", "farm/status", "edge-lsla-trap-1-mqtt/set", "$SYS/x"):
        with Subscriber(broker.port) as other:
            other._client.publish(topic, b'{"stop": true}', qos=1).wait_for_publish(30)
    assert sender.send([(2, event(2))], NEVER) == 2
    sender.close()
    sent = [line for line in broker.log().splitlines() if "edge-lsla-trap-1-mqtt" in line]
    assert not [line for line in sent if "SUBSCRIBE from" in line or "Sending PUBLISH to edge" in line]


def test_crops_go_before_their_events_and_never_hold_them_up(broker: Broker) -> None:
    def crop(identifier: str) -> bytes | None:
        if identifier == "id3":
            raise EdgeLslaError("the crop cannot be read", "/data/3.jpg", "nothing to do")
        return None if identifier == "id2" else b"\xff\xd8" + identifier.encode()

    sender = MqttSender(broker_settings(broker.port, crops=True), "trap-1", crop)
    with Subscriber(broker.port, "farm/trap-1/#") as subscriber:
        assert sender.send([(number, event(number)) for number in (1, 2, 3, 4)], NEVER) == 4
        wait_for(lambda: len(subscriber.messages) == 6)
    sender.close()
    arrived, crops = "farm/trap-1/arrived", "farm/trap-1/arrived/crop/"
    topics = [message.topic for message in subscriber.messages]
    assert topics == [crops + "id1", arrived, arrived, arrived, crops + "id4", arrived]
    assert subscriber.messages[0].payload == b"\xff\xd8id1"


def test_an_event_that_is_no_json_is_refused_here(broker: Broker) -> None:
    sender = MqttSender(broker_settings(broker.port), "trap-1")
    for details in ({"x": float("nan")}, {"x": {1}}):
        with pytest.raises(DeliveryError, match="cannot be written as JSON") as caught:
            sender.send([(1, event(1)), (2, event(2, **details)), (3, event(3))], NEVER)
        assert (caught.value.upto, caught.value.refused) == (1, 2)
    sender.close()


def test_a_wrong_password_is_one_sentence_and_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "trap", "correct horse"], check=True)
    secret = tmp_path / "password"
    secret.write_text("wrong battery\n")
    secret.chmod(0o600)
    with Broker(tmp_path, f"allow_anonymous false\npassword_file {tmp_path}/users") as broker:
        for version, said in (("5", "Not authorized"), ("3.1.1", "Not authorized")):
            options = {"username": "trap", "password_file": secret, "version": version}
            outbox = Memory(2)
            sender = MqttSender(broker_settings(broker.port, **options), "trap-1")
            with Forwarder(outbox, sender, QUICK) as forwarder:
                wait_for(lambda forwarder=forwarder: forwarder.state.last_error)
                assert forwarder.state.last_error == (
                    f"the broker refuses the connection: {said}: 127.0.0.1:{broker.port}; "
                    "check username, password_file or password_env, and what the broker allows"
                )
                assert not forwarder.state.connected
                secret.write_text("correct horse\n")  # mended while it runs
                wait_for(lambda outbox=outbox: outbox.backlog("mqtt") == 0)
            secret.write_text("wrong battery\n")
        assert sender.warnings == ()
        secret.chmod(0o644)
        assert (
            "every user of this machine can read the secret"
            in MqttSender(broker_settings(broker.port, username="trap", password_file=secret), "trap-1").warnings[0]
        )
        for unusable, why in ((b"", "empty or not one line"), (b"\xff\xfe\x00secret", "empty or not one line")):
            secret.write_bytes(unusable)
            with pytest.raises(DeliveryError, match=why) as caught:
                sender.send([], NEVER)
            assert "secret" not in str(caught.value).replace(str(secret), "")
            assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "battery" not in caplog.text
    assert "horse" not in caplog.text


def test_the_password_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "trap", "correct horse"], check=True)
    monkeypatch.setenv("TRAP_PASSWORD", "correct horse")
    with Broker(tmp_path, f"allow_anonymous false\npassword_file {tmp_path}/users") as broker:
        options = {"username": "trap", "password_env": "TRAP_PASSWORD"}
        sender = MqttSender(broker_settings(broker.port, **options), "trap-1")
        assert sender.send([(1, event(1))], NEVER) == 1
        sender.close()
        monkeypatch.delenv("TRAP_PASSWORD")
        with pytest.raises(DeliveryError, match=r"the password is empty .*: environment variable TRAP_PASSWORD"):
            sender.send([], NEVER)


def test_a_broker_that_forbids_the_topic_loses_no_event(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic read farm/#\ntopic write farm/status\n")
    outbox = Memory(5)
    with Broker(tmp_path, f"allow_anonymous true\nacl_file {rules}") as broker:
        with Forwarder(outbox, MqttSender(broker_settings(broker.port), "trap-1"), QUICK) as forwarder:
            refusal = "the broker refuses a message: Not authorized"
            said = f"{refusal}: 127.0.0.1:{broker.port}; see what the broker allows"
            # Not always the first that is said: mosquitto 2.0 hangs up after it, which may overtake its answer.
            wait_for(lambda: forwarder.state.last_error == said)
        broker.stop()
        assert outbox.backlog("mqtt") == 5
        assert forwarder.state.set_aside == 0
        rules.write_text("topic readwrite #\n")
        broker.start()
        with Subscriber(broker.port, "farm/trap-1/#") as subscriber:
            with Forwarder(outbox, MqttSender(broker_settings(broker.port), "trap-1"), QUICK):
                wait_for(lambda: outbox.backlog("mqtt") == 0)
            wait_for(lambda: len(subscriber.messages) == 5)


@pytest.mark.parametrize("limit", ["max_packet_size 2000", "message_size_limit 2000"])
def test_a_message_too_large_for_the_broker_is_set_aside_and_the_others_arrive(tmp_path: Path, limit: str) -> None:
    """mosquitto 2.0 announces the first limit; beyond the second it sends a code that is no PUBACK's and hangs up."""
    outbox = Memory(3)
    outbox.add(event(4, note="x" * 3000))
    outbox.add(event(5))
    with (
        Broker(tmp_path, f"allow_anonymous true\n{limit}") as broker,
        Subscriber(broker.port, "farm/+/+") as subscriber,
    ):
        with Forwarder(outbox, MqttSender(broker_settings(broker.port), "trap-1"), QUICK) as forwarder:
            wait_for(lambda: outbox.backlog("mqtt") == 0)
            state = forwarder.state
        wait_for(lambda: {item["id"] for item in events_in(subscriber.messages)} == {"id1", "id2", "id3", "id5"})
    assert state.set_aside == 1
    assert state.last_error is not None
    assert "event id4 was refused" in state.last_error
    words = "larger than the broker takes (2000)" if "packet" in limit else "the broker sent what is no MQTT"
    assert words in state.last_error


def test_a_broker_that_hangs_up_on_a_large_message_under_3_1_1(tmp_path: Path) -> None:
    outbox = Memory(3)
    outbox.add(event(4, note="x" * 3000))
    outbox.add(event(5))
    with (
        Broker(tmp_path, "allow_anonymous true\nmax_packet_size 2000") as broker,
        Subscriber(broker.port, "farm/+/+") as subscriber,
    ):
        sender = MqttSender(broker_settings(broker.port, version="3.1.1"), "trap-1")
        with Forwarder(outbox, sender, QUICK) as forwarder:
            wait_for(lambda: outbox.backlog("mqtt") == 0)
            assert forwarder.state.set_aside == 1
        wait_for(lambda: {item["id"] for item in events_in(subscriber.messages)} == {"id1", "id2", "id3", "id5"})


def test_a_broker_that_restarts_amid_a_batch_gets_everything(broker: Broker) -> None:
    outbox = Memory(600)
    with Subscriber(broker.port, "farm/trap-1/#") as subscriber:
        with Forwarder(outbox, MqttSender(broker_settings(broker.port, window=5), "trap-1"), QUICK) as forwarder:
            wait_for(lambda: len(subscriber.messages) > 50)
            broker.stop()
            wait_for(lambda: forwarder.state.last_error)
            broker.start()
            wait_for(lambda: outbox.backlog("mqtt") == 0)
            assert forwarder.state.set_aside == 0
        wait_for(lambda: len({item["id"] for item in events_in(subscriber.messages)}) == 600)


def test_a_lost_idle_connection_is_noticed_and_made_anew(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_lsla.delivery.forwarder.LOOK_SECONDS", 0.1)
    outbox = Memory()
    with Forwarder(outbox, MqttSender(broker_settings(broker.port), "trap-1"), QUICK) as forwarder:
        wait_for(lambda: forwarder.state.connected)
        before = forwarder.state.since
        broker.stop()
        wait_for(lambda: not forwarder.state.connected)
        broker.start()
        wait_for(lambda: forwarder.state.connected)
        assert forwarder.state.since > before


def test_a_quiet_connection_gives_signs_of_life(broker: Broker) -> None:
    sender = MqttSender(broker_settings(broker.port, keepalive_seconds=10), "trap-1")
    sender.send([], NEVER)
    assert sender._link is not None
    sender._link._client._last_msg_out -= 11  # as after eleven quiet seconds
    sender.tend()
    wait_for(lambda: "PINGREQ from edge-lsla-trap-1-mqtt" in broker.log())
    assert sender.connected
    sender.close()


def test_no_file_handle_is_left_by_failing_connections(tmp_path: Path) -> None:
    with Broker(tmp_path, "allow_anonymous false") as broker:
        sender = MqttSender(broker_settings(broker.port), "trap-1")
        counts = []
        for _ in range(8):
            with pytest.raises(DeliveryError):
                sender.send([], NEVER)
            counts.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208  # no paths wanted
    assert counts[-1] <= counts[1]
