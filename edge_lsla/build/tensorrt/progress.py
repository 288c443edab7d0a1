"""How far a build is, as one number that only grows: from TensorRT's nested phases, or from the clock."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

TOTAL = 1000
# TensorRT spends most time in the phase that measures kernels; each entry is a phase that holds it, and the one
# inside. Without this a bar would run to 80 % in the first second and stand there. Names: RTX 1.7; should a
# version call them otherwise, the bar only stands lower until the end.
LONGEST_INSIDE = {
    "Building engine": "Building engine from subgraph",
    "Building engine from subgraph": "Computing profile costs",
    "Computing profile costs": "Timing tactics",
    "Timing tactics": "Timing graph nodes",
}
SHARE_OF_THE_LONGEST = 0.95
# TensorRT for RTX compiles everything in one step that tells nothing. Measured: 2.4 s for 1695 layers, 0.3 s for 299,
# one profile, two idle cores; each further profile compiles everything again.
SECONDS_A_LAYER = 0.0014
TICK_SECONDS = 0.25

Step = Callable[[int, int, str], None]


@dataclass
class _Phase:
    steps: int
    done: int = 0


class PhaseProgress:
    """Adds TensorRT's phases up; thread-safe, since its threads report.

    Args:
        step: called with (done, TOTAL, phase) when `done` has grown.
        expected_seconds: if given, phases are only named and the clock counts, nearing the end but never reaching it.
    """

    def __init__(self, step: Step, expected_seconds: float | None = None) -> None:
        self._step = step
        self._expected = expected_seconds
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._name = "starting"
        self._told = -1
        self._started = time.monotonic()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, of so many steps."""
        with self._lock:
            # A network of several subgraphs goes through the same phases again; what grew stays.
            self._phases[name] = _Phase(max(1, steps))
            self._tell(name)

    def advance(self, name: str, step: int) -> None:
        """A step of a phase, counted from 0, is done."""
        with self._lock:
            if name in self._phases:
                phase = self._phases[name]
                phase.done = min(phase.steps, max(phase.done, step + 1))
                self._tell(name)

    def finish(self, name: str) -> None:
        """A phase ends."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = self._phases[name].steps
                self._tell(name)

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """Let the clock count in the block, where `expected_seconds` was given."""
        over = threading.Event()

        def tick() -> None:
            while not over.wait(TICK_SECONDS):
                with self._lock:
                    self._tell(self._name)

        thread = threading.Thread(target=tick, daemon=True)
        self._started = time.monotonic()
        if self._expected is not None:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread.is_alive():
                thread.join()

    def _tell(self, name: str) -> None:
        self._name = name
        if self._expected is not None:
            part = 1 - math.exp(-(time.monotonic() - self._started) / self._expected)
        else:
            part = self._part(next(iter(self._phases)))  # the first phase holds all others
        done = int(TOTAL * part)
        if done > self._told:
            self._told = done
            self._step(done, TOTAL, name)

    def _part(self, name: str) -> float:
        phase = self._phases.get(name)
        if phase is None:
            return 0.0
        own = phase.done / phase.steps
        longest = LONGEST_INSIDE.get(name)
        if longest is None or own == 1:
            return own
        return (1 - SHARE_OF_THE_LONGEST) * own + SHARE_OF_THE_LONGEST * self._part(longest)


def make_monitor(trt: Any, progress: PhaseProgress) -> Any:
    """Return a trt.IProgressMonitor that feeds `progress`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base exists once TensorRT is loaded
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase or None, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.advance(phase_name, step)
            return True  # false would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
