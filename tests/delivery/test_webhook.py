"""Delivery to a web server on loopback: what it gets, and every way it may answer."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import hmac
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from delivery_parts import QUICK, Memory, event, listening

from benchmarks.mosquitto import free_port, wait_for
from edge_lsla.delivery.forwarder import Forwarder
from edge_lsla.delivery.sender import DeliveryError
from edge_lsla.delivery.settings import WebhookSettings
from edge_lsla.delivery.webhook import WebhookSender

NEVER = threading.Event()
Answer = Callable[[list[dict[str, Any]]], tuple[int, dict[str, str]]]


class Receiver(http.server.ThreadingHTTPServer):
    """Answers with what a function makes of the events, and keeps every request."""

    daemon_threads = True
    block_on_close = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.requests = answer, []
        self.requests: list[tuple[dict[str, str], bytes, str]] = []

    @property
    def ids(self) -> list[list[str]]:
        return [[item["id"] for item in json.loads(body)] for _, body, _ in self.requests]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((dict(self.headers), body, self.path))
        status, headers = self.server.answer(json.loads(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        pass


@contextlib.contextmanager
def receiver(answer: Answer = lambda events: (204, {}), context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    with Receiver(answer) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda request, address: None  # type: ignore[method-assign]  # failed handshakes
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="receiver")
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


def sender_to(server: Receiver, **options: Any) -> WebhookSender:
    return WebhookSender(WebhookSettings(f"http://127.0.0.1:{server.server_port}/hook?key=x", **options), "trap-1")


def batch(count: int) -> list[tuple[int, Any]]:
    return [(number, event(number)) for number in range(1, count + 1)]


def test_a_batch_is_one_request_with_token_signature_and_idempotency_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("tok3n\n")
    (tmp_path / "token").chmod(0o600)
    monkeypatch.setenv("HOOK_SECRET", "k3y")
    with receiver() as server:
        sender = sender_to(server, token_file=tmp_path / "token", secret_env="HOOK_SECRET")
        assert sender.send(batch(3), NEVER) == 3
        assert sender.send([], NEVER) == 0
        assert sender.warnings == ()
    [(headers, body, path)] = server.requests
    assert json.loads(body) == [{**item.to_dict(), "device": "trap-1"} for _, item in batch(3)]
    assert path == "/hook?key=x"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Bearer tok3n"
    assert headers["Idempotency-Key"] == "id1-id3"
    signature = hmac.new(b"k3y", body, hashlib.sha256).hexdigest()
    assert headers["X-Edge-Lsla-Signature"] == f"sha256={signature}"


def test_everything_arrives_through_the_forwarder() -> None:
    outbox = Memory(250)
    with receiver() as server:
        with Forwarder(outbox, sender_to(server), QUICK) as forwarder:
            wait_for(lambda: outbox.backlog("webhook") == 0)
            assert forwarder.state.connected
        assert [len(ids) for ids in server.ids] == [100, 100, 50]


@pytest.mark.parametrize("status", [400, 403, 409, 413, 422])
def test_a_refused_batch_is_halved_until_the_event_at_fault_is_found(status: int) -> None:
    def answer(events: list[dict[str, Any]]) -> tuple[int, dict[str, str]]:
        return (status if any(item["id"] == "id6" for item in events) else 200), {}

    with receiver(answer) as server:
        with pytest.raises(DeliveryError) as caught:
            sender_to(server).send(batch(8), NEVER)
        assert (caught.value.upto, caught.value.refused) == (5, 6)
        assert server.ids[1:] == [
            ["id1", "id2", "id3", "id4"],
            ["id5", "id6", "id7", "id8"],
            ["id5", "id6"],
            ["id5"],
            ["id6"],
        ]
        outbox = Memory(8)
        with Forwarder(outbox, sender_to(server), QUICK) as forwarder:
            wait_for(lambda: outbox.backlog("webhook") == 0)
            assert forwarder.state.set_aside == 1
            assert str(status) in str(forwarder.state.last_error)
            assert forwarder.state.connected


def test_a_batch_that_is_too_large_arrives_in_parts() -> None:
    with receiver(lambda events: (413 if len(events) > 3 else 200, {})) as server:
        assert sender_to(server).send(batch(10), NEVER) == 10


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the receiver answered 401 Unauthorized and no token is configured: http://127.0.0.1:{}; check url"),
        (404, "the receiver answered 404 Not Found: http://127.0.0.1:{}; check url"),
        (500, "the receiver answered 500 Internal Server Error: http://127.0.0.1:{}; it is tried again"),
        (999, "the receiver answered 999: http://127.0.0.1:{}; it is tried again"),
    ],
)
def test_a_receiver_at_fault_is_said_and_no_event_is_blamed(status: int, said: str) -> None:
    with receiver(lambda events: (status, {})) as server:
        sender = sender_to(server)
        with pytest.raises(DeliveryError) as caught:
            sender.send(batch(4), NEVER)
        assert len(server.requests) == 1
    assert str(caught.value).startswith(said.format(server.server_port))
    assert "key=x" not in str(caught.value)
    assert caught.value.refused is None
    assert not sender.connected


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused(status: int) -> None:
    with receiver() as elsewhere:
        to = {"Location": f"http://127.0.0.1:{elsewhere.server_port}/"}
        with receiver(lambda events: (status, to)) as server, pytest.raises(DeliveryError, match="a redirect"):
            sender_to(server).send(batch(1), NEVER)
    assert not elsewhere.requests


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [("7", 7, 7), ("date", 100, 120), ("-3", None, None), ("soon", None, None), ("9" * 400, 999999999, 999999999)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_understood(status: int, value: str, low: float | None, high: float | None) -> None:
    if value == "date":
        value = email.utils.formatdate(time.time() + 120, usegmt=True)
    answer = (status, {"Retry-After": value})
    with receiver(lambda events: answer) as server, pytest.raises(DeliveryError) as caught:
        sender_to(server).send(batch(1), NEVER)
    asked = caught.value.retry_after
    assert asked is None if low is None or high is None else asked is not None and low <= asked <= high


def test_https_is_verified(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ours.issue("server", "127.0.0.1"))
    with receiver(context=context) as server:
        url = f"https://127.0.0.1:{server.server_port}/"
        assert WebhookSender(WebhookSettings(url, ca_file=ours.file), "trap-1").send(batch(1), NEVER) == 1
        with pytest.raises(DeliveryError, match="the receiver's certificate is not trusted"):
            WebhookSender(WebhookSettings(url, ca_file=other.file), "trap-1").send(batch(1), NEVER)
        unverified = WebhookSender(WebhookSettings(url, ca_file=other.file, insecure=True), "trap-1")
        assert unverified.send(batch(1), NEVER) == 1
        assert unverified.warnings
        assert len(server.requests) == 2


def silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def dripping(connection: socket.socket) -> None:
    """Answer one byte at a time, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def babbling(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"\xff\xfe no HTTP at all\r\n\r\n")


