"""Connections that can neither fill the server nor hold it up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_lsla.status.tokens import network

CLOSING_SECONDS = 0.5  # what a stop leaves an answer that is under way
RECEIVE_SECONDS = 10.0  # for a request, head and body, from its first byte
UNWANTED_SECONDS = 1.0  # for the rest of a body that was answered without being read
UNWANTED_BYTES = 65536


def bounded(most: int, timeout_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol with limits that it lacks.

    Uvicorn refuses whoever comes after `limit_concurrency`, waits for ever for a request, and reads a body to its end
    that nobody wants; so a few connections that say nothing, or drip, would lock everybody out.

    Args:
        most: connections at once. One more replaces one that waits: it has asked nothing, or not all of its request, or
            it is only slow to take its answer. Where the service is busy with all of them it replaces one of an address
            that has more of them than its own; else it is closed itself. Of several it is the oldest of the address
            that has most.
        timeout_seconds: a connection is cut so long after it was made, or after its last answer, if no answer has been
            finished since: whether it sends slowly, or does not take what it asked for. A request has 10 s from its
            first byte to come in; the rest of a body that was answered unread has one second, and 64 KB.
    """

    class Bounded(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self.since = time.monotonic()  # when it was made, or last answered
            self.unwanted: int | None = None  # bytes that came of a body after the answer
            self.late: asyncio.TimerHandle | None = None
            self.deadline: asyncio.TimerHandle | None = None
            self.home = network((transport.get_extra_info("peername") or ("",))[0])
            others = [one for one in self.connections if isinstance(one, Bounded)]
            full = len(others) >= most
            if full and (replaced := self.replaces(others)) is not None:
                self.connections.discard(replaced)
                replaced.transport.abort()
                full = False
            super().connection_made(transport)
            self.last(timeout_seconds)
            if full:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self.last(None)
            self.expect(False)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.unwanted is not None:
                self.unwanted += len(data)
                if self.unwanted > UNWANTED_BYTES:
                    self.flow.pause_reading()  # and not closed, or the system would throw the answer away
                    return
            super().data_received(data)
            if self.unwanted is not None and self.conn.their_state is not h11.SEND_BODY:
                self.unwanted = None
                self.last(timeout_seconds)
            self.expect(self.receiving())

        def on_response_complete(self) -> None:
            self.since = time.monotonic()
            self.last(None)
            self.unwanted = 0 if self.conn.their_state is h11.SEND_BODY else None
            if not self.transport.is_closing() or self.transport.get_write_buffer_size():
                self.last(timeout_seconds if self.unwanted is None else min(UNWANTED_SECONDS, timeout_seconds))
            super().on_response_complete()
            self.expect(self.receiving())

        def shutdown(self) -> None:
            super().shutdown()
            self.loop.call_later(CLOSING_SECONDS, self.transport.abort)

        def last(self, seconds: float | None) -> None:
            """Cut the connection after so many seconds from now; None: not at all."""
            if self.deadline is not None:
                self.deadline.cancel()
            self.deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

        def receiving(self) -> bool:
            """Whether a part of a request is here, and not all of it."""
            head = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
            return head or self.conn.their_state is h11.SEND_BODY

        def expect(self, more: bool) -> None:
            """Give a request its time to come in, or end that."""
            if more and self.late is None:
                self.late = self.loop.call_later(min(RECEIVE_SECONDS, timeout_seconds), self.transport.abort)
            elif not more and self.late is not None:
                self.late.cancel()
                self.late = None

        def waits(self) -> bool:
            """Whether it has asked nothing that is not answered, or not yet all of it."""
            cycle: Any = self.cycle  # None before the first request
            return cycle is None or bool(cycle.response_complete) or self.conn.their_state is h11.SEND_BODY

        def replaces(self, others: list[Bounded]) -> Bounded | None:
            """Return whose place this connection takes; None where nobody has to give way."""
            held = Counter(one.home for one in others)
            waiting = [one for one in others if one.waits()]
            greedy = [one for one in others if held[one.home] > held[self.home] + 1]
            return min(waiting or greedy, key=lambda one: (-held[one.home], one.since), default=None)

    return Bounded
