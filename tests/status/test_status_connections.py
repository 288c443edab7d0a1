"""Who sends too much, drips, or takes nothing: bounded, while others are answered. With real sockets."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest
from status_parts import TOKEN, Answer, FieldView, fetch, served

from edge_lsla.status import connections
from edge_lsla.status.server import StatusServer
from edge_lsla.status.settings import StatusSettings
from edge_lsla.status.tokens import GUESSES

MUCH = 64_000_000  # bytes; what the system's buffers take on loopback is a tenth of it
ANOTHER = "127.0.0.2"  # loopback has many addresses
SHEET = b"GET /page.css HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAP_TOKEN", TOKEN)


@contextlib.contextmanager
def opened(port: int, sent: bytes, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0)) as connection:
        connection.sendall(sent)
        yield connection


def answer(connection: socket.socket) -> Answer:
    """Return one answer of a connection that goes on."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Answer(response)


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def head(port: int, path: str, *lines: str, origin: str | None = None) -> bytes:
    own = origin or f"http://127.0.0.1:{port}"
    return "\r\n".join([f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Origin: {own}", *lines, "", ""]).encode()


def push(connection: socket.socket, part: bytes) -> int:
    """Send until the server cuts it, or `MUCH`; return how many bytes went."""
    gone = 0
    with contextlib.suppress(OSError):
        while gone < MUCH:
            gone += connection.send(part)
    return gone


@pytest.mark.parametrize(
    ("path", "origin", "guesses", "status"),
    [
        ("/sign-in", "http://evil.example", 0, b"403"),
        ("/sign-in", None, GUESSES, b"429"),
        ("/sign-in", None, 0, b"413"),
        ("/page.css", None, 0, b"405"),
        ("/api/health", None, 0, b"401"),
    ],
)
def test_a_large_body_is_answered_and_not_read(path: str, origin: str | None, guesses: int, status: bytes) -> None:
    with served(FieldView(), token_env="TRAP_TOKEN") as port:
        for number in range(guesses):
            fetch(port, "/api/health", headers={"Authorization": f"Bearer guess-number-{number}-of-many"})
        with opened(port, head(port, path, f"Content-Length: {MUCH}", origin=origin)) as connection:
            assert connection.recv(1 << 16).split()[1] == status  # before any of the body
            assert push(connection, bytes(1 << 16)) < MUCH / 2


@pytest.mark.parametrize(("origin", "status"), [(None, b"413"), ("http://evil.example", b"403")])
def test_a_streamed_body_ends_at_its_limit(origin: str | None, status: bytes) -> None:
    with (
        served(FieldView(), token_env="TRAP_TOKEN") as port,
        opened(port, head(port, "/sign-in", "Transfer-Encoding: chunked", origin=origin)) as connection,
    ):
        chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        connection.sendall(chunk)
        assert connection.recv(1 << 16).split()[1] == status
        assert push(connection, chunk) < MUCH / 2


def test_a_form_may_come_after_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser may send it on its own: closed at once, the system would throw the answer away."""
    monkeypatch.setattr(connections, "UNWANTED_SECONDS", 0.3)
    with (
        served(FieldView(), token_env="TRAP_TOKEN") as port,
        opened(port, head(port, "/sign-in", "Content-Length: 40", origin="http://evil.example")) as connection,
    ):
        assert answer(connection).status == 403
        connection.sendall(b"x" * 40)
        time.sleep(0.6)  # it was not cut, being whole
        connection.sendall(b"GET /sign-in HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer(connection).status == 200


@pytest.mark.parametrize("begun", ["GET /api/health HTTP/1.1\r\nX-Slow: ", "body"])
def test_a_dripping_request_is_cut_in_time(
    begun: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(connections, "RECEIVE_SECONDS", 0.5)
    with served(FieldView(), token_env="TRAP_TOKEN", request_timeout_seconds=60) as port:
        sent = head(port, "/sign-in", "Content-Length: 4000") if begun == "body" else begun.encode()
        with opened(port, sent) as connection:
            end = time.monotonic() + 30
            connection.settimeout(0.05)
            while True:
                assert time.monotonic() < end
                try:
                    connection.sendall(b"x")
                    assert connection.recv(100) == b""  # cut, and not answered
                    break
                except TimeoutError:
                    continue
                except (ConnectionResetError, BrokenPipeError):
                    break
        assert fetch(port, "/sign-in").status == 200
    assert caplog.text == ""  # nobody may fill the journal by dripping


def test_a_kept_connection_outlives_the_time_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page asks for pictures: again and again over the same one."""
    monkeypatch.setattr(connections, "RECEIVE_SECONDS", 0.3)
    with served(FieldView()) as port, opened(port, b"") as connection:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            connection.sendall(b"GET /live/trap-1.jpg HTTP/1.1\r\n")
            time.sleep(0.05)  # of its time
            connection.sendall(b"Host: localhost\r\n\r\n")
            found = answer(connection)
            assert (found.status, found.body[:2]) == (200, b"\xff\xd8")


def test_forms_that_never_end_lock_nobody_out() -> None:
    with (
        StatusServer(FieldView(), StatusSettings(port=0, token_env="TRAP_TOKEN", max_connections=4)) as server,
        contextlib.ExitStack() as stack,
    ):
        port = int(server.url.rstrip("/").rpartition(":")[2])
        form = urlencode({"token": TOKEN}).encode()
        for _ in range(3):
            for _ in range(4):
                half = head(port, "/sign-in", f"Content-Length: {len(form)}") + form[:-1]
                stack.enter_context(opened(port, half))
            eventually(lambda: sum(bool(one.cycle) for one in list(server._server.server_state.connections)) == 4)
            assert fetch(port, "/sign-in").status == 200


class Large(FieldView):
    def picture(self, camera: str) -> bytes | None:
        super().picture(camera)
        return bytes(30_000_000)  # more than the system's buffers hold


@pytest.mark.parametrize("address", ["127.0.0.1", ANOTHER])
def test_who_takes_nothing_locks_nobody_out(address: str) -> None:
    view = Large()
    with served(view, max_connections=4) as port, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(opened(port, b"GET /live/trap-1.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n", ANOTHER))
        eventually(lambda: view.asked.count("picture trap-1") >= 4)
        for _ in range(6):
            with opened(port, SHEET, address) as connection:
                assert answer(connection).status == 200


def test_one_address_cannot_keep_the_service_from_another() -> None:
    class Hanging(FieldView):
        go_on = threading.Event()

        def health(self) -> dict[str, object]:
            self.asked.append("health")
            self.go_on.wait(60)
            return {"ok": True}

    view = Hanging()
    try:
        with (
            served(view, max_connections=4, answer_timeout_seconds=60) as port,
            contextlib.ExitStack() as stack,
        ):
            for _ in range(4):
                stack.enter_context(opened(port, b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n", ANOTHER))
            eventually(lambda: view.asked.count("health") == 4)
            for _ in range(3):
                assert fetch(port, "/page.css").status == 200
            view.go_on.set()  # and nothing breaks when the answer for one that was cut comes
            assert fetch(port, "/api/health").status == 200
    finally:
        view.go_on.set()


def test_whoever_holds_most_gives_way_first() -> None:
    with served(FieldView(), max_connections=4) as port, contextlib.ExitStack() as stack:
        kept = stack.enter_context(opened(port, SHEET))  # the oldest
        assert answer(kept).status == 200
        for _ in range(8):
            assert answer(stack.enter_context(opened(port, SHEET, ANOTHER))).status == 200
        kept.sendall(SHEET)
        assert answer(kept).status == 200


def test_a_crowd_waits_its_turn() -> None:
    class Slow(FieldView):
        def cameras(self) -> list[str]:
            time.sleep(0.05)
            return self.names

    found: list[int] = []
    with served(Slow()) as port:
        crowd = [threading.Thread(target=lambda: found.append(fetch(port, "/api/cameras").status)) for _ in range(24)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join(60)
    assert found == [200] * 24