def endless(connection: socket.socket) -> None:
    """Answer headers without end."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: " + b"x" * 8000 + b"\r\n")


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        (silent, "the receiver does not answer"),
        (dripping, "the receiver does not answer"),
        (babbling, "the receiver does not speak HTTP"),
        (endless, "the receiver does not speak HTTP"),
        (lambda connection: None, "the receiver closed the connection"),
    ],
    ids=["silent", "dripping", "babbling", "endless", "closing"],
)
def test_a_receiver_that_answers_nothing_of_use(serve: Callable[[socket.socket], None], said: str) -> None:
    with listening(serve) as port:
        sender = WebhookSender(WebhookSettings(f"http://127.0.0.1:{port}/", timeout_seconds=0.5), "trap-1")
        with pytest.raises(DeliveryError) as caught:
            sender.send(batch(1), NEVER)
    assert str(caught.value) == f"{said}: http://127.0.0.1:{port}; it is tried again"


def test_a_receiver_that_is_not_there_is_one_sentence() -> None:
    port = free_port()
    with pytest.raises(DeliveryError) as caught:
        WebhookSender(WebhookSettings(f"http://127.0.0.1:{port}/"), "trap-1").send(batch(1), NEVER)
    assert str(caught.value) == f"the receiver takes no connection: http://127.0.0.1:{port}; it is tried again"


def test_an_event_that_is_no_json_is_found_and_the_ones_before_it_arrive() -> None:
    events = [(1, event(1)), (2, event(2)), (3, event(3, x=float("inf"))), (4, event(4))]
    with receiver() as server:
        with pytest.raises(DeliveryError, match="cannot be written as JSON") as caught:
            sender_to(server).send(events, NEVER)
        assert (caught.value.upto, caught.value.refused) == (2, 3)
        assert server.ids == [["id1", "id2"]]


@pytest.mark.parametrize("secret", ["", "two\r\nX-Injected: lines", "bäd"])
def test_a_token_that_is_no_token_is_never_sent_or_shown(secret: str, tmp_path: Path) -> None:
    (tmp_path / "hidden").write_text(secret)
    with receiver() as server:
        sender = sender_to(server, token_file=tmp_path / "hidden")
        assert "every user of this machine can read the secret" in sender.warnings[0]
        with pytest.raises(DeliveryError) as caught:
            sender.send(batch(1), NEVER)
        assert not server.requests
    assert not secret or secret not in str(caught.value)
    assert "Injected" not in str(caught.value)
