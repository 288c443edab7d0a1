"""Compilers as processes that end with the build, however it ends: stopped, crashed, killed.

Run as a script it is the supervisor of one command: it leads a session, and kills that session when its standard input
ends, which nothing but the death (or `kill`) of the process that started it brings about.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

# Nothing of this project here: the supervisor starts by itself, and quickly.

NOT_STARTED = 127


class Process:
    """A command in a session of its own; `kill` ends all of it and must be called."""

    def __init__(
        self, command: Sequence[str], output: BinaryIO, environment: Mapping[str, str], folder: Path | None = None
    ) -> None:
        """Start; what the command prints goes to `output`, after a line with the reason where it cannot be started."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *command],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip

    def ended(self) -> bool:
        """Say whether it has ended; its number stays taken until `kill`, which so cannot hit a stranger's session."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> None:
        """Wait until it has ended."""
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)

    def kill(self) -> int:
        """End it where it still runs, and whatever it started or left; return its exit code, -N for signal N."""
        _end_session(self._process.pid)
        self._process.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait()


def _end_session(leader: int) -> None:
    """Kill every process of a session but its leader, whatever groups they are in: Ninja gives each compiler one."""
    killed: set[int] = set()
    while found := set(_members(leader)) - killed - {leader}:  # again, for one may have started another meanwhile
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        killed |= found


def _members(session: int) -> Iterator[int]:
    for entry in os.listdir("/proc"):  # noqa: PTH208  pathlib would double the start of the supervisor
        with contextlib.suppress(OSError):
            if entry.isdecimal() and os.getsid(int(entry)) == session:
                yield int(entry)


def _end_with_starter(ending: threading.Lock) -> None:
    while os.read(0, 1):
        pass
    with ending:  # the command's end must not end the supervisor before all is done
        _end_session(os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Run the command of the arguments and end as it ends."""
    ending = threading.Lock()
    threading.Thread(target=_end_with_starter, args=(ending,), daemon=True).start()
    try:
        code = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        print(f"error: {sys.argv[1]}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED
    ending.acquire()
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command had its chance to leave one
        with contextlib.suppress(OSError):  # SIGKILL has no handler to take away
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
