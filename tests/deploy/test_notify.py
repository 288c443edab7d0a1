"""What systemd is told, received by a real socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from edge_lsla.service.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_messages_arrive(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"@edge-lsla-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notifier = Notifier()
        notifier.ready()
        notifier.progress()
        notifier.status("watching:\n30 Bilder/s ä")
        notifier.status("watching:\n30 Bilder/s ä")  # the same is not sent again
        notifier.stopping()
        received = [systemd.recv(1000).decode() for _ in range(4)]
    assert received == ["READY=1", "WATCHDOG=1", "STATUS=watching: 30 Bilder/s ä", "STOPPING=1"]
    notifier.progress()  # nobody listens any more: no error


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/notify"])
def test_without_systemd_nothing_happens(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    Notifier().ready()


@pytest.mark.parametrize(
    ("values", "expected"),
    [({}, None), ({"WATCHDOG_USEC": "90000000"}, 90.0), ({"WATCHDOG_USEC": "soon"}, None),
     ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "1"}, None)],
)  # fmt: skip
def test_the_watchdogs_time(values: dict[str, str], expected: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert Notifier.watchdog_seconds() == expected
