"""An outbox in memory, events, a scripted receiver, and brokers that misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edge_lsla.delivery.sender import DeliveryError
from edge_lsla.delivery.settings import ForwardSettings, MqttSettings
from edge_lsla.events import Box, Event

QUICK = ForwardSettings(first_wait_seconds=0.01, longest_wait_seconds=0.1)


def event(number: int, source: str = "trap-1", **details: Any) -> Event:
    return Event(
        "arrived",
        1e9 + number,
        source,
        f"track{number}",
        "bee",
        0.9,
        Box(0, 0, 9, 9),
        id=f"id{number}",
        details=details,
    )


class Memory:
    """An outbox that a test can look into."""

    def __init__(self, count: int = 0) -> None:
        self.lock = threading.Lock()
        self.events = [(number, event(number)) for number in range(1, count + 1)]
        self.cursor: dict[str, int] = {}

    def add(self, item: Event) -> None:
        with self.lock:
            self.events.append((len(self.events) + 1, item))

    def register(self, sink: str) -> None:
        self.cursor.setdefault(sink, 0)

    def pending(self, sink: str, limit: int) -> list[tuple[int, Event]]:
        with self.lock:
            return [item for item in self.events if item[0] > self.cursor[sink]][:limit]

    def delivered(self, sink: str, upto: int) -> None:
        assert upto > self.cursor[sink], "the cursor only moves forward"
        self.cursor[sink] = upto

    def backlog(self, sink: str) -> int:
        return len(self.pending(sink, len(self.events)))


class Scripted:
    """A sender whose receiver does what a function says; keeps what arrived."""

    name = "scripted"

    def __init__(self, answer: Callable[[int, Event], DeliveryError | None] = lambda seq, item: None) -> None:
        self.answer, self.connected, self.arrived, self.closed = answer, True, [], False
        self.calls = 0
        self.arrived: list[str] = []

    def send(self, batch: Sequence[tuple[int, Event]], stop: threading.Event) -> int:
        self.calls += 1
        upto = 0
        for seq, item in batch:
            error = self.answer(seq, item)
            if error is not None:
                error.upto = upto
                raise error
            self.arrived.append(item.id)
            upto = seq
        return upto

    def tend(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def broker_settings(port: int, **options: Any) -> MqttSettings:
    return MqttSettings("127.0.0.1", port, **{"topic": "farm", "tls": False, "timeout_seconds": 5.0, **options})


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on loopback, give each connection to `serve` in turn, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    serve(connection)

        thread = threading.Thread(target=accept, name="misbehaving server", daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            # Closing alone does not wake a thread that waits in accept.
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()
