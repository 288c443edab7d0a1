"""Brokers that hang, close, talk nonsense or cannot be trusted; every refusal is one sentence."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from certificates import Authority
from delivery_parts import QUICK, Memory, broker_settings, event, listening

from benchmarks.mosquitto import PROGRAM, Broker, free_port, wait_for
from edge_lsla.delivery.forwarder import Forwarder
from edge_lsla.delivery.mqtt import RIVAL_SECONDS, SEVERAL, MqttSender
from edge_lsla.delivery.sender import DeliveryError

needs_broker = [
    pytest.mark.broker,
    pytest.mark.skipif(PROGRAM is None, reason="no mosquitto: apt-get install mosquitto"),
]
NEVER = threading.Event()
CONNACK = bytes([0x20, 3, 0, 0, 0])  # MQTT 5: success, no properties


def refusal(sender: MqttSender) -> str:
    with pytest.raises(DeliveryError) as caught:
        sender.send([(1, event(1))], NEVER)
    assert not sender.connected
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.broker
@needs_broker[1]
def test_tls_with_certificates_on_both_sides_and_what_is_not_trusted(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    certificate, key = ours.issue("broker", "127.0.0.1")
    device, device_key = ours.issue("device")
    lines = f"allow_anonymous true\ncafile {ours.file}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true"
    with Broker(tmp_path, lines) as broker:
        where = f"127.0.0.1:{broker.port}; it is tried again"
        shown = {"tls": True, "certificate_file": device, "key_file": device_key}
        sender = MqttSender(broker_settings(broker.port, ca_file=ours.file, **shown), "trap-1")
        assert sender.send([(1, event(1))], NEVER) == 1
        assert sender.connected
        sender.close()
        for ca_file in (other.file, None):  # None: the system's
            said = refusal(MqttSender(broker_settings(broker.port, ca_file=ca_file, **shown), "trap-1"))
            assert said.startswith("the broker's certificate is not trusted (")
            assert said.endswith(where)
        unasked = MqttSender(broker_settings(broker.port, ca_file=other.file, insecure=True, **shown), "trap-1")
        assert unasked.send([(1, event(1))], NEVER) == 1
        assert unasked.warnings == ("the broker's certificate is not verified",)
        unasked.close()
        refusal(MqttSender(broker_settings(broker.port, ca_file=ours.file, tls=True), "trap-1"))  # shows none
        assert where in refusal(MqttSender(broker_settings(broker.port), "trap-1"))  # no TLS


@pytest.mark.broker
@needs_broker[1]
def test_a_certificate_for_another_name_is_not_trusted(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    certificate, key = ours.issue("broker", "127.0.0.2")
    with Broker(tmp_path, f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}") as broker:
        said = refusal(MqttSender(broker_settings(broker.port, tls=True, ca_file=ours.file), "trap-1"))
    assert "is not trusted (IP address mismatch" in said


def test_certificate_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for options, named in (
        ({"ca_file": tmp_path / "none.pem"}, "none.pem"),
        ({"ca_file": tmp_path / "ca.pem"}, "ca.pem"),
        ({"certificate_file": tmp_path / "ca.pem", "key_file": tmp_path / "gone.key"}, "gone.key"),
    ):
        said = refusal(MqttSender(broker_settings(1, tls=True, **options), "trap-1"))
        assert said.startswith("cannot use the certificates or key (")
        assert named in said


def test_a_broker_that_is_not_there_is_one_sentence() -> None:
    port = free_port()
    said = refusal(MqttSender(broker_settings(port), "trap-1"))
    assert said == f"the broker takes no connection: 127.0.0.1:{port}; it is tried again"


@pytest.mark.parametrize("tls", [False, True])
def test_a_broker_that_accepts_and_never_answers(tls: bool) -> None:
    released = threading.Event()
    with listening(lambda connection: released.wait(60) and None) as port:
        sender = MqttSender(broker_settings(port, tls=tls, timeout_seconds=0.5), "trap-1")
        words = "does not answer" if tls else "takes connections and does not answer"
        assert refusal(sender) == f"the broker {words}: 127.0.0.1:{port}; it is tried again"
        released.set()


def test_a_broker_that_takes_messages_and_never_acknowledges() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(CONNACK)
        while connection.recv(4096):
            pass

    with listening(serve) as port:
        sender = MqttSender(broker_settings(port, timeout_seconds=0.5), "trap-1")
        assert "the broker does not acknowledge" in refusal(sender)
        outbox = Memory(3)
        with Forwarder(outbox, MqttSender(broker_settings(port), "trap-1"), QUICK) as forwarder:
            wait_for(lambda: forwarder.state.connected)
            began = time.monotonic()
            forwarder.stop()
            assert not forwarder.alive
            assert time.monotonic() - began < 4  # two seconds, and a busy machine
        assert outbox.backlog("mqtt") == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff" * 4096,
        CONNACK[:2],
        bytes([0x20, 3, 0, 0x84, 0]),  # refused: unsupported version
        CONNACK + bytes([0x40, 2, 0, 99]),  # acknowledges what was not sent
        CONNACK + bytes([0x40, 1, 0]),  # acknowledgement cut short
        CONNACK + bytes([0x40, 3, 0, 1, 0x55]),  # a reason code that does not exist
        CONNACK + bytes([0x30, 5, 0, 9]) + b"\xff\xfe\xfd",  # a message with a topic that is cut short and no text
        CONNACK + bytes([0xE0, 1, 0x8B]),  # goodbye: shutting down
        os.urandom(2000),
    ],
    ids=["nothing", "http", "ones", "half", "version", "stray", "short", "reason", "message", "goodbye", "random"],
)
def test_nonsense_from_a_broker_is_said_and_nothing_is_lost(answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    outbox = Memory(2)
    with listening(serve) as port:
        sender = MqttSender(broker_settings(port, timeout_seconds=0.5), "trap-1")
        with Forwarder(outbox, sender, QUICK) as forwarder:
            wait_for(lambda: forwarder.state.last_error)
            assert forwarder.alive
            said = str(forwarder.state.last_error)
        assert "127.0.0.1" in said
        assert "\n" not in said
        if answer.endswith(b"\x84\x00"):
            assert said.endswith("Unsupported protocol version: 127.0.0.1:" + f'{port}; set version to "3.1.1"')
        assert outbox.backlog("mqtt") == 2


def test_a_passing_refusal_counts_against_no_event() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(CONNACK)
        connection.recv(4096)
        connection.sendall(bytes([0x40, 3, 0, 1, 0x97]))  # quota exceeded
        connection.recv(4096)

    with listening(serve) as port:
        sender = MqttSender(broker_settings(port, status=False), "trap-1")
        with pytest.raises(DeliveryError, match="puts us off: Quota exceeded") as caught:
            sender.send([(1, event(1))], NEVER)
        assert caught.value.refused is None
        sender.close()


def test_a_second_device_of_the_same_name_is_said() -> None:
    taken_over = bytes([0xE0, 2, 0x8E, 0])  # DISCONNECT: session taken over

    def put_out(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(CONNACK)
        connection.recv(1 << 16)
        connection.sendall(taken_over)

    with listening(put_out) as port:
        sender = MqttSender(broker_settings(port, status=False), "trap-1")
        with pytest.raises(DeliveryError) as caught:
            sender.send([(1, event(1))], NEVER)
    where = f"127.0.0.1:{port}"
    assert str(caught.value) == (f"another client uses the name 'trap-1': {where}; give each device its own `device`")
    assert (caught.value.refused, caught.value.retry_after) == (None, RIVAL_SECONDS)


@pytest.mark.broker
@needs_broker[1]
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_second_device_of_the_same_name_is_guessed_where_the_broker_does_not_say(
    tmp_path: Path, version: str
) -> None:
    with Broker(tmp_path, "allow_anonymous true") as broker:
        first, second = (MqttSender(broker_settings(broker.port, version=version), "trap-1") for _ in range(2))
        for number in range(1, SEVERAL + 1):
            assert first.send([(number, event(number))], NEVER) == number
            assert second.send([(number, event(number))], NEVER) == number
            wait_for(lambda: first.tend() or not first.connected)
        with pytest.raises(DeliveryError, match="another client uses the name 'trap-1'") as caught:
            first.send([(9, event(9))], NEVER)
        assert caught.value.refused is None
        assert second.connected  # it is left alone for a while
        assert first.send([(9, event(9))], NEVER) == 9  # and then asked again: nothing is lost
        first.close()
        second.close()


def test_one_broken_connection_is_no_sign_of_a_second_device() -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(bytes([0x20, 2, 0, 0]))  # MQTT 3.1.1
        connection.recv(1 << 16)

    with listening(hang_up) as port:
        sender = MqttSender(broker_settings(port, status=False, version="3.1.1"), "trap-1")
        said = [refusal(sender) for _ in range(SEVERAL)]
    assert [("another client" in one) for one in said] == [False] * (SEVERAL - 1) + [True]
