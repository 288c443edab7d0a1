"""A real server on loopback: every address, what it says when the service cannot answer, starting and stopping."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from status_parts import HOSTILE, FieldView, fetch, served

from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.status.server import StatusServer
from edge_lsla.status.settings import StatusSettings


@pytest.fixture(scope="module")
def running() -> Iterator[int]:
    with served(FieldView()) as port:
        yield port


ARRIVED = f"{0xA0000 + 1:032x}"


def test_everything_that_is_offered() -> None:
    view = FieldView()
    with served(view) as port:
        page = fetch(port, "/")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert fetch(port, "/api/health").json["model"] == view.health()["model"]
        assert fetch(port, "/api/recent").json["events"] == view.events[:50]
        assert len(fetch(port, "/api/recent?limit=3").json["events"]) == 3
        assert len(fetch(port, "/api/counts?hours=48").json["labels"]["ant"]) == 48
        assert fetch(port, "/api/cameras").json == {"cameras": ["trap-1", "trap-2"]}
        for path in ("/live/trap-1.jpg", f"/crops/{ARRIVED}.jpg"):
            picture = fetch(port, path)
            assert (picture.status, picture.headers["content-type"]) == (200, "image/jpeg")
            assert picture.body.startswith(b"\xff\xd8")
        for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
            assert fetch(port, f"/{name}").headers["content-type"].startswith(kind)


def test_every_answer_carries_the_same_protection() -> None:
    with served(FieldView()) as port:
        for path in ("/", "/api/health", "/live/trap-1.jpg", "/metrics", "/nothing", "/page.js", "/healthz"):
            headers = fetch(port, path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "same-origin"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "server" not in headers


def test_a_picture_that_the_browser_has_is_not_sent_again() -> None:
    with served(FieldView()) as port:
        first = fetch(port, "/live/trap-2.jpg")  # the lost camera's last picture stays
        again = fetch(port, "/live/trap-2.jpg", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        assert fetch(port, "/live/trap-2.jpg", headers={"If-None-Match": '"other"'}).body == first.body


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/nothing", 404, "Not Found"),
        ("/api", 404, "Not Found"),
        ("/api/health/", 404, "Not Found"),
        ("/index.html", 404, "Not Found"),
        ("/sign-in", 404, "Not Found"),
        ("/live/trap-9.jpg", 404, "no such camera"),
        (f"/crops/{'f' * 32}.jpg", 404, "this event has no crop"),
        ("/crops/1.jpg", 404, "an event's identifier has 32 hexadecimal digits"),
        ("/api/recent?limit=0", 400, "limit is a number from 1 to 500"),
        ("/api/recent?limit=x", 400, "limit is a number from 1 to 500"),
        ("/api/counts?hours=nan", 400, "hours is a number from 1 to 8784"),
        ("/api/counts?hours=1e999", 400, "hours is a number from 1 to 8784"),
        (f"/api/counts?hours={'1' * 5000}", 400, "hours is a number from 1 to 8784"),
    ],
)
def test_what_is_not_there_is_said_in_json(path: str, status: int, says: str, running: int) -> None:
    answer = fetch(running, path)
    assert (answer.status, answer.json) == (status, {"ok": False, "error": says})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/api/health", "/healthz"])
def test_it_can_only_be_read(method: str, path: str, running: int) -> None:
    answer = fetch(running, path, method, body=b"{}")
    assert (answer.status, answer.json["ok"]) == (405, False)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_head_says_what_get_would_and_sends_nothing() -> None:
    with served(FieldView()) as port:
        head, whole = fetch(port, "/", "HEAD"), fetch(port, "/")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.body))


def test_probes_learn_whether_it_is_well_and_no_more() -> None:
    for ill, status in ((False, 200), (True, 503)):
        with served(FieldView(problems=ill)) as port:
            answer = fetch(port, "/healthz")
            assert (answer.status, answer.json) == (status, {"ok": not ill})


def test_numbers_and_names_that_json_lacks_do_no_harm() -> None:
    class Odd(FieldView):
        def health(self) -> dict[str, Any]:
            return {"ok": True, "latency_ms": {"p50": float("nan")}, "problems": [*HOSTILE], "rates": (float("inf"),)}

    with served(Odd()) as port:
        found = fetch(port, "/api/health").json
        assert found == {"ok": True, "latency_ms": {"p50": None}, "problems": [*HOSTILE], "rates": [None]}


class Failing(FieldView):
    error: Exception

    def health(self) -> dict[str, Any]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UsageError("the store is closed", "events.sqlite", "wait"), "the store is closed: events.sqlite; wait"),
        (RuntimeError("secret detail"), "the service could not answer: RuntimeError; its log says more"),
    ],
)
def test_a_service_that_raises_is_unavailable(error: Exception, says: str, caplog: pytest.LogCaptureFixture) -> None:
    view = Failing()
    view.error = error
    with served(view) as port:
        for path in ("/api/health", "/metrics", "/healthz"):
            answer = fetch(port, path)
            assert (answer.status, answer.json) == (503, {"ok": False, "error": says})
        assert fetch(port, "/api/cameras").status == 200
    said = [record for record in caplog.records if record.name.startswith("edge_lsla.status")]
    assert len(said) == isinstance(error, RuntimeError)  # with its traceback, once a minute; what we raise is no news


def test_a_service_that_hangs_holds_up_nobody_else() -> None:
    class Hanging(FieldView):
        go_on = threading.Event()

        def health(self) -> dict[str, Any]:
            self.go_on.wait(60)
            return {"ok": True}

    view = Hanging()
    try:
        with served(view, answer_timeout_seconds=0.2) as port:
            for _ in range(8):
                late = fetch(port, "/api/health")
                assert (late.status, late.json["error"]) == (503, "the service did not answer in time; try again")
            busy = fetch(port, "/api/health")
            assert (busy.status, busy.json["error"]) == (503, "the service is too busy to answer; try again")
            assert fetch(port, "/").status == 200  # what needs no answer is still there
            view.go_on.set()
            deadline = time.monotonic() + 30
            while fetch(port, "/api/health").status != 200:
                assert time.monotonic() < deadline
    finally:
        view.go_on.set()


def test_it_stops_soon_whatever_goes_on() -> None:
    class Hanging(FieldView):
        asked_once = threading.Event()
        go_on = threading.Event()

        def health(self) -> dict[str, Any]:
            self.asked_once.set()
            self.go_on.wait(60)
            return {"ok": True}

    view = Hanging()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    server = StatusServer(view, StatusSettings(port=0))
    port = int(server.start().rstrip("/").rpartition(":")[2])
    assert server.running
    [thread] = [one for one in threading.enumerate() if one is server._thread]
    assert thread.name == "status server"
    with (
        socket.create_connection(("127.0.0.1", port)) as silent,
        socket.create_connection(("127.0.0.1", port)) as waiting,
    ):
        waiting.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        silent.sendall(b"GET / HT")
        assert view.asked_once.wait(30)
        begin = time.monotonic()
        server.stop()
        took = time.monotonic() - begin
    view.go_on.set()
    assert not server.running
    assert not thread.is_alive()
    assert took < 2.5  # 1.3 s on an idle machine; `stop` itself waits no longer than 2 s
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        fetch(port, "/")


def test_it_can_be_started_again_on_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = StatusServer(FieldView(), StatusSettings(port=port))
    for _ in range(2):
        assert server.start() == f"http://127.0.0.1:{port}/"
        assert fetch(port, "/api/cameras").status == 200
        server.stop()


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = StatusServer(FieldView(), StatusSettings(port=port))
        with pytest.raises(EdgeLslaError, match=rf"cannot listen: 127.0.0.1 port {port} \(Address already in use\); "):
            server.start()
        assert not server.running
        server.stop()


def test_it_serves_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with StatusServer(FieldView(), StatusSettings(host="::1", port=0)) as server:
        assert server.running
        host = server.url.removeprefix("http://").rstrip("/")
        assert host.startswith("[::1]:")
        with socket.create_connection(("::1", int(host[6:])), timeout=30) as connection:
            connection.sendall(f"GET /api/cameras HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_an_answer_does_not_wait_for_the_last_ones_receipt() -> None:
    """Without TCP_NODELAY every answer on a kept connection would take 40 ms longer."""
    with StatusServer(FieldView(), StatusSettings(port=0)) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"GET /api/cameras HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            [kept] = server._server.server_state.connections
            assert kept.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
