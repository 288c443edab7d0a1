"""One connection to an MQTT broker, from CONNECT to its end."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_lsla.delivery.network import explain, tls_context
from edge_lsla.delivery.secret import read_secret
from edge_lsla.delivery.sender import DeliveryError
from edge_lsla.delivery.settings import MqttSettings

POLL_SECONDS = 0.1  # how late a stop is seen
LEAVE_SECONDS = 0.5
RETRIED = "it is tried again"
NONSENSE = "the broker sent what is no MQTT"
BROKEN = "the connection to the broker broke off"
CREDENTIALS = "check username, password_file or password_env, and what the broker allows"
TAKEN_OVER = 0x8E  # MQTT 5, 3.14.2.1
REMEDIES = {
    "Bad user name or password": CREDENTIALS,
    "Not authorized": CREDENTIALS,
    "Unsupported protocol version": 'set version to "3.1.1"',
    "Retain not supported": "set status to false",
}


class Link:
    """A connection that one thread opens, serves and closes; paho starts no thread of its own.

    Attributes:
        ended: why it is over; None while it stands or was not opened.
        closed: whether it ended by what the broker did, rather than by silence.
        taken_over: whether another client connected under our identifier; some brokers say so, under MQTT 5.
        opened: seconds of the steady clock, when the broker consented; None before.
        largest: bytes of a packet that the broker takes, as it announced; None where it did not.
        window: messages that may be under way at once.
        outstanding: the numbers of the messages that are under way.
        answers: what came back, oldest first: a message's number and the broker's reason code.
    """

    def __init__(self, settings: MqttSettings, client_id: str, status: str | None) -> None:
        self._settings, self._status = settings, status
        self._new = settings.version == "5"
        self._connected = False
        self.ended: str | None = None
        self.closed = self.taken_over = False
        self.opened: float | None = None
        self.largest: int | None = None
        self.window = settings.window
        self.answers: deque[tuple[int, ReasonCode]] = deque()
        self.outstanding: set[int] = set()
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if self._new else paho.MQTTv311,
            # The store remembers what is undelivered, so the broker need not; and no subscription can have survived.
            clean_session=None if self._new else True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = settings.timeout_seconds
        client.max_inflight_messages_set(0)  # `window` counts
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        if status is not None:
            client.will_set(status, "offline", qos=1, retain=True)

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        return "{}:{}".format(*self._settings.address)

    def open(self, stop: threading.Event) -> None:
        """Connect and wait for the broker's consent, or for `stop`.

        Raises:
            DeliveryError: no connection, or a refusal; the connection is closed.
        """
        settings = self._settings
        password = read_secret(settings.password_file, settings.password_env, "password")
        if settings.username is not None:
            self._client.username_pw_set(settings.username, password)
        if settings.tls:
            self._client.tls_set_context(
                tls_context(settings.ca_file, settings.insecure, settings.certificate_file, settings.key_file)
            )
        options: dict[str, Any] = {"clean_start": True} if self._new else {}
        try:
            self._client.connect(*settings.address, settings.keepalive_seconds, **options)
        except (OSError, ValueError) as error:
            self.close()
            raise DeliveryError(explain(error, "the broker"), self.where, RETRIED) from error
        until = time.monotonic() + settings.timeout_seconds
        while not self._connected and self.ended is None and not stop.is_set():
            if time.monotonic() > until:
                self.ended = "the broker takes connections and does not answer"
            self.serve(POLL_SECONDS)
        if self.ended is not None:
            self.close()
            reason = next((remedy for words, remedy in REMEDIES.items() if words in self.ended), RETRIED)
            raise DeliveryError(self.ended, self.where, reason)
        if self._connected and self._status is not None:
            self.publish(self._status, b"online", retain=True)

    def publish(
        self, topic: str, payload: bytes, event: str | None = None, kind: str = "", retain: bool = False
    ) -> int:
        """Send one message with QoS 1 and return its number, under which its answer comes.

        Where the connection breaks off, `ended` says so, and no answer comes.
        """
        properties = self._properties(event, kind) if event is not None and self._new else None
        sent = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if sent.rc != paho.MQTT_ERR_SUCCESS:
            self.ended = self.ended or BROKEN
        self.outstanding.add(sent.mid)
        return sent.mid

    def size(self, topic: str, payload: bytes, event: str, kind: str) -> int:
        """Return how many bytes `publish` would send under MQTT 5, at most."""
        properties = self._properties(event, kind).pack()  # type: ignore[no-untyped-call]
        return 1 + 4 + 2 + len(topic.encode()) + 2 + len(properties) + len(payload)

    def serve(self, seconds: float) -> None:
        """Send and receive for up to `seconds`, less where something comes; also gives signs of life."""
        if self.ended is not None:
            return
        try:
            code = self._client.loop(seconds)
        except Exception as error:  # paho 2.1 passes on whatever stumbles over bytes that are no MQTT
            self.closed = True
            self.ended = f"{NONSENSE} ({type(error).__name__})"
        else:
            if code != paho.MQTT_ERR_SUCCESS:
                self.ended = self.ended or BROKEN

    def close(self) -> None:
        """Take leave, if the broker listens, within half a second; more than once does no harm."""
        opened = self._client.socket()
        if opened is not None and self._connected and self.ended is None:
            # The broker publishes our last will only when we go without a word.
            last = self.publish(self._status, b"offline", retain=True) if self._status is not None else 0
            until = time.monotonic() + LEAVE_SECONDS
            while self.ended is None and last in self.outstanding and time.monotonic() < until:
                self.serve(POLL_SECONDS)
            self._client.disconnect()
        self.ended = self.ended or "closed"
        if opened is not None:
            opened.close()
        # Without this circle paho's own pair of sockets goes with the link, not at the next garbage collection.
        self._client.on_connect = self._client.on_disconnect = self._client.on_publish = None

    def _properties(self, event: str | None, kind: str) -> Properties:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = kind
        properties.UserProperty = ("id", event)
        return properties

    def _on_connect(
        self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self.ended = f"the broker refuses the connection: {reason}"
            return
        if getattr(properties, "MaximumQoS", 1) == 0:
            self.ended = "the broker acknowledges nothing (it has no QoS 1)"
            return
        self._connected, self.opened = True, time.monotonic()
        self.largest = getattr(properties, "MaximumPacketSize", None)
        self.window = min(self.window, getattr(properties, "ReceiveMaximum", self.window))

    def _on_disconnect(
        self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        said = flags.is_disconnect_packet_from_server
        self.taken_over = said and reason.value == TAKEN_OVER
        # mosquitto 2.0 answers too large a message with a code that is none of a PUBACK's, and hangs up.
        nonsense = reason.getName() == "Protocol error" and not said
        self.closed = said or nonsense or reason.getName() == "Unspecified error"  # paho's name for a closed socket
        words = f"the broker ended the connection: {reason}" if said else NONSENSE if nonsense else BROKEN
        self.ended = self.ended or words

    def _on_publish(self, client: Any, data: Any, mid: int, reason: ReasonCode, properties: Properties | None) -> None:
        self.outstanding.discard(mid)
        self.answers.append((mid, reason))
