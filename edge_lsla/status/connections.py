"""Connections that can neither fill the server nor hold it up."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CLOSING_SECONDS = 0.5  # what a stop leaves an answer that is under way


def bounded(most: int, timeout_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol with limits that it lacks.

    Uvicorn refuses whoever comes after `limit_concurrency`, and waits for ever for a request's first bytes; so a few
    connections that say nothing would lock everybody out.

    Args:
        most: connections at once. One more replaces the one that has waited longest without asking anything; where all
            are being answered it is closed itself.
        timeout_seconds: a connection is cut so long after it was made, or after its last answer, if no answer has been
            finished since: whether it sends slowly, or does not take what it asked for.
    """

    class Bounded(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self.since = time.monotonic()
            if len(self.connections) >= most:
                waiting = [one for one in self.connections if isinstance(one, Bounded) and one.waits()]
                oldest = min(waiting, key=lambda one: one.since, default=None)
                if oldest is not None:
                    self.connections.discard(oldest)
                    oldest.transport.abort()
            full = len(self.connections) >= most
            super().connection_made(transport)
            self.deadline = self.loop.call_later(timeout_seconds, transport.abort)
            if full:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self.deadline.cancel()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self.since = time.monotonic()
            self.deadline.cancel()
            if not self.transport.is_closing() or self.transport.get_write_buffer_size():
                self.deadline = self.loop.call_later(timeout_seconds, self.transport.abort)
            super().on_response_complete()

        def shutdown(self) -> None:
            super().shutdown()
            self.loop.call_later(CLOSING_SECONDS, self.transport.abort)

        def waits(self) -> bool:
            """Whether it has asked nothing that is not answered."""
            cycle: Any = self.cycle  # None before the first request
            return cycle is None or bool(cycle.response_complete)

    return Bounded
