"""Ending a read that FFmpeg is blocked in, by ending the connection under it.

PyAV offers no interruption besides its timeout, and a thread that is still inside FFmpeg when Python ends can take the
process down with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from urllib.parse import urlsplit

OPEN_FILES = "/dev/fd"  # Linux and macOS
PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}

Socket = tuple[int, int]  # file number and inode: a number alone may be given to another file


class Connection:
    """The TCP connection that a library opened to a URL's host, found among the process's open files.

    Where it cannot be told apart (a proxy, a redirect, two streams of one recorder opened at the same moment), nothing
    is found, and `shut` does nothing.
    """

    def __init__(self) -> None:
        self._socket: Socket | None = None

    @contextlib.contextmanager
    def opened_here(self, url: str) -> Iterator[None]:
        """Note the connection to `url` that appears while the block runs and is there at its end."""
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme.lower(), 0)
        before = set(_connected(port))
        yield
        new = set(_connected(port)) - before
        self._socket = new.pop() if len(new) == 1 else None

    def shut(self) -> None:
        """Shut the connection if it is still open; whoever reads from it sees its end at once."""
        if self._socket is None:
            return
        number, inode = self._socket
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
            if os.fstat(copy.fileno()).st_ino == inode:
                copy.shutdown(socket.SHUT_RDWR)


def _connected(port: int) -> Iterator[Socket]:
    """Yield the process's TCP sockets whose other side has this port."""
    with contextlib.suppress(OSError):
        for name in os.listdir(OPEN_FILES):  # noqa: PTH208  # numbers, not paths
            with contextlib.suppress(OSError):
                status = os.fstat(int(name))
                if stat.S_ISSOCK(status.st_mode) and _other_port(int(name)) == port:
                    yield int(name), status.st_ino


def _other_port(number: int) -> int | None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
        if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM:
            return int(copy.getpeername()[1])
    return None
