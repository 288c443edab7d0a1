"""What the status page asks of the running service, and asking it without waiting for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from edge_lsla.errors import EdgeLslaError

T = TypeVar("T")
MOST_QUESTIONS = 8  # at once
TURN_SECONDS = 0.02
LOG_EVERY_SECONDS = 60.0
log = logging.getLogger(__name__)


class View(Protocol):
    """The running service, as the status page sees it; asked from several threads at once.

    Attributes:
        device: its name, which also whoever has not yet signed in is shown; "" for none.
    """

    device: str

    def health(self) -> dict[str, Any]:
        """Return how the service is: the keys that `metrics.py` and `page/health.js` read, JSON-ready."""

    def cameras(self) -> list[str]:
        """Return the configured names of the cameras, in their order."""

    def picture(self, camera: str) -> bytes | None:
        """Return a camera's newest annotated frame as JPEG; None before the first."""

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest events, newest first, each as `Event.to_dict` gives it.

        With a key "crop", the event has a crop where that is true; without, an individual's arrival is asked for one.
        """

    def counts(self, hours: float) -> dict[str, Any]:
        """Return the individuals of the last hours.

        Keys: since and until (epoch), step_seconds, labels {label: [individuals in each step]}.
        """

    def crop(self, event_id: str) -> bytes | None:
        """Return an event's crop as JPEG; None where there is none. The id has 32 hexadecimal digits."""


class UnavailableError(EdgeLslaError):
    """The service could not answer just now."""


class Questions:
    """Questions to the view, each in a daemon thread of its own: a disk that hangs holds up no other and no stop."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._waiting = 0  # only the loop's thread changes it
        self._logged = -LOG_EVERY_SECONDS

    async def ask(self, question: Callable[..., T], *arguments: object) -> T:
        """Return the answer.

        Raises:
            UnavailableError: it raised, takes too long, or too many questions are waiting for as long.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while self._waiting >= MOST_QUESTIONS:  # a crowd waits its turn; only what hangs turns others away
            if loop.time() >= deadline:
                raise UnavailableError("the service is too busy to answer", None, "try again")
            await asyncio.sleep(TURN_SECONDS)
        answer: asyncio.Future[T] = loop.create_future()

        def settle(outcome: T | Exception) -> None:
            self._waiting -= 1
            if answer.done():
                return
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        def work() -> None:
            try:
                outcome: T | Exception = question(*arguments)
            except Exception as error:
                outcome = error
            with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
                loop.call_soon_threadsafe(settle, outcome)

        threading.Thread(target=work, name="status question", daemon=True).start()
        self._waiting += 1
        try:
            return await asyncio.wait_for(answer, self._timeout)
        except asyncio.TimeoutError:
            raise UnavailableError("the service did not answer in time", None, "try again") from None
        except EdgeLslaError as error:
            raise UnavailableError(str(error)) from error
        except Exception as error:
            self._log(error)
            raise UnavailableError("the service could not answer", type(error).__name__, "its log says more") from error

    def _log(self, error: Exception) -> None:
        """Log what nobody foresaw, at most once a minute: the page asks again and again."""
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY_SECONDS:
            self._logged = now
            log.error("the status page got no answer: %s", error, exc_info=error)
