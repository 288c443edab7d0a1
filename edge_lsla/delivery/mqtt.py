"""Events to an MQTT broker: QoS 1, acknowledged one by one, nothing subscribed to."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edge_lsla.delivery.secret import exposed
from edge_lsla.delivery.sender import DeliveryError, to_json, told
from edge_lsla.delivery.settings import MqttSettings
from edge_lsla.errors import EdgeLslaError
from edge_lsla.events import Event

if TYPE_CHECKING:
    from edge_lsla.delivery.mqtt_link import Link

log = logging.getLogger(__name__)
POLL_SECONDS = 0.1  # how late a stop is seen
LONGEST_LEVEL = 128
UNSAFE = re.compile(r"[+#/%\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Refusals of the moment, not of the event: packet identifier in use, quota exceeded.
PASSING = (0x91, 0x97)
QUICK_SECONDS, SEVERAL = 15.0, 3  # connections in a row that the broker ends so soon: perhaps there are two of us
RIVAL_SECONDS = 60.0  # after we were put out: two devices of one name must not put each other out every second


def topic_level(name: str) -> str:
    """Return a name as one level of a topic: what has a meaning there is written %XX; "" becomes "device"."""
    return UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", name)[:LONGEST_LEVEL] or "device"


class MqttSender:
    """Publishes events on TOPIC/SOURCE/KIND as JSON, and holds the connection in between.

    An event is acknowledged when the broker's PUBACK came; under MQTT 5 with a reason code below 0x80. Under 3.1.1 a
    broker cannot refuse a message other than by closing the connection, and some acknowledge what they throw away.

    Args:
        settings: see `MqttSettings`.
        device: this device's name, `device` of each event; the client identifier is made of it and the receiver's name,
            and stays the same.
        crop: gives an event's JPEG or None; for `settings.crops`.

    Attributes:
        warnings: what is unwise about the settings, sentences.
    """

    def __init__(self, settings: MqttSettings, device: str, crop: Callable[[str], bytes | None] | None = None) -> None:
        self._settings, self._device = settings, device
        self._crop = crop if settings.crops else None
        self._topic = settings.topic or f"edge-lsla/{topic_level(device)}"
        self._client_id = re.sub(r"[^A-Za-z0-9_-]", "-", f"edge-lsla-{device}-{settings.name}")
        self._link: Link | None = None
        self._quick = 0  # connections in a row that the broker ended soon
        self._rival: DeliveryError | None = None  # another client has our name; not yet said
        unsafe = "the broker's certificate is not verified" if settings.tls else "a password may cross the network"
        said = (exposed(settings.password_file), exposed(settings.key_file), unsafe if settings.insecure else None)
        self.warnings = tuple(filter(None, said))

    @property
    def name(self) -> str:
        """The sink's name in the outbox."""
        return self._settings.name

    @property
    def connected(self) -> bool:
        """Whether the broker consented to the connection, and it stands."""
        link = self._link
        return link is not None and link.ended is None

    def send(self, batch: Sequence[tuple[int, Event]], stop: threading.Event) -> int:
        """See `Sender.send`."""
        link = self._connect(stop)
        if link is None:
            return 0
        under_way = _Batch(link, self._topic, self._device, self._crop, self._settings.timeout_seconds)
        try:
            return under_way.deliver(batch, stop)
        except DeliveryError as error:
            rival = self._lose(link)
            if rival is not None:
                self._rival, rival.upto = None, error.upto
                if not link.taken_over:  # it may as well be for what was sent
                    rival.refused, rival.retry_after = error.refused, None
                raise rival from error
            raise
        finally:
            if link.ended is not None:
                self.close()

    def tend(self) -> None:
        """See `Sender.tend`."""
        if self._link is not None:
            self._link.serve(0)
            self._link.answers.clear()
            if self._link.ended is not None:
                self._lose(self._link)

    def close(self) -> None:
        """See `Sender.close`."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _connect(self, stop: threading.Event) -> Link | None:
        """Return a standing connection, an old or a new one; None where `stop` was quicker."""
        self.tend()
        if self._rival is not None:
            rival, self._rival = self._rival, None
            raise rival
        if self._link is None:
            from edge_lsla.delivery.mqtt_link import Link  # paho is heavy

            link = Link(self._settings, self._client_id, f"{self._topic}/status" if self._settings.status else None)
            link.open(stop)
            if stop.is_set():
                link.close()
                return None
            self._link = link
        return self._link

    def _lose(self, link: Link) -> DeliveryError | None:
        """Let go of a connection that has ended; return what to say where another client seems to have our name."""
        if link.ended is None or self._link is not link:
            return self._rival
        soon = link.closed and link.opened is not None and time.monotonic() - link.opened < QUICK_SECONDS
        self._quick = self._quick + 1 if soon else 0
        remedy = "give each device its own `device`"
        if link.taken_over:
            what = f"another client uses the name {self._device!r}"
            self._rival = DeliveryError(what, link.where, remedy, retry_after=RIVAL_SECONDS)
        elif self._quick >= SEVERAL:  # mosquitto 2.0.11 does not say so, nor does any under 3.1.1
            remedy = f"if another client uses the name {self._device!r}, {remedy}"
            self._rival = DeliveryError(f"{link.ended}, soon again", link.where, remedy, retry_after=RIVAL_SECONDS)
        self.close()
        return self._rival


class _Message(NamedTuple):
    """One message of an event; `kind` is its media type, `first` says that the event follows."""

    seq: int
    event: str
    topic: str
    payload: bytes
    kind: str
    first: bool = False


class _Batch:
    """Events under way over one connection."""

    def __init__(
        self,
        link: Link,
        topic: str,
        device: str,
        crop: Callable[[str], bytes | None] | None,
        timeout_seconds: float,
    ) -> None:
        self._link, self._topic, self._device, self._crop = link, topic, device, crop
        self._timeout = timeout_seconds
        self._sent: dict[int, _Message] = {}  # by the message's number
        self._open: deque[int] = deque()  # events, in order, that are not yet acknowledged
        self._acknowledged: set[int] = set()
        self._refused: dict[int, str] = {}
        self._upto = 0

    def deliver(self, batch: Sequence[tuple[int, Event]], stop: threading.Event) -> int:
        """Publish in order and wait for every answer; see `Sender.send`."""
        self._open.extend(seq for seq, _ in batch)
        failure = None
        try:
            self._exchange(self._messages(batch), stop)
        except DeliveryError as error:
            failure = error
            failure.upto = self._upto
        if self._refused:  # in any case, for some brokers hang up after they refused a message
            seq = min(self._refused)
            raise DeliveryError(
                self._refused[seq], self._link.where, "see what the broker allows", upto=self._upto, refused=seq
            )
        if failure is not None:
            under_way = {message.seq for message in self._sent.values()}
            if self._link.closed and len(under_way) == 1:  # perhaps for what it is; the forwarder will find out
                failure.refused = under_way.pop()
            raise failure
        return self._upto

    def _exchange(self, messages: Iterator[_Message], stop: threading.Event) -> None:
        """Publish, `window` messages at once, until all are answered or one is refused and the others answered."""
        link, heard = self._link, time.monotonic()
        waiting = next(messages, None)
        while (self._sent or (waiting and not self._refused)) and not stop.is_set():
            while waiting and not self._refused and len(link.outstanding) < link.window and link.ended is None:
                if self._fits(waiting):
                    self._sent[link.publish(waiting.topic, waiting.payload, waiting.event, waiting.kind)] = waiting
                waiting = next(messages, None)
            link.serve(POLL_SECONDS)
            if link.answers:
                heard = time.monotonic()
            self._take_answers()
            if link.ended is None and time.monotonic() - heard > self._timeout:
                link.ended = "the broker does not acknowledge"
            if link.ended is not None:
                raise DeliveryError(link.ended, link.where, "it is tried again")

    def _messages(self, batch: Sequence[tuple[int, Event]]) -> Iterator[_Message]:
        for seq, event in batch:
            topic = f"{self._topic}/{topic_level(event.source)}/{topic_level(event.kind)}"
            try:
                payload = to_json(told(event, self._device))
            except (ValueError, TypeError, RecursionError) as error:
                self._refused[seq] = f"an event cannot be written as JSON ({error})"
                return
            crop = self._crop_of(event.id)
            if crop is not None:
                yield _Message(seq, event.id, f"{topic}/crop/{topic_level(event.id)}", crop, "image/jpeg", True)
            yield _Message(seq, event.id, topic, payload, "application/json")

    def _crop_of(self, event: str) -> bytes | None:
        try:
            return self._crop(event) if self._crop is not None else None
        except EdgeLslaError as error:  # one that cannot be read must not hold up its event
            log.warning("the crop of event %s is left out: %s", event, error)
            return None

    def _fits(self, message: _Message) -> bool:
        largest = self._link.largest
        size = self._link.size(message.topic, message.payload, message.event, message.kind)
        if largest is None or size <= largest:
            return True
        self._refuse(message, f"a message of {size} bytes is larger than the broker takes ({largest})")
        return False

    def _refuse(self, message: _Message, reason: str) -> None:
        if message.first:
            log.warning("the crop of event %s is left out: %s", message.event, reason)
        else:
            self._refused[message.seq] = reason

    def _take_answers(self) -> None:
        while self._link.answers:
            number, reason = self._link.answers.popleft()
            message = self._sent.pop(number, None)
            if message is None:  # the status, or of an earlier batch that was stopped
                continue
            if reason.is_failure and reason.value in PASSING:
                raise DeliveryError(f"the broker puts us off: {reason}", self._link.where, "it is tried again")
            if reason.is_failure:
                self._refuse(message, f"the broker refuses a message: {reason}")
            elif not message.first:
                self._acknowledged.add(message.seq)
        while self._open and self._open[0] in self._acknowledged:
            self._upto = self._open.popleft()
