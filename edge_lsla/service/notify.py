"""Telling systemd how the service is: readiness, progress, a line of status; nothing without systemd.

Source: sd_notify(3), "Standalone Implementations".
"""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """Sends to the socket that NOTIFY_SOCKET names, a path or, after "@", an abstract name; never raises."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        if not address.startswith(("/", "@")):
            self._address = ""
        self._status = ""

    def send(self, *assignments: str) -> None:
        """Send assignments such as "READY=1" in one datagram."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(1.0)
            connection.sendto("\n".join(assignments).encode("utf-8", "replace"), self._address)

    def ready(self) -> None:
        """The service has started."""
        self.send("READY=1")

    def progress(self) -> None:
        """Feed the watchdog: work was done since the last time."""
        self.send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`; the same line is sent once."""
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self.send(f"STATUS={line}")

    def stopping(self) -> None:
        """The service is about to end."""
        self.send("STOPPING=1")

    @staticmethod
    def watchdog_seconds() -> float | None:
        """Return within what time systemd wants to see progress; None where it watches nothing, or another process."""
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return None
        with contextlib.suppress(ValueError):
            return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 or None
        return None
