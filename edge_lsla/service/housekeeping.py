"""What the service does every few seconds or minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge_lsla.errors import EdgeLslaError
from edge_lsla.governor.governor import Governor
from edge_lsla.service.clock import memory_mb
from edge_lsla.service.config import Config
from edge_lsla.service.health import Health
from edge_lsla.service.parts import Parts
from edge_lsla.service.stages import Pulse

log = logging.getLogger(__name__)
POLL_SECONDS = 0.25
CLOCK_SECONDS = 5.0
GOVERN_SECONDS = 1.0
EFFORT_SECONDS = 60.0  # what a power cut may lose of the record of watching
RETAIN_SECONDS = 300.0


class Housekeeping:
    """What is due every few seconds or minutes: the clock, the governor, effort, retention."""

    def __init__(self, config: Config, parts: Parts, health: Health) -> None:
        self._parts, self._health = parts, health
        self._governor = Governor(config.governor, tell=log.warning)
        self._tasks: list[tuple[float, Callable[[], None]]] = [
            (CLOCK_SECONDS, self._look_at_clock),
            (GOVERN_SECONDS, self._govern),
            (EFFORT_SECONDS, self._note_effort),
            (RETAIN_SECONDS, self._retain),
        ]

    def work(self, pulse: Pulse) -> None:
        """Do what is due until the stage should end."""
        due = [time.monotonic()] * 2 + [time.monotonic() + seconds for seconds, _ in self._tasks[2:]]
        while not pulse.wait(POLL_SECONDS):
            for number, (seconds, task) in enumerate(self._tasks):
                if time.monotonic() >= due[number]:
                    due[number] = time.monotonic() + seconds
                    task()
                    pulse.beat()
            self._health.memory_mb = memory_mb()

    def _look_at_clock(self) -> None:
        parts = self._parts
        jumps = parts.clock.jumps
        parts.clock_state = parts.clock.look()
        if parts.clock.jumps > jumps:
            log.warning("the clock jumped by %+.0f s", parts.clock.jump_seconds)

    def _govern(self) -> None:
        pace = self._governor.decide(time.time())
        self._health.temperature_c = self._governor.readings.temperature_c
        if pace != self._health.pace:
            log.info("pace: %s", pace.reason or "as fast as frames come")
            for eye in self._parts.eyes:
                eye.looking.pace(pace.rate)
        self._health.pace = pace

    def close(self) -> None:
        """Give back the governor's sensors."""
        self._governor.close()

    def _note_effort(self) -> None:
        for eye in self._parts.eyes:
            if (effort := eye.looking.effort()) is not None:
                self._parts.recording.put(effort)

    def _retain(self) -> None:
        try:
            self._parts.store.retain()
        except EdgeLslaError as error:  # the store says it in its state too
            log.error("%s", error)
