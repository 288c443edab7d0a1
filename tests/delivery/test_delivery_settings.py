"""Settings that cannot be used are refused, naming the field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edge_lsla.delivery.mqtt import topic_level
from edge_lsla.delivery.secret import exposed, read_secret
from edge_lsla.delivery.sender import DeliveryError
from edge_lsla.delivery.settings import ForwardSettings, MqttSettings, WebhookSettings
from edge_lsla.errors import UsageError

FILE = Path("f")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"batch": 0}, "batch"),
        ({"first_wait_seconds": 0.0}, "first_wait_seconds"),
        ({"first_wait_seconds": 9.0, "longest_wait_seconds": 8.0}, "first_wait_seconds"),
        ({"longest_wait_seconds": 1e6}, "longest_wait_seconds"),
        ({"first_wait_seconds": float("nan")}, "first_wait_seconds"),
        ({"refusals": 0}, "refusals"),
    ],
)
def test_forwarding(options: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as caught:
        ForwardSettings(**options)
    assert caught.value.where == field


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"host": ""}, "host"),
        ({"host": "mqtts://broker"}, "host"),
        ({"host": "user:password@broker"}, "host"),
        ({"port": 0}, "port"),
        ({"name": "a/b"}, "name"),
        ({"version": "4"}, "version"),
        ({"topic": "a/#"}, "topic"),
        ({"topic": "a//b"}, "topic"),
        ({"topic": "$SYS/x"}, "topic"),
        ({"topic": "x" * 201}, "topic"),
        ({"tls": False, "ca_file": FILE}, "tls"),
        ({"key_file": FILE}, "certificate_file"),
        ({"username": "u", "password_file": FILE, "password_env": "P"}, "password_env"),
        ({"username": "u", "password_env": "my-secret!"}, "password_env"),
        ({"password_env": "P"}, "username"),
        ({"tls": False, "username": "u", "password_env": "P"}, "tls"),
        ({"window": 0}, "window"),
        ({"timeout_seconds": 0.0}, "timeout_seconds"),
        ({"keepalive_seconds": 1}, "keepalive_seconds"),
    ],
)
def test_mqtt(options: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as caught:
        MqttSettings(**{"host": "broker.example", **options})
    assert caught.value.where == field
    assert "my-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"url": "ftp://a/"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://a:x/"}, "url"),
        ({"url": "https://[::1/"}, "url"),
        ({"url": "https://a/ b"}, "url"),
        ({"url": "https://a/\r\nX: y"}, "url"),
        ({"url": "https://user:hunter2@a/"}, "url"),
        ({"url": "http://a/"}, "url"),
        ({"token_file": FILE, "token_env": "T"}, "token_env"),
        ({"secret_env": ""}, "secret_env"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds"),
    ],
)
def test_webhook(options: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as caught:
        WebhookSettings(**{"url": "https://receiver.example/", **options})
    assert caught.value.where == field
    assert "hunter2" not in str(caught.value)


def test_what_can_be_used() -> None:
    assert MqttSettings("broker.example").address == ("broker.example", 8883)
    assert MqttSettings("broker.example", tls=False).address == ("broker.example", 1883)
    MqttSettings("127.0.0.1", tls=False, username="u", password_env="P")
    MqttSettings("broker.example", tls=False, insecure=True, username="u", password_env="P")
    WebhookSettings("http://localhost:80/x")
    WebhookSettings("http://[::1]/x")
    WebhookSettings("http://receiver.example/x", insecure=True)


def test_a_name_is_one_level_of_a_topic() -> None:
    assert topic_level("trap-1") == "trap-1"
    assert topic_level("") == "device"
    assert topic_level("a/+#\0%") == "a%2F%2B%23%00%25"
    topic_level("\udcff" * 500).encode()
    assert len(topic_level("/" * 500)) == 128


def test_a_secret_is_read_from_a_regular_file_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    assert read_secret(tmp_path / "secret", None, "password") == "hunter2"
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DeliveryError, match=rf"cannot read password_file \(not a regular file\): {file}"):
            read_secret(file, None, "password")
    with pytest.raises(DeliveryError, match="not a file name"):
        read_secret(Path("a\0b"), None, "password")
    assert exposed(Path("a\0b")) is None
