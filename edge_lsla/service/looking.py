"""A camera's stage: its frames to regions, through the engine, to tracks, to events."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_lsla.errors import SourceError
from edge_lsla.events import STOPPED, Box, Effort, Event, Gap
from edge_lsla.service.recording import Item, Recorded
from edge_lsla.service.shared_engine import EngineError, SharedEngine, Ticket
from edge_lsla.service.stages import Pulse

if TYPE_CHECKING:
    from edge_lsla.pipeline.finding import Finding, Found
    from edge_lsla.pipeline.frames import Frame
    from edge_lsla.pipeline.individuals import Track
    from edge_lsla.pipeline.supervision import SupervisedCamera

log = logging.getLogger(__name__)
# A frame for each of the engine's two workers and one behind them; with "motion", where to look next follows from what
# was found.
IN_FLIGHT = {"full": 3, "grid": 3, "motion": 1}
POLL_SECONDS = 0.1
ENGINE_SECONDS = 15.0  # the longest that a frame waits for the engine
RETRY_SECONDS = 60  # until a camera that is lost for good is begun anew
RATE_WINDOW = 60  # frames over which the frame rate is taken
LATENCY_WINDOW = 2000


@dataclass(frozen=True, eq=False)
class Seen:
    """The newest frame that was looked at, and what was found in it."""

    frame: Frame
    found: Found


@dataclass
class _InFlight:
    frame: Frame
    boxes: Sequence[Box]
    ticket: Ticket


class Looking:
    """Takes one camera's frames, newest first, and puts events into the queue of records.

    Attributes:
        seen: the newest frame looked at; None before the first.
        latencies: from capture to tracks, milliseconds, of the last 2000 frames.
        overheads: the same less the time in the engine.
        frames, failed: frames looked at; frames left out because the engine failed.
        camera: where frames come from; another one after it was lost for good.
        lost: why nothing brings the camera back, or the recording cannot be read; "" while it can.
        ended: whether the source is at its end (a recording), and everything of it is recorded.
    """

    def __init__(
        self,
        make_camera: Callable[[], SupervisedCamera],
        finding: Finding,
        engine: SharedEngine,
        put: Callable[[Item], None],
        clock: Callable[[], str],
        recording: bool = False,
    ) -> None:
        """Make the stage.

        Args:
            make_camera: makes the camera; the caller starts and stops it.
            finding: of this camera alone.
            engine: shared.
            put: the queue of records.
            clock: the state of the clock: one of `edge_lsla.events.CLOCKS`.
            recording: whether the source is one, which is not begun anew.
        """
        self._make_camera, self._finding, self._engine, self._put, self._clock = (
            make_camera,
            finding,
            engine,
            put,
            clock,
        )
        self._recording = recording
        self.camera = make_camera()
        self._pace: float | None = None
        self._gaps_before = 0
        self.lost = ""
        self._digest = ""
        self._lock = threading.Lock()
        self._ends: deque[float] = deque(maxlen=RATE_WINDOW)
        self._effort_began = (time.time(), time.monotonic(), 0, 0)
        self._watched = 0.0
        self._first_frame: float | None = None
        self._last_frame: float | None = None
        self._pending: deque[_InFlight] = deque()
        self.latencies: deque[float] = deque(maxlen=LATENCY_WINDOW)
        self.overheads: deque[float] = deque(maxlen=LATENCY_WINDOW)
        self.seen: Seen | None = None
        self.frames = self.failed = 0
        self.ended = False

    @property
    def fps(self) -> float:
        """Frames a second that are looked at, over the last 60; 0 when none came for five seconds."""
        ends = list(self._ends)
        if len(ends) < 2 or time.monotonic() - ends[-1] > 5:
            return 0.0
        return (len(ends) - 1) / max(ends[-1] - ends[0], 1e-6)

    @property
    def fps_over_all(self) -> float:
        """Frames a second between the first and the last that were looked at."""
        if self._first_frame is None or self._last_frame is None or self.frames < 2:
            return 0.0
        return (self.frames - 1) / max(self._last_frame - self._first_frame, 1e-6)

    def work(self, pulse: Pulse) -> None:
        """Look at frames until the stage should end or the source is at its end.

        A camera that is lost for good is begun anew after a minute, beside the others; a recording is not.
        """
        while not pulse.stopping and not self.ended:
            try:
                self._look(pulse)
            except SourceError as error:
                self.lost = str(error)
                log.error("camera %s: %s", self._finding.source, error)
                self.end()
                if self._recording:
                    self.ended = True
                elif not self._rest(pulse):
                    self._begin_anew()

    @property
    def gaps(self) -> int:
        """How often the camera was lost."""
        return self._gaps_before + self.camera.state.gaps

    def pace(self, rate: float | None) -> None:
        """Ask for at most so many frames a second; see `SupervisedCamera.pace`."""
        self._pace = rate
        self.camera.pace(rate)

    def _rest(self, pulse: Pulse) -> bool:
        """Wait until it is time to begin anew, which is a gap; return whether the stage should end."""
        began, steady = time.time(), time.monotonic()
        ending = any(pulse.wait(1.0) for _ in range(RETRY_SECONDS))
        seconds = time.monotonic() - steady
        self._put(Gap(self._finding.source, began, began + seconds, self.lost, (STOPPED,), seconds))
        return ending

    def _begin_anew(self) -> None:
        self._gaps_before = self.gaps
        self.camera.stop()
        self.camera = self._make_camera()
        self.camera.pace(self._pace)
        self.camera.start()
        self.lost = ""

    def _look(self, pulse: Pulse) -> None:
        self._pending.clear()  # of a stage that failed
        while not pulse.stopping:
            pulse.beat()
            answered = bool(self._pending) and self._pending[0].ticket.done
            try:
                # A frame that is there goes to the engine first, so that it has work meanwhile.
                frame = self.camera.take(0.0 if answered else POLL_SECONDS) if self._room else None
            except StopIteration:
                while self._pending:
                    self._finish(pulse)
                self.end()
                self.ended = True
                return
            except SourceError:
                while self._pending:  # these frames were good
                    self._finish(pulse)
                raise
            if frame is not None:
                self._begin(frame)
            elif self._pending and (answered or not self._room):
                self._finish(pulse)
        self.end()

    def end(self) -> None:
        """Say of every individual that is still there that it left: nobody watches it any more."""
        with self._lock:
            for track in self._finding.finish():
                self._put(Recorded(self._event("left", track)))

    def effort(self) -> Effort | None:
        """Return how long and how much was watched since the last call; None where it was not watched at all."""
        wall, steady, frames, dropped = self._effort_began
        with self._lock:
            seconds, self._watched = self._watched, 0.0
        now = (time.time(), time.monotonic(), self.frames, self.camera.state.dropped)
        self._effort_began = now
        if now[2] == frames:
            return None
        elapsed = now[1] - steady
        # A clock that jumped within the span would make it negative or days long: it is told by the steady clock.
        began = wall if abs(now[0] - wall - elapsed) < 2 else now[0] - elapsed
        return Effort(
            self._finding.source,
            began,
            now[0],
            min(seconds, elapsed),
            now[2] - frames,
            max(0, now[3] - dropped),
            self._digest,
            self._clock(),
        )

    @property
    def _room(self) -> bool:
        return len(self._pending) < IN_FLIGHT[self._finding.settings.regions]

    def _begin(self, frame: Frame) -> None:
        boxes = self._finding.regions(frame)
        ticket = self._engine.submit(self._finding.crops(frame, boxes), self.camera.wake)
        self._pending.append(_InFlight(frame, boxes, ticket))

    def _finish(self, pulse: Pulse) -> None:
        one = self._pending.popleft()
        try:
            predictions = one.ticket.result(pulse, ENGINE_SECONDS)
        except EngineError as error:
            if pulse.stopping:
                return
            self.failed += 1
            log.warning("camera %s: %s", self._finding.source, error)
            return
        self._digest = one.ticket.digest or self._digest
        with self._lock:
            found = self._finding.conclude(one.frame, one.boxes, predictions)
            for kind, tracks in (("arrived", found.arrived), ("left", found.left)):
                for track in tracks:
                    event = self._event(kind, track)
                    crop = track.crop if kind == "arrived" else None
                    self._put(Recorded(event, crop, one.frame.captured, one.ticket.seconds))
            now = time.monotonic()
            if self._last_frame is not None:
                # Longer than this between two frames is a gap, or a pause of the governor: not watched.
                self._watched += min(now - self._last_frame, 5.0)
            self._last_frame = now
            self._first_frame = now if self._first_frame is None else self._first_frame
            self._ends.append(now)
            self.latencies.append((now - one.frame.captured) * 1000)
            self.overheads.append((now - one.frame.captured - one.ticket.seconds) * 1000)
            self.frames += 1
            self.seen = Seen(one.frame, found)
        self._finding.learn(one.frame)

    def _event(self, kind: str, track: Track) -> Event:
        details: dict[str, object] = {}
        if kind == "left":
            details |= {"seconds": round(track.seconds, 3), "frames": track.frames, "ending": track.ending}
        return Event(
            kind=kind,
            time=track.first if kind == "arrived" else track.last,
            source=self._finding.source,
            track=track.id,
            label=track.label,
            confidence=track.confidence,
            box=track.box,
            engine=self._digest,
            clock=self._clock(),
            details=details,
        )
