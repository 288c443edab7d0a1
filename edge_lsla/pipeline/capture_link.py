"""The service's end of a capture process: starting it, talking to it, ending it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edge_lsla.pipeline.frame_ring import FrameRing, create_ring

LARGEST_MESSAGE = 65536
END_SECONDS = 1.2  # in which the process closes the source by itself
KILLED_SECONDS = 0.3  # for the kernel; a process inside a driver may stay longer, and is left to it
_PACKAGE = Path(__file__).resolve().parents[2]


class CaptureLink:
    """A capture process; see `edge_lsla.pipeline.capture_process` for what it can be told and says.

    The process ends with the thread that started it: the kernel sees to that, also when the service is killed.

    Attributes:
        ring: its frames.
        pid: the process.
    """

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sending = threading.Lock()
        memory = create_ring()
        try:
            numbers = (theirs.fileno(), memory)
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "edge_lsla.pipeline.capture_process",
                 *map(str, numbers), str(os.getpid()), str(Path.cwd())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a library that prints must not spoil the service's own lines
                cwd="/",  # -m looks for modules there first: never where the user happens to stand
                env=_environment(),
                pass_fds=numbers,
                start_new_session=True,  # a terminal's Ctrl-C reaches the service alone; and one signal ends the group
            )  # fmt: skip
        except BaseException:
            os.close(memory)
            self._socket.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.ring = FrameRing(memory)

    def tell(self, what: str, **more: Any) -> None:
        """Send an order; one that cannot be sent is noticed by the silence that follows."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.send(json.dumps({"do": what, **more}).encode(), socket.MSG_DONTWAIT)

    def hear(self, timeout: float) -> dict[str, Any] | None:
        """Return what the process says next, or None when it says nothing for `timeout` seconds.

        Raises:
            EOFError: it has ended.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return None
        try:
            message = self._socket.recv(LARGEST_MESSAGE)
        except OSError as error:
            raise EOFError from error
        if not message:
            raise EOFError
        return dict(json.loads(message))

    def end(self, gently: bool) -> None:
        """End the process; within 1.5 s in any case.

        Args:
            gently: give it the time to close its source.
        """
        deadline = time.monotonic() + (END_SECONDS if gently else 0)
        with self._sending, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)  # on which it ends
        with contextlib.suppress(EOFError):
            while (left := deadline - time.monotonic()) > 0:
                self.hear(left)
        # The whole group, for a pipeline that the process started. Only then is its number given back to the system.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILLED_SECONDS)
        with self._sending:
            self._socket.close()

    def last_words(self) -> str:
        """Say how the process ended, after `end`."""
        code = self._process.returncode
        if code is None:
            return "the capture process cannot be ended: a driver holds it"
        if code >= 0:
            return f"the capture process ended with {code}"
        with contextlib.suppress(ValueError):
            return f"the capture process was ended by {signal.Signals(-code).name}"
        return f"the capture process was ended by signal {-code}"


def _environment() -> dict[str, str]:
    """Return an environment in which the process finds this package and what the service would import."""
    given = [os.path.abspath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]  # noqa: PTH100
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE), *given])}
