"""From the outbox to one receiver: in order, again and again until it has everything."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from edge_lsla.delivery.sender import DeliveryError, Outbox, Sender
from edge_lsla.delivery.settings import ForwardSettings
from edge_lsla.errors import EdgeLslaError
from edge_lsla.events import Event

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0  # how often a connection is tended, and the outbox looked into, unasked
LONGEST_ASKED_SECONDS = 3600.0  # a receiver may ask to be left alone so long
JOIN_SECONDS = 1.8
MOST_PASSED_OVER = 100  # more than that is no row of bad events


@dataclass(frozen=True)
class DeliveryState:
    """How delivery to one receiver stands.

    Attributes:
        name: the sink's name.
        connected: whether the receiver could be reached when last tried.
        backlog: events that it does not have.
        delivered: events that were acknowledged since the start.
        set_aside: events that were given up since the start, because the receiver refuses them and takes others.
        last_error: what keeps events from being delivered, or the last event set aside; None where there is nothing.
        since: seconds since the epoch, when `connected` became what it is.
    """

    name: str
    connected: bool
    backlog: int
    delivered: int
    set_aside: int
    last_error: str | None
    since: float


class Forwarder:
    """A thread that hands an outbox's events to a sender and moves the outbox's cursor when they are acknowledged.

    A receiver that is away is tried again, ever more rarely. An event that it refuses is passed over after
    `settings.refusals` times, but set aside only when the receiver then took a later event and refused this one once
    more: so nothing is given up because of a receiver that refuses everything, for want of a permission say. A later
    event that went ahead may be sent twice.

    Args:
        outbox: see `Outbox`; used from the thread, and by `state`.
        sender: see `Sender`; used from the thread only.
        settings: see `ForwardSettings`.
    """

    def __init__(self, outbox: Outbox, sender: Sender, settings: ForwardSettings) -> None:
        self._outbox, self._sender, self._settings = outbox, sender, settings
        self._stop, self._wake = threading.Event(), threading.Event()
        # It never holds up the end of the process: a name that does not resolve blocks longer than anybody waits.
        self._thread = threading.Thread(target=self._run, name=f"deliver {sender.name}", daemon=True)
        self._failures = 0  # in a row
        self._refusals: dict[int, int] = {}
        self._passed_over: set[int] = set()
        self._delivered = self._set_aside = self._backlog = 0
        self._error: str | None = None
        self._last_aside: str | None = None
        self._connected, self._since = sender.connected, time.time()

    def __enter__(self) -> Forwarder:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Register the sink and begin.

        Raises:
            EdgeLslaError: the outbox cannot register the sink.
        """
        self._outbox.register(self._sender.name)
        self._thread.start()

    def notify(self) -> None:
        """Say that something was recorded; it is sent at once unless a failure is being waited out."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; returns within two seconds, whatever the receiver does."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(JOIN_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def state(self) -> DeliveryState:
        """How delivery stands now."""
        try:
            self._backlog = self._outbox.backlog(self._sender.name)
        except EdgeLslaError as error:  # a store in trouble says so itself; the last number still tells something
            log.debug("no backlog of %s: %s", self._sender.name, error)
        connected = self._note_connection()
        return DeliveryState(
            name=self._sender.name,
            connected=connected,
            backlog=self._backlog,
            delivered=self._delivered,
            set_aside=self._set_aside,
            last_error=self._error or self._last_aside,
            since=self._since,
        )

    def _note_connection(self) -> bool:
        connected = self._sender.connected
        if connected != self._connected:
            self._connected, self._since = connected, time.time()
        return connected

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                more = self._step()
            except Exception as error:  # whatever it is, the thread goes on and says so
                self._pause(error)
                continue
            if self._error is not None:
                log.info("%s: delivers again", self._sender.name)
            self._failures, self._error = 0, None
            self._note_connection()
            if not more:
                self._wake.wait(LOOK_SECONDS)
        self._sender.close()

    def _step(self) -> bool:
        """Hand over what there is; return whether there may be more."""
        size = self._settings.batch
        pending = self._outbox.pending(self._sender.name, size + len(self._passed_over))
        fresh = [item for item in pending if item[0] not in self._passed_over]
        if self._passed_over and (not fresh or len(self._passed_over) >= MOST_PASSED_OVER):
            return self._try_alone(pending[0])
        # Alone after a failure: then it is clear what was refused, and little is sent twice.
        chosen = fresh[: 1 if self._failures or self._passed_over else size]
        upto = self._send(chosen)
        if self._passed_over and upto:
            # The receiver takes events. What it still refuses, it refuses for what it is.
            for item in pending:
                if item[0] in self._passed_over and not self._try_alone(item, last=True):
                    return False
            self._outbox.delivered(self._sender.name, upto)
        return bool(chosen) and not self._stop.is_set()

    def _send(self, chosen: list[tuple[int, Event]]) -> int:
        """Send, and move the cursor up to what is acknowledged unless an event before that is passed over."""
        try:
            upto = self._sender.send(chosen, self._stop)
        except DeliveryError as error:
            self._acknowledged(chosen, error.upto)
            seq = error.refused
            if seq is not None:
                self._refusals[seq] = self._refusals.get(seq, 0) + 1
                if self._refusals[seq] >= self._settings.refusals:
                    self._passed_over.add(seq)
            raise
        self._acknowledged(chosen, upto)
        return upto

    def _acknowledged(self, chosen: list[tuple[int, Event]], upto: int) -> None:
        taken = [seq for seq, _ in chosen if seq <= upto]
        self._delivered += len(taken)
        for seq in taken:
            self._refusals.pop(seq, None)
        if taken and not self._passed_over:
            self._outbox.delivered(self._sender.name, upto)

    def _try_alone(self, item: tuple[int, Event], last: bool = False) -> bool:
        """Send an event that was passed over once more; `last`: set it aside where it is refused again."""
        seq, event = item
        try:
            if self._sender.send([item], self._stop) < seq:
                return False  # stopped
            self._delivered += 1
        except DeliveryError as error:
            if error.refused == seq:
                self._refusals[seq] += 1
            if error.refused != seq or not last:
                raise
            self._set_aside += 1
            self._last_aside = (
                f"event {event.id} was refused {self._refusals[seq]} times and is set aside, "
                f"it remains in the store: {error}"
            )
            log.error("%s: %s", self._sender.name, self._last_aside)
        del self._refusals[seq]
        self._passed_over.discard(seq)
        if not last or not self._passed_over:
            self._outbox.delivered(self._sender.name, seq)
        return True

    def _pause(self, error: Exception) -> None:
        """Say what went wrong and wait, longer after each failure in a row, the connection kept alive."""
        expected = isinstance(error, EdgeLslaError)
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        if text != self._error:
            log.warning("%s: %s", self._sender.name, text, exc_info=None if expected else error)
        self._error = text
        self._note_connection()
        self._failures = 1 if getattr(error, "upto", 0) else self._failures + 1
        settings = self._settings
        longest = min(settings.longest_wait_seconds, settings.first_wait_seconds * 2.0 ** min(self._failures - 1, 30))
        asked = min(getattr(error, "retry_after", None) or 0.0, LONGEST_ASKED_SECONDS)
        until = time.monotonic() + max(longest * random.uniform(0.5, 1.0), asked)
        # An event that is passed over must not make a new one wait; otherwise news is no reason to ask again.
        passed_over = getattr(error, "refused", None) in self._passed_over
        signal = self._wake if passed_over and len(self._passed_over) < MOST_PASSED_OVER else self._stop
        while not signal.wait(max(0.0, min(until - time.monotonic(), LOOK_SECONDS))) and time.monotonic() < until:
            self._sender.tend()
