"""Starting the field service in a process of its own, and looking at it: for the tests of `run`."""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FIELD_CONFIG = """
data = "{data}"
[model]
bundle = "{bundle}"
precision = "fp32"
threads = 1
[[cameras]]
name = "trap-1"
source = "synthetic"
[cameras.opening]
size = [160, 120]
rate = 30
{frames}
[cameras.finding]
regions = "{regions}"
min_confidence = 0
[cameras.finding.track]
confirm_frames = 2
[status]
port = 0
{more}
"""
Start = Callable[..., "subprocess.Popen[str]"]


def health(port: str) -> dict[str, Any]:
    """Return what the status page says."""
    return json.loads(get(port, "/api/health")[1])  # type: ignore[no-any-return]


def rows(data: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(data / "events.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def wait_for(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read the service's lines until one has the pattern."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"the service ended: {seen}, {process.stderr.read() if process.stderr else ''}")


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


def get(port: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def end(process: subprocess.Popen[str], number: int) -> tuple[int, float, str]:
    """Send a signal; return the exit code, the seconds it took, and standard error."""
    process.send_signal(number)
    begin = time.monotonic()
    _, error = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - begin, error
