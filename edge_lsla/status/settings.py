"""How the status page is served."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import UsageError

HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")


@dataclass(frozen=True)
class StatusSettings:
    """Where the status page listens, and who may read it.

    Attributes:
        enabled: serve it at all.
        host: the address to listen at: "localhost", or an IP address of this device; "0.0.0.0" or "::" for all of them.
            Whatever is not loopback needs a token.
        port: 0 takes any that is free.
        host_names: names besides localhost under which a loopback page may be asked for, such as a reverse proxy's.
        token_file: a file that holds the token, at least 16 characters.
        token_env: the environment variable that holds it instead.
        max_connections: connections at once; one more replaces one that has not asked, or one of whoever holds most.
        request_timeout_seconds: after so long without a finished answer a connection is cut; a request itself must come
            in within 10 s.
        answer_timeout_seconds: how long the service may take to answer one question.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 8080
    host_names: tuple[str, ...] = ()
    token_file: Path | None = None
    token_env: str | None = None
    max_connections: int = 32
    request_timeout_seconds: float = 20.0
    answer_timeout_seconds: float = 5.0

    def __post_init__(self) -> None:
        try:
            ipaddress.ip_address(self.address)
        except ValueError:
            raise UsageError("not an IP address", "host", "give one of this device's, or localhost") from None
        if not 0 <= self.port <= 65535:
            raise UsageError("a port is from 0 to 65535", "port", "correct it")
        for name in self.host_names:
            if not HOST_NAME.fullmatch(name.lower()):
                raise UsageError(f"not a host name: {name[:80]!r}", "host_names", "give it without scheme and port")
        if self.token_file is not None and self.token_env is not None:
            raise UsageError("the token has two origins", "token_env", "leave out this or token_file")
        if not self.loopback and not self.needs_token:
            raise UsageError(
                f"the status page would be open to the network at {self.host}", "host", "set token_file or token_env"
            )
        if not 4 <= self.max_connections <= 1000:
            raise UsageError("connections are from 4 to 1000", "max_connections", "correct it")
        for name in ("request_timeout_seconds", "answer_timeout_seconds"):
            if not 0 < getattr(self, name) <= 600:
                raise UsageError("a time is above 0 and at most 600 seconds", name, "correct it")

    @property
    def address(self) -> str:
        """The IP address to listen at; localhost is taken for what it means, whatever a name server says."""
        return "127.0.0.1" if self.host.lower() == "localhost" else self.host

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the page."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def needs_token(self) -> bool:
        """Whether whoever asks has to show a token."""
        return self.token_file is not None or self.token_env is not None
