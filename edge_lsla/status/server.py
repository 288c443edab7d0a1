"""The status server: a thread that answers HTTP, beside a service that must not notice it."""

from __future__ import annotations

import contextlib
import importlib
import socket
import threading
from types import TracebackType
from typing import Any

from edge_lsla.errors import EdgeLslaError, MissingComponentError
from edge_lsla.status.settings import StatusSettings
from edge_lsla.status.tokens import read_token
from edge_lsla.status.view import View

__all__ = ["StatusServer", "View"]
STOP_SECONDS = 2.0
GRACE_SECONDS = 1  # of `STOP_SECONDS`, for answers that are under way


class StatusServer:
    """Serves the status page from a thread of its own; a context manager that starts and stops it.

    Args:
        view: what is shown; asked from threads of the server, several at once.
        settings: see `StatusSettings`.

    Attributes:
        url: the page's address since the last start; empty before.

    Raises:
        UsageError: the token cannot be read or is too short.
        MissingComponentError: the HTTP libraries are not installed.
    """

    def __init__(self, view: View, settings: StatusSettings) -> None:
        self.settings = settings
        self.url = ""
        token = read_token(settings)
        try:
            self._uvicorn: Any = importlib.import_module("uvicorn")
            app = importlib.import_module("edge_lsla.status.app")
            connections = importlib.import_module("edge_lsla.status.connections")
        except ModuleNotFoundError as error:
            raise MissingComponentError(
                "the status page needs more libraries",
                f"Python has no module {error.name}",
                "pip install 'edge-lsla[service]'",
            ) from error
        self._config = self._uvicorn.Config(
            app.create_app(view, settings, token),
            loop="asyncio",
            http=connections.bounded(settings.max_connections, settings.request_timeout_seconds),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # it would write a line for every bad request, and fill the journal
            access_log=False,
            proxy_headers=False,  # a header must not choose the address that wrong tokens are counted for
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            h11_max_incomplete_event_size=16384,
        )
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen, and return the page's URL.

        Raises:
            EdgeLslaError: the address cannot be listened at.
        """
        if self._thread is not None:
            raise EdgeLslaError("the status server was started twice", None, "report this")
        listening = self._listen()
        if not self._config.loaded:
            self._config.load()
        self._server = self._uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._serve, args=(listening,), name="status server", daemon=True)
        port = listening.getsockname()[1]
        self._thread.start()
        address = f"[{self.settings.address}]" if ":" in self.settings.address else self.settings.address
        self.url = f"http://{address}:{port}/"
        return self.url

    def stop(self) -> None:
        """End the server within 2 s, whatever its clients or the view do; may be called twice."""
        if self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)
        self._thread = None

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._thread is not None and self._thread.is_alive()

    def __enter__(self) -> StatusServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listen(self) -> socket.socket:
        settings = self.settings
        family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
        # With the protocol named: asyncio sets TCP_NODELAY only then, without which each answer takes 40 ms longer.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((settings.address, settings.port))
            listening.listen(128)
        except OSError as error:
            listening.close()
            raise EdgeLslaError(
                "the status page cannot listen",
                f"{settings.address} port {settings.port} ({error.strerror or error})",
                "give another host or port, or end what listens there",
            ) from error
        return listening

    def _serve(self, listening: socket.socket) -> None:
        # No signal handlers: uvicorn sets them in the main thread only.
        with contextlib.closing(listening):
            self._server.run(sockets=[listening])
