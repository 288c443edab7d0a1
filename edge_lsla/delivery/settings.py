"""What delivery can be told."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from edge_lsla.errors import UsageError

VERSIONS = ("5", "3.1.1")
LONGEST_TIMEOUT = 600.0


@dataclass(frozen=True)
class ForwardSettings:
    """How events are handed to one receiver.

    Attributes:
        batch: events handed over at once, at most.
        first_wait_seconds: pause after a first failure; it doubles with each further one.
        longest_wait_seconds: where the doubling ends. Every pause is shortened by chance, by up to half.
        refusals: after how many refusals of one event the next one is tried.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    batch: int = 100
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 300.0
    refusals: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 10_000:
            raise UsageError("a batch has 1 to 10000 events", "batch", "correct it")
        if not 0 < self.first_wait_seconds <= self.longest_wait_seconds:
            raise UsageError(
                "the first pause is above 0 seconds and not above the longest", "first_wait_seconds", "correct it"
            )
        if not self.longest_wait_seconds <= 86400:
            raise UsageError("the longest pause is a day, 86400 seconds", "longest_wait_seconds", "correct it")
        if not 1 <= self.refusals <= 100:
            raise UsageError("an event is tried 1 to 100 times", "refusals", "correct it")


@dataclass(frozen=True)
class MqttSettings:
    """An MQTT broker. Events go to TOPIC/SOURCE/KIND with QoS 1, as JSON with `device`; nothing is subscribed to.

    Attributes:
        host: the broker's name or address.
        port: None takes 8883 with TLS and 1883 without.
        name: of this receiver, in the store and on the status page; unique among all receivers.
        version: of the protocol, "5" or "3.1.1".
        topic: first part of every topic; None takes "edge-lsla/DEVICE".
        tls: encrypt, and verify the broker's certificate and name.
        ca_file: certificates (PEM) that the broker's must descend from; None takes the system's.
        certificate_file, key_file: this device's certificate and private key (PEM), where the broker asks for one.
        insecure: allow what protects nothing: an unverified certificate, or a password without TLS.
        username: as the broker knows this device.
        password_file, password_env: the file, or the environment variable, that has the password.
        window: messages under way at once, at most.
        timeout_seconds: how long connecting, and an acknowledgement, may take.
        keepalive_seconds: the broker is asked for a sign of life after so much silence.
        status: keep "online" or "offline" as a retained message on TOPIC/status.
        crops: publish an event's JPEG crop before it, on TOPIC/SOURCE/KIND/crop/ID.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    host: str
    port: int | None = None
    name: str = "mqtt"
    version: str = "5"
    topic: str | None = None
    tls: bool = True
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False
    username: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    window: int = 20
    timeout_seconds: float = 15.0
    keepalive_seconds: int = 30
    status: bool = True
    crops: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not self.host or not self.host.isprintable() or re.search(r"[\s/@]", self.host):
            raise UsageError("not a host name or address", "host", "write it without scheme, port and user name")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise UsageError("a port is from 1 to 65535", "port", "correct it")
        if self.version not in VERSIONS:
            raise UsageError(f"unknown MQTT version {self.version!r}", "version", f"use {' or '.join(VERSIONS)}")
        if self.topic is not None:
            _check_topic(self.topic)
        if not self.tls and (self.ca_file or self.certificate_file or self.key_file):
            raise UsageError("certificates are for TLS, which is off", "tls", "set it to true, or leave them out")
        if self.key_file is not None and self.certificate_file is None:
            raise UsageError("a private key needs its certificate", "certificate_file", "name it too")
        _check_secret("password", self.password_file, self.password_env)
        has_password = self.password_file is not None or self.password_env is not None
        if has_password and self.username is None:
            raise UsageError("a password needs a user name", "username", "write it too")
        if has_password and not (self.tls or self.insecure or is_loopback(self.host)):
            raise UsageError("a password would cross the network unencrypted", "tls", "set it to true")
        if not 1 <= self.window <= 1000:
            raise UsageError("1 to 1000 messages may be under way", "window", "correct it")
        _check_timeout(self.timeout_seconds)
        if not 10 <= self.keepalive_seconds <= 3600:
            raise UsageError("a sign of life is due every 10 to 3600 seconds", "keepalive_seconds", "correct it")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port or (8883 if self.tls else 1883)


@dataclass(frozen=True)
class WebhookSettings:
    """A web address that takes a JSON list of events, each with `device`, by POST and answers 2xx when it has them.

    Attributes:
        url: where; https, or http to this machine itself.
        name: of this receiver, in the store and on the status page; unique among all receivers.
        ca_file: certificates (PEM) that the server's must descend from; None takes the system's.
        insecure: allow what protects nothing: an unverified certificate, or http over the network.
        token_file, token_env: the file, or the environment variable, that has a bearer token.
        secret_file, secret_env: the file, or the environment variable, that has the key of the signature: the header
            `X-Edge-Lsla-Signature: sha256=HEX` is the HMAC-SHA256 of the body.
        timeout_seconds: how long one request may take altogether.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    url: str
    name: str = "webhook"
    ca_file: Path | None = None
    insecure: bool = False
    token_file: Path | None = None
    token_env: str | None = None
    secret_file: Path | None = None
    secret_env: str | None = None
    timeout_seconds: float = 15.0

    def __post_init__(self) -> None:
        _check_name(self.name)
        remedy = "write it as https://host/path"
        try:
            parts = self.parts
            port = parts.port
        except ValueError:
            raise UsageError("not a web address", "url", remedy) from None
        plain_ascii = self.url.isascii() and self.url.isprintable() and " " not in self.url
        if not plain_ascii or parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
            raise UsageError("not a web address", "url", remedy)
        if parts.username is not None or parts.password is not None:
            raise UsageError("a web address with a password in it", "url", "use token_file or token_env")
        if parts.scheme == "http" and not (self.insecure or is_loopback(parts.hostname)):
            raise UsageError("events would cross the network unencrypted", "url", remedy)
        _check_secret("token", self.token_file, self.token_env)
        _check_secret("secret", self.secret_file, self.secret_env)
        _check_timeout(self.timeout_seconds)

    @property
    def parts(self) -> SplitResult:
        """The address, taken apart."""
        return urlsplit(self.url)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
        raise UsageError("a receiver's name has small letters, digits and hyphens", "name", "correct it")


def _check_topic(topic: str) -> None:
    levels = topic.split("/")
    if not all(levels) or topic.startswith("$") or re.search(r"[+#\x00-\x1f\x7f-\x9f\ud800-\udfff]", topic):
        raise UsageError(
            "not a topic to publish on", "topic", "write it like farm/trap-1, without +, # and empty parts"
        )
    if len(topic) > 200:
        raise UsageError("a topic has at most 200 characters", "topic", "shorten it")


def _check_secret(field: str, file: Path | None, variable: str | None) -> None:
    if file is not None and variable is not None:
        raise UsageError(f"both a file and a variable for the {field}", f"{field}_env", "name one of them")
    if variable is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        # Not shown: it may be the secret itself, written into the wrong place.
        raise UsageError("not the name of an environment variable", f"{field}_env", "write the name, not the secret")


def _check_timeout(seconds: float) -> None:
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise UsageError(
            f"a timeout is above 0 and at most {LONGEST_TIMEOUT:.0f} seconds", "timeout_seconds", "correct it"
        )
