"""Where events come from and where they go, as the forwarder sees both."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from edge_lsla.errors import EdgeLslaError
from edge_lsla.events import Event


class DeliveryError(EdgeLslaError):
    """A receiver is away or refuses; nothing is lost by it.

    Attributes:
        upto: everything up to this number was acknowledged before it happened; 0 where nothing was.
        refused: the number of the one event that the receiver refused for what it is; None where it was the receiver.
        retry_after: seconds that the receiver asked to be left alone.
    """

    def __init__(
        self,
        what: str,
        where: object = None,
        remedy: str | None = None,
        *,
        upto: int = 0,
        refused: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, where, remedy)
        self.upto, self.refused, self.retry_after = upto, refused, retry_after


def told(event: Event, device: str) -> dict[str, Any]:
    """Return an event as every receiver gets it: its JSON form, and which device it comes from."""
    return {**event.to_dict(), "device": device}


def to_json(content: object) -> bytes:
    """Return JSON without blanks; raises ValueError, TypeError or RecursionError where it cannot be written."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class Outbox(Protocol):
    """Recorded events in order, each with a number above 0, and how far each receiver ("sink") has them."""

    def register(self, sink: str) -> None:
        """Keep events until this sink has them; more than once does no harm."""

    def pending(self, sink: str, limit: int) -> list[tuple[int, Event]]:
        """Return the oldest events that the sink does not have, in order."""

    def delivered(self, sink: str, upto: int) -> None:
        """Note, durably, that the sink has everything up to this number."""

    def backlog(self, sink: str) -> int:
        """Return how many events the sink does not have."""


class Sender(Protocol):
    """Carries events to one receiver; used by one thread, the forwarder's."""

    @property
    def name(self) -> str:
        """The sink's name in the outbox."""

    @property
    def connected(self) -> bool:
        """Whether the receiver could be reached when last tried."""

    def send(self, batch: Sequence[tuple[int, Event]], stop: threading.Event) -> int:
        """Send events in order and wait for their acknowledgement; no events: only see that there is a connection.

        Returns soon after `stop` is set, with what is acknowledged by then. An event may arrive twice.

        Returns:
            The highest number up to which everything is acknowledged, 0 for none.

        Raises:
            DeliveryError: the receiver is away or refuses.
        """

    def tend(self) -> None:
        """Keep a standing connection alive while nothing is sent; never connects, never raises."""

    def close(self) -> None:
        """Take leave of the receiver; within a second."""
