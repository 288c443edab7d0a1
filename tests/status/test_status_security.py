"""Whoever means harm: without the token, under another name, with strange paths, or only slowly."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from status_parts import HOSTILE, TOKEN, FieldView, fetch, served

from edge_lsla.status.server import StatusServer
from edge_lsla.status.settings import StatusSettings
from edge_lsla.status.tokens import GUESSES

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAP_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def running() -> Iterator[int]:
    with served(FieldView()) as port:
        yield port


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def sign_in(port: int, token: str, **headers: str) -> Any:
    origin = {"Origin": f"http://127.0.0.1:{port}"}
    return fetch(port, "/sign-in", "POST", {**FORM, **origin, **headers}, urlencode({"token": token}).encode())


@contextlib.contextmanager
def raw(port: int, sent: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        yield connection


def everything(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


PRIVATE = ("/api/health", "/api/recent", "/api/counts", "/api/cameras", "/live/trap-1.jpg", f"/crops/{'a' * 32}.jpg",
           "/metrics", "/page.js", "/nothing")  # fmt: skip


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_with_a_token_nobody_learns_anything_without_it(host: str) -> None:
    view = FieldView(problems=False)
    with served(view, host=host, token_env="TRAP_TOKEN") as port:
        view.asked.clear()
        for path in PRIVATE:
            for headers in (
                {},
                bearer(""),
                {"Cookie": "edge_lsla_status=1.2"},
                {"Cookie": f"edge_lsla_status={TOKEN}"},
            ):
                answer = fetch(port, path, headers=headers)
                assert answer.status in (401, 429)  # the empty tokens are guesses
                assert answer.json["ok"] is False
            assert fetch(port, f"{path}?token={TOKEN}").status == 401  # never in an address
        assert view.asked == []
        page = fetch(port, "/")
        assert (page.status, page.headers["location"], page.body) == (303, "/sign-in", b"")
        assert fetch(port, "/sign-in").status == 200
        assert view.asked == []  # nor to sign in: whoever has no token costs the service nothing
        assert fetch(port, "/page.css").status == 200
        assert fetch(port, "/healthz").json == {"ok": True}


def test_signing_in_names_the_device_as_text() -> None:
    with served(FieldView(), host="0.0.0.0", token_env="TRAP_TOKEN") as port:
        body = fetch(port, "/sign-in").body.decode()
        assert "<title>Sign in · orchard-3 · edge-lsla</title>" in body
        assert "<h1>Sign in · orchard-3</h1>" in body
    with served(FieldView(HOSTILE), host="0.0.0.0", token_env="TRAP_TOKEN") as port:
        body = fetch(port, "/sign-in").body.decode()
        assert "&lt;script&gt;window.hacked = 1&lt;/script&gt;" in body
        assert "<script" not in body


def test_the_token_opens_as_a_header() -> None:
    with served(FieldView(), host="0.0.0.0", token_env="TRAP_TOKEN") as port:
        for path in ("/", "/api/health", "/metrics", "/page.js"):
            assert fetch(port, path, headers=bearer(TOKEN)).status == 200
        assert fetch(port, "/api/health", headers={"Authorization": f"bearer  {TOKEN} "}).status == 200
        assert fetch(port, "/api/health", headers={"Authorization": TOKEN}).status == 401
        assert fetch(port, "/api/health", headers=bearer(TOKEN[:-1])).headers["www-authenticate"] == "Bearer"


def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_cannot_use() -> None:
    with served(FieldView(), token_env="TRAP_TOKEN") as port:
        wrong = sign_in(port, "not-the-token-of-the-orchard")
        assert (wrong.status, b"That is not the token." in wrong.body) == (403, True)
        assert "set-cookie" not in wrong.headers
        right = sign_in(port, f" {TOKEN}\n")
        assert (right.status, right.headers["location"]) == (303, "/")
        cookie, *attributes = right.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(attributes)
        assert "Secure" not in attributes  # plain HTTP here; a proxy that speaks TLS gets it
        assert TOKEN not in cookie
        assert fetch(port, "/api/health", headers={"Cookie": f"other=1; {cookie}"}).status == 200
        assert fetch(port, "/", headers={"Cookie": cookie}).status == 200
        assert fetch(port, "/api/health", headers={"Cookie": cookie[:-1]}).status == 401
    with served(FieldView(), token_env="TRAP_TOKEN", host_names=("trap.example",)) as port:
        proxied = sign_in(port, TOKEN, Host="trap.example", Origin="https://trap.example")
        assert "Secure" in proxied.headers["set-cookie"].split("; ")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1", "127.0.0.1"])
def test_a_form_on_another_page_cannot_sign_in(origin: str) -> None:
    with served(FieldView(), token_env="TRAP_TOKEN") as port:
        answer = sign_in(port, TOKEN, Origin=origin)
        assert (answer.status, answer.json["error"]) == (403, "the form comes from another page")
        assert "set-cookie" not in answer.headers


def test_a_large_or_strange_form_is_refused() -> None:
    with served(FieldView(), token_env="TRAP_TOKEN") as port:
        origin = {**FORM, "Origin": f"http://127.0.0.1:{port}"}
        assert fetch(port, "/sign-in", "POST", origin, b"token=" + b"x" * 5000).status == 413
        for body in (b"", b"token", b"\xff\x00%ff", b"&" * 4000, b"token=a&token=b"):
            assert fetch(port, "/sign-in", "POST", origin, body).status in (403, 429)


def test_guessing_is_slowed_down_but_not_for_who_has_signed_in() -> None:
    with served(FieldView(), token_env="TRAP_TOKEN") as port:
        cookie = sign_in(port, TOKEN).headers["set-cookie"].partition(";")[0]
        for number in range(GUESSES):
            assert fetch(port, "/api/health", headers=bearer(f"guess-number-{number}-of-many")).status == 401
        for token in ("another-guess-of-many", TOKEN):  # the right one as well, or a guesser would learn it
            slowed = fetch(port, "/api/health", headers=bearer(token))
            assert (slowed.status, slowed.headers["retry-after"]) == (429, "12")
            assert sign_in(port, token).status == 429
        claimed = {**bearer("another-guess-of-many"), "X-Forwarded-For": "10.9.8.7", "Forwarded": "for=10.9.8.7"}
        assert fetch(port, "/api/health", headers=claimed).status == 429
        assert fetch(port, "/api/health", headers={"Cookie": cookie}).status == 200
        for _ in range(20):  # an expired cookie asks twice a second and locks nobody out
            assert fetch(port, "/api/health", headers={"Cookie": "edge_lsla_status=1.0"}).status == 401


def test_the_token_is_never_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    with served(FieldView(), token_env="TRAP_TOKEN") as port:
        cookie = sign_in(port, TOKEN).headers["set-cookie"].partition(";")[0]
        fetch(port, "/api/health", headers=bearer(TOKEN))
        fetch(port, f"/api/health?token={TOKEN}", headers={"Cookie": cookie})
        with raw(port, f"GARBAGE {TOKEN}\r\n\r\n".encode()) as connection:
            assert everything(connection).startswith(b"HTTP/1.1 400")
    said = caplog.text + "".join(capfd.readouterr())
    assert TOKEN not in said
    assert cookie.partition("=")[2] not in said


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "",
     "localhost@evil.example", "evil.example#localhost", "[::2]", "10.0.0.1", "0.0.0.0", "localhost,evil.example",
     "[", "2130706433"],
)  # fmt: skip
def test_a_page_whose_name_was_made_to_point_here_gets_nothing(host: str, running: int) -> None:
    for path in ("/", "/api/health", "/live/trap-1.jpg", "/healthz", "/page.js"):
        with raw(running, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()) as connection:
            assert everything(connection).split()[1] in (b"421", b"400")


def test_its_own_names_are_answered() -> None:
    with served(FieldView(), host_names=("Trap-3.local",)) as port:
        for host in ("localhost", f"LOCALHOST:{port}", "127.0.0.1", f"[::1]:{port}", "trap-3.local", "TRAP-3.local:80"):
            assert fetch(port, "/api/cameras", headers={"Host": host}).status == 200
        with raw(port, b"GET / HTTP/1.0\r\n\r\n") as connection:  # no name at all
            assert everything(connection).startswith(b"HTTP/1.1 421")


OPENED: list[str] = []
WATCHING = threading.Event()


def note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if (
        WATCHING.is_set()
        and event in ("open", "os.listdir", "os.scandir")
        and "status" in threading.current_thread().name
    ):
        OPENED.append(str(arguments[0]))


PATHS = ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/../server.py", "/page.css/../server.py",
         "//etc/passwd", "/..%2f..%2fetc%2fpasswd", "/live/../../etc/passwd.jpg", "/live/%2e%2e%2fpasswd.jpg",
         "/live//etc/passwd.jpg", "/crops/..%2f..%2fetc%2fpasswd.jpg", "/crops/../../../etc/passwd",
         f"/crops/{'A' * 32}.jpg", f"/crops/{'a' * 33}.jpg", f"/crops/{'a' * 32}%0a.jpg", f"/crops/{'a' * 31}%00.jpg",
         "/crops/" + "%D9%A3" * 32 + ".jpg", "/crops/%.jpg", "/%00", "/server.py", "/index.html", "/sign-in.html",
         "/__init__.py", "/page.css%00.jpg", "http://evil.example/etc/passwd", "/\\..\\..\\etc\\passwd",
         "/live/.jpg", "*"]  # fmt: skip


def test_no_path_of_a_request_reaches_the_file_system() -> None:
    sys.addaudithook(note_opened)  # stays for this process, and does nothing unless it is told to watch
    view = FieldView()
    with served(view) as port:
        assert fetch(port, "/").status == 200
        view.asked.clear()
        WATCHING.set()
        try:
            for path in PATHS:
                with raw(
                    port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")
                ) as one:
                    head, _, body = everything(one).partition(b"\r\n\r\n")
                    assert head.split()[1] in (b"404", b"400"), path
                    assert b"root:" not in body
                    assert b"import" not in body
            assert view.asked == []
            assert fetch(port, "/live/trap-1.jpg").status == 200
        finally:
            WATCHING.clear()
    assert OPENED == []


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"".join(
            (
                b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
                *(b"X%d: y\r\n" % n for n in range(4000)),
                b"\r\n",
            )
        ),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\x00" * 70_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["header", "path", "headers", "two names", "smuggled", "length", "TLS", "zeros", "HTTP/2"],
)
def test_requests_that_are_none_end_with_a_refusal(sent: bytes, running: int) -> None:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError), raw(running, sent) as connection:
        answer = everything(connection)
        assert answer == b"" or answer.split()[1] in (b"400", b"405", b"421", b"431")
    assert fetch(running, "/api/cameras").status == 200


def test_connections_that_say_nothing_lock_nobody_out() -> None:
    """More of them than are allowed at once, each with the beginning of a request, as in Slowloris."""
    with served(FieldView(), max_connections=8) as port, contextlib.ExitStack() as stack:
        for number in range(40):
            stack.enter_context(raw(port, b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "))
            if number % 8 == 7:
                assert fetch(port, "/api/health").status == 200


def test_slow_requests_are_cut() -> None:
    with served(FieldView(), request_timeout_seconds=0.3) as port:
        with raw(port, b"GET / HTTP/1.1\r\nHost: loc") as never_ends, raw(port) as says_nothing:
            assert everything(never_ends) == b""
            assert everything(says_nothing) == b""
        second = b"GET /api/cameras HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: loc"
        with raw(port, second) as slow_later:
            assert everything(slow_later).count(b"HTTP/1.1") == 1
        body = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx"
        with raw(port, body) as body_never_ends:
            assert everything(body_never_ends).startswith(b"HTTP/1.1 405")


def test_who_takes_nothing_is_cut() -> None:
    class Large(FieldView):
        def picture(self, camera: str) -> bytes | None:
            return bytes(30_000_000)  # more than the system's buffers hold

    server = StatusServer(Large(), StatusSettings(port=0, request_timeout_seconds=0.5))
    port = int(server.start().rstrip("/").rpartition(":")[2])
    try:
        with raw(port, b"GET /live/trap-1.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n") as takes_nothing:
            eventually(lambda: len(server._server.server_state.connections) == 1)
            eventually(lambda: len(server._server.server_state.connections) == 0)
            assert 0 < len(everything(takes_nothing)) < 30_000_000
    finally:
        server.stop()


def test_a_crowd_is_answered_as_far_as_it_goes() -> None:
    with served(FieldView(), max_connections=4) as port:
        found: list[int] = []

        def ask() -> None:
            for _ in range(10):
                with contextlib.suppress(OSError):  # one too many is closed
                    found.append(fetch(port, "/api/cameras").status)

        crowd = [threading.Thread(target=ask) for _ in range(12)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join(60)
        assert found.count(200) > 20
        assert set(found) <= {200, 503}
        assert fetch(port, "/api/cameras").status == 200
