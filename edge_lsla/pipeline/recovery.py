"""What to do about a lost camera, in which order, how soon, and when to give up."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass, fields
from pathlib import Path

from edge_lsla.errors import SourceError, UsageError

HOUR = 3600.0
REOPEN, NEW_PROCESS, RESET, RESTART = "reopen", "new process", "reset", "restart"
POLL_SECONDS = 0.1


class CameraLost(SourceError):  # noqa: N818  # a state more than a mistake
    """A camera is gone, and everything that may be tried was tried; only the whole service anew is left."""


@dataclass(frozen=True)
class SupervisionSettings:
    """How a camera is brought back.

    The steps: opening the source again, then a new capture process, then the reset commands and the budget. A step is
    tried as often as its field says, with a pause before each try that doubles up to the longest; a random part of it,
    up to a half, is left out, so that the cameras of one recorder do not come back all at once.

    Attributes:
        reopens: tries in one capture process before it is replaced.
        processes: new capture processes before the reset commands are run.
        resets_per_hour: so often at most; one more, and the service ends for systemd to start it anew.
        first_pause_seconds, longest_pause_seconds: before the first try, and before any.
        settled_seconds: a camera that has watched for so long is well again, and its next loss starts with `reopens`.
        stall_seconds: without a frame for so long, whatever else comes, a source is lost and its process replaced; more
            than a source's `read_timeout`, which ends most stalls without that.
        heartbeat_seconds: a capture process that is silent for so long hangs, and is replaced.
        frozen_seconds: a live source that shows the very same picture for so long is lost; None: it may.
        reset_commands: programs with their arguments, run in order, without a shell, such as
            ["usbreset", "Logitech Webcam"] or ["systemctl", "restart", "nvargus-daemon"].
        reset_timeout_seconds: for each of them.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    reopens: int = 4
    processes: int = 3
    resets_per_hour: int = 4
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30.0
    settled_seconds: float = 30.0
    stall_seconds: float = 15.0
    heartbeat_seconds: float = 10.0
    frozen_seconds: float | None = None
    reset_commands: tuple[tuple[str, ...], ...] = ()
    reset_timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("reopens", "processes", "resets_per_hour"):
                if not 0 <= value <= 1000:
                    raise UsageError("a number from 0 to 1000 is needed", field.name, "correct it")
            elif field.name.endswith("_seconds") and value is not None and not 0 < value <= 86400:
                raise UsageError("a time is above 0 and at most 86400 seconds", field.name, "correct it")
        for command in self.reset_commands:
            if (
                not isinstance(command, (tuple, list))
                or not command
                or not all(command)
                or any("\0" in word for word in command)
            ):
                raise UsageError(
                    "a command is a list of a program and its arguments",
                    "reset_commands",
                    'write it like [["usbreset"]]',
                )
        if self.heartbeat_seconds < 1:
            raise UsageError("a busy machine needs at least a second", "heartbeat_seconds", "raise it")


@dataclass(frozen=True)
class Step:
    """What to try next.

    Attributes:
        name: "reopen", "new process", "reset" or "restart".
        pause: seconds to wait before it.
    """

    name: str
    pause: float


class Recovery:
    """Remembers what was tried since the camera was last well."""

    def __init__(self, settings: SupervisionSettings) -> None:
        self._settings = settings
        self._random = random.Random()
        self._reopens = self._processes = 0
        self._resets: deque[float] = deque()
        self.attempts = 0

    def failed(self, process_usable: bool, now: float | None = None) -> Step:
        """Return what to try next.

        Args:
            process_usable: whether the capture process can be asked to open the source again.
            now: seconds of the steady clock.
        """
        now = time.monotonic() if now is None else now
        pause = min(
            self._settings.longest_pause_seconds, self._settings.first_pause_seconds * 2.0 ** min(self.attempts, 60)
        )
        self.attempts += 1
        return Step(self._next(process_usable, now), pause * self._random.uniform(0.5, 1))

    def settled(self) -> None:
        """The camera is well again: start from the first step. What was spent of an hour's resets stays spent."""
        self.attempts = self._reopens = self._processes = 0

    def _next(self, process_usable: bool, now: float) -> str:
        if process_usable and self._reopens < self._settings.reopens:
            self._reopens += 1
            return REOPEN
        self._reopens = 0
        if self._processes < self._settings.processes:
            self._processes += 1
            return NEW_PROCESS
        self._processes = 0
        while self._resets and now - self._resets[0] >= HOUR:
            self._resets.popleft()
        if len(self._resets) >= self._settings.resets_per_hour:
            return RESTART
        self._resets.append(now)
        return RESET


def run_resets(settings: SupervisionSettings, stop: threading.Event) -> list[str]:
    """Run the reset commands one after another; ends within moments of `stop`.

    Returns:
        What went wrong, a sentence a command; arguments are left out, for they may hold a password.
    """
    wrong = []
    for command in settings.reset_commands:
        if stop.is_set():
            break
        problem = _run(command, settings.reset_timeout_seconds, stop)
        if problem:
            wrong.append(f"{Path(command[0]).name} {problem}")
    return wrong


def _run(command: tuple[str, ...], seconds: float, stop: threading.Event) -> str | None:
    quiet = subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError as error:
        return f"cannot be started ({error.strerror})"
    deadline = time.monotonic() + seconds
    try:
        while process.poll() is None:
            if time.monotonic() > deadline:
                return f"took longer than {seconds:g} s"
            if stop.wait(POLL_SECONDS):
                return "was interrupted"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # a script's own children too
            process.wait()
    return None if process.returncode == 0 else f"ended with {process.returncode}"
