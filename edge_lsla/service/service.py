"""The unattended service: cameras, one engine, the store, delivery, the status page, and the watch over all of them."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import EdgeLslaError
from edge_lsla.events import Event
from edge_lsla.service.config import Config
from edge_lsla.service.health import Health
from edge_lsla.service.housekeeping import Housekeeping
from edge_lsla.service.notify import Notifier
from edge_lsla.service.parts import Eye, Parts, forget_sinks, opened_parts, stop_all, threshold
from edge_lsla.service.recording import Recorded
from edge_lsla.service.shared_engine import EngineWorker
from edge_lsla.service.stages import Pulse, StageError, Stages
from edge_lsla.slots.switching import Outcome
from edge_lsla.status.server import StatusServer

log = logging.getLogger(__name__)
CHECK_SECONDS = 0.25
FLUSH_SECONDS = 1.0
PAGE_SECONDS = 10  # between looks whether the status page is up
STATUS_SECONDS = 10.0
ENGINE_WORKERS = 2


@dataclass(frozen=True)
class Summary:
    """How a run went.

    Attributes:
        seconds: how long it took.
        frames, events: looked at; recorded.
        gaps: how often a camera was lost.
        restarts: of stages.
        unrecorded: items that could not be written before the end.
        ended: "stopped", "end of file" or "limit".
    """

    seconds: float
    frames: int
    events: int
    gaps: int
    restarts: int
    unrecorded: int
    ended: str


class Service:
    """Runs a configuration; see `run`.

    Args:
        config: see `Config`.
        first_bundle: becomes the active model where none is installed yet.
        say: told once what watches, and where the status page is.

    Attributes:
        health: of the running service; None before it runs.
    """

    def __init__(self, config: Config, first_bundle: Path | None, say: Callable[[str], None]) -> None:
        self._config, self._first_bundle, self._say = config, first_bundle, say
        self._outcomes: list[Outcome] = []
        self._notifier = Notifier()
        self._told = float("-inf")
        self._opened: Parts | None = None
        self.health: Health | None = None

    @property
    def parts(self) -> Parts:
        """What runs, or has run."""
        if self._opened is None:
            raise ValueError("the service was not run")
        return self._opened

    def run(self, stop: threading.Event, max_seconds: float | None = None) -> Summary:
        """Watch until `stop` is set, every recording is at its end, or the time is over.

        Raises:
            StageError: stages failed so often that the process should be started anew.
            EdgeLslaError: something cannot be opened.
        """
        begin = time.monotonic()
        with contextlib.ExitStack() as stack:
            parts = stack.enter_context(opened_parts(self._config, self._first_bundle, self._on_outcome))
            self._opened = parts
            for outcome in self._outcomes:  # those of opening
                self._record_outcome(parts, outcome)
            stages = Stages(self._config.stages)
            self.health = health = Health(self._config, parts, stages)
            try:
                self._start(parts, stages, health, stack)
                gc.freeze()  # what is here stays: looking through it again and again would hold frames up
                stack.callback(gc.unfreeze)
                ended = self._watch(parts, stages, stop, begin, max_seconds)
            finally:
                self._notifier.stopping()
                unrecorded = self._end(parts, stages)
        return Summary(
            time.monotonic() - begin,
            sum(eye.looking.frames for eye in parts.eyes),
            parts.recording.events,
            sum(eye.looking.gaps for eye in parts.eyes),
            stages.restarts,
            unrecorded,
            ended,
        )

    def _start(self, parts: Parts, stages: Stages, health: Health, stack: contextlib.ExitStack) -> None:
        for gone in forget_sinks(parts.store, [forwarder.state.name for forwarder in parts.forwarders]):
            log.warning("nothing is kept for %s any more: it is not configured", gone)
        for warning in parts.warnings:
            log.warning("%s", warning)
        stages.start("records", parts.recording.work)
        for number in range(1, ENGINE_WORKERS + 1):
            stages.start(f"engine {number}", EngineWorker(parts.engine).work)
        if parts.sampling.takers:
            stages.start("samples", parts.sampling.work)
        for eye in parts.eyes:
            eye.camera.start()
            stages.start(f"watch {eye.name}", eye.looking.work)
        for forwarder in parts.forwarders:
            forwarder.start()
        if self._config.status.enabled:
            page = StatusPage(StatusServer(health, self._config.status), self._say, health)
            stack.callback(page.server.stop)
            stages.start("status page", page.work)
        housekeeping = Housekeeping(self._config, parts, health)
        stack.callback(housekeeping.close)
        stages.start("housekeeping", housekeeping.work)
        parts.model.start()
        facts = health.health()["model"]
        names = ", ".join(eye.name for eye in parts.eyes)
        self._say(f"{facts['name']}, {facts['precision']} on {facts['backend']}, watches {names}")

    def _watch(
        self, parts: Parts, stages: Stages, stop: threading.Event, begin: float, max_seconds: float | None
    ) -> str:
        self._notifier.ready()
        progress = _Progress(parts.eyes)
        while not stop.wait(CHECK_SECONDS):
            stages.check()
            if progress.made():
                self._notifier.progress()
            self._tell_status(parts)
            if all(eye.looking.lost for eye in parts.eyes):
                first = parts.eyes[0]
                raise StageError("every camera is lost", first.name, first.looking.lost)
            if all(eye.looking.ended for eye in parts.eyes):
                return "end of file"
            if max_seconds is not None and time.monotonic() - begin >= max_seconds:
                return "limit"
        return "stopped"

    def _tell_status(self, parts: Parts) -> None:
        now = time.monotonic()
        if now - self._told >= STATUS_SECONDS:
            self._told = now
            watching = sum(eye.camera.state.watching for eye in parts.eyes)
            frames, events = sum(eye.looking.frames for eye in parts.eyes), parts.recording.events
            self._notifier.status(f"{watching} of {len(parts.eyes)} cameras watch, {frames} frames, {events} events")

    def _end(self, parts: Parts, stages: Stages) -> int:
        """Stop everything, the record of the last events at the end; return how many items are lost."""
        cameras = [(f"camera {eye.name}", eye.camera.stop) for eye in parts.eyes]
        forwarders = [(f"delivery {one.state.name}", one.stop) for one in parts.forwarders]
        late = stop_all([("stages", stages.stop), *cameras, *forwarders], self._config.stages.stop_seconds)
        for eye in parts.eyes:
            if (effort := eye.looking.effort()) is not None:
                parts.recording.put(effort)
        lost = parts.recording.flush(FLUSH_SECONDS)
        if late:
            log.warning("not ended in time: %s", ", ".join(late))
        if lost:
            log.error("%d records could not be written and are lost: %s", lost, parts.recording.problem)
        return lost

    def _on_outcome(self, outcome: Outcome) -> None:
        if self._opened is None:
            self._outcomes.append(outcome)
        else:
            self._record_outcome(self._opened, outcome)

    def _record_outcome(self, parts: Parts, outcome: Outcome) -> None:
        level = logging.INFO if outcome.what in ("switched", "promoted") else logging.WARNING
        log.log(level, "model %s: %s: %s", outcome.held.title, outcome.what, outcome.reason)
        for eye, camera in zip(parts.eyes, self._config.cameras):
            if camera.finding.min_confidence is None:  # each model has its own
                eye.finding.min_confidence = threshold(parts.model)
        details = {"what": outcome.what, "name": outcome.held.name, "slot": outcome.held.slot, "why": outcome.reason}
        details |= {"bundle": outcome.held.digest, "precision": outcome.held.precision}
        details |= {"file_sha256": outcome.held.file_sha256, "artifact_sha256": outcome.held.artifact_sha256}
        parts.recording.put(Recorded(Event(kind="model", time=time.time(), clock=parts.clock_state, details=details)))


class StatusPage:
    """Keeps the status page up; a port that is taken is a problem, and no reason to watch nothing."""

    def __init__(self, server: StatusServer, say: Callable[[str], None], health: Health) -> None:
        self.server, self._say, self._health = server, say, health

    def work(self, pulse: Pulse) -> None:
        """Start it, and again when it has ended, until the stage should end."""
        while not pulse.stopping:
            if not self.server.running:
                self._try()
            for _ in range(PAGE_SECONDS):
                if pulse.wait(1.0):
                    break

    def _try(self) -> None:
        try:
            self.server.stop()
            self._say(f"status page: {self.server.start()}")
            self._health.page_problem = ""
        except EdgeLslaError as error:
            if str(error) != self._health.page_problem:
                log.error("%s", error)
            self._health.page_problem = str(error)


class _Progress:
    """Tells whether the service really works, for the watchdog: a timer would feed it from a dead service too."""

    def __init__(self, eyes: list[Eye]) -> None:
        self._eyes = eyes
        self._before = {eye.name: (0, 0) for eye in eyes}

    def made(self) -> bool:
        """Whether of each camera frames were looked at since this last was so, or none came."""
        now = {}
        for eye in self._eyes:
            state = eye.camera.state
            now[eye.name] = (state.frames + state.dropped, eye.looking.frames)
        if any(
            came > self._before[name][0] and looked == self._before[name][1] for name, (came, looked) in now.items()
        ):
            return False
        self._before = now
        return True
