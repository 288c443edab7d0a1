"""The service's threads: each restarted when it raises or hangs, so many times a minute, and then given up."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge_lsla.errors import EdgeLslaError, UsageError

log = logging.getLogger(__name__)
MINUTE = 60.0
HANGS, HANGS_SECONDS = 4, 600.0  # each leaves a thread behind


class StageError(EdgeLslaError):
    """A stage was restarted as often as is allowed and failed again: the process should be started anew."""


@dataclass(frozen=True)
class StageSettings:
    """How much a stage may fail.

    Attributes:
        restarts_per_minute: restarts of all stages together within a minute, above which the service ends with an
            error, for its supervisor (systemd) to start it anew.
        hang_seconds: a stage that shows no progress for so long counts as hung.
        stop_seconds: how long a stop waits for the stages.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    restarts_per_minute: int = 5
    hang_seconds: float = 30.0
    stop_seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.restarts_per_minute < 0:
            raise UsageError("restarts cannot be fewer than none", "restarts_per_minute", "correct it")
        for name in ("hang_seconds", "stop_seconds"):
            if not 0 < getattr(self, name) <= 3600:
                raise UsageError("a time is above 0 and at most 3600 seconds", name, "correct it")


class Pulse:
    """What a running stage has: a way to show progress, and to learn that it should end."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.last = time.monotonic()

    def beat(self) -> None:
        """Show progress."""
        self.last = time.monotonic()

    @property
    def stopping(self) -> bool:
        """Whether the stage should end: the service stops, or another thread took the stage over."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> bool:
        """Show progress and wait; return whether the stage should end."""
        self.beat()
        return self._stop.wait(seconds)

    def end(self) -> None:
        """Ask the stage to end."""
        self._stop.set()


Body = Callable[[Pulse], None]


class _Stage:
    def __init__(self, name: str, body: Body, ended: Callable[[_Stage, Pulse, BaseException | None], None]) -> None:
        self.name, self.body, self._ended = name, body, ended
        self.pulse = Pulse()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        self.pulse = pulse = Pulse()
        self.thread = threading.Thread(target=self._run, args=(pulse,), name=self.name, daemon=True)
        self.thread.start()

    def _run(self, pulse: Pulse) -> None:
        error: BaseException | None = None
        try:
            self.body(pulse)
        except BaseException as caught:  # whatever a stage raises, the service must learn of it
            error = caught
        self._ended(self, pulse, error)


class Stages:
    """Runs bodies in threads; `check`, called from the main loop, restarts those that raised or hang.

    A body that returns while the service runs has finished and is not started again. A hung one is left behind: its
    pulse says that it should end, and a new thread takes its place.

    Attributes:
        restarts: how many there were.
        problems: the last failure of each stage that failed within the last minute, a sentence each.
    """

    def __init__(self, settings: StageSettings) -> None:
        self._settings = settings
        self._stages: dict[str, _Stage] = {}
        self._lock = threading.Lock()
        self._failed: deque[tuple[_Stage, BaseException | None]] = deque()
        self._restarted: deque[float] = deque()
        self._hung: deque[float] = deque(maxlen=HANGS)
        self._finished: set[str] = set()
        self._problems: dict[str, tuple[float, str]] = {}
        self._stopping = False
        self.restarts = 0

    def start(self, name: str, body: Body) -> None:
        """Start a stage; names are unique."""
        if name in self._stages:
            raise ValueError(f"two stages are called {name}")
        stage = self._stages[name] = _Stage(name, body, self._on_end)
        stage.start()

    @property
    def finished(self) -> frozenset[str]:
        """Names of the stages that are over."""
        with self._lock:
            return frozenset(self._finished)

    @property
    def problems(self) -> tuple[str, ...]:
        """See the class."""
        recent = time.monotonic() - MINUTE
        with self._lock:
            return tuple(text for when, text in self._problems.values() if when > recent)

    def check(self) -> None:
        """Restart what failed.

        Raises:
            StageError: more restarts within a minute than are allowed, or stages hang again and again.
        """
        now = time.monotonic()
        for stage in self._stages.values():
            silent = now - stage.pulse.last
            if silent > self._settings.hang_seconds and stage.name not in self.finished and not stage.pulse.stopping:
                stage.pulse.end()
                self._hung.append(now)
                self._restart(stage, f"showed no progress for {silent:.0f} s")
                if len(self._hung) == HANGS and now - self._hung[0] < HANGS_SECONDS:
                    raise StageError(
                        f"stages hang again and again, {HANGS} times within {now - self._hung[0]:.0f} s",
                        stage.name,
                        "the service ends, so that it is started anew",
                    )
        while self._failed:
            stage, error = self._failed.popleft()
            log.error("stage %s failed", stage.name, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
            self._restart(stage, f"{type(error).__name__}: {error}")

    def stop(self) -> tuple[str, ...]:
        """Ask all stages to end, wait a bounded time, and return the names of those that did not."""
        self._stopping = True
        for stage in self._stages.values():
            stage.pulse.end()
        deadline = time.monotonic() + self._settings.stop_seconds
        for stage in self._stages.values():
            if stage.thread is not None:
                stage.thread.join(max(0.0, deadline - time.monotonic()))
        return tuple(s.name for s in self._stages.values() if s.thread is not None and s.thread.is_alive())

    def _on_end(self, stage: _Stage, pulse: Pulse, error: BaseException | None) -> None:
        if pulse is not stage.pulse or self._stopping:
            return  # another thread took over meanwhile
        with self._lock:
            if error is None:
                self._finished.add(stage.name)
            else:
                self._failed.append((stage, error))

    def _restart(self, stage: _Stage, why: str) -> None:
        now = time.monotonic()
        sentence = f"stage {stage.name} was restarted: {why}"
        log.warning("%s", sentence)
        with self._lock:
            self._problems[stage.name] = (now, sentence)
        while self._restarted and now - self._restarted[0] > MINUTE:
            self._restarted.popleft()
        self._restarted.append(now)
        self.restarts += 1
        if len(self._restarted) > self._settings.restarts_per_minute:
            raise StageError(
                f"stages failed {len(self._restarted)} times within a minute, last: {why}",
                stage.name,
                "the service ends, so that it is started anew",
            )
        stage.start()
