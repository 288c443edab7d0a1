"""A real mosquitto on loopback, and a subscriber to it, for benchmarks and tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
START_SECONDS = 20.0


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


class Broker:
    """A mosquitto that may be started and stopped many times on one port; it keeps its sessions in `folder`.

    Args:
        folder: for its configuration, log and sessions.
        lines: more of its configuration.
        program: the executable.
    """

    def __init__(self, folder: Path, lines: str = "allow_anonymous true", program: str | None = PROGRAM) -> None:
        self.port, self._folder, self._program = free_port(), folder, str(program)
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\npersistence true\npersistence_location {folder}/\n"
            # Its default drops what a subscriber has not yet taken beyond 1000 messages.
            f"user root\nmax_queued_messages 0\nlog_type all\n{lines}\n"
        )

    def start(self) -> Broker:
        """Start it and wait until it takes connections."""
        with (self._folder / "mosquitto.log").open("ab") as log:
            command = [self._program, "-c", str(self._folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < until, self.log()
                time.sleep(0.02)
            else:
                return self

    def stop(self) -> None:
        """End it as a service is ended: it writes its sessions down."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
            self._process = None

    def log(self) -> str:
        """Return what it wrote so far."""
        return (self._folder / "mosquitto.log").read_text(errors="replace")

    def __enter__(self) -> Broker:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class Subscriber:
    """A subscriber with QoS 1 and a session that outlives connections; paho connects it anew by itself.

    Attributes:
        messages: everything that came, in order, duplicates too.
    """

    def __init__(self, port: int, topic: str = "#", **login: str) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._topic, self._subscribed = topic, False
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="subscriber", clean_session=False, protocol=paho.MQTTv311
        )
        if login:
            client.username_pw_set(**login)
        client.reconnect_delay_set(1, 1)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.connect("127.0.0.1", port)
        client.loop_start()
        wait_for(lambda: self._subscribed)

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(self._topic, qos=1)

    def _on_subscribe(self, *_: Any) -> None:
        self._subscribed = True

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        self.messages.append(message)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # Without this circle paho's own sockets are closed with it, not at some garbage collection.
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    """Wait until something in another thread or process is so.

    Raises:
        TimeoutError: it is not, after so long.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("waited in vain")
        time.sleep(0.01)
