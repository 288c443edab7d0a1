"""A camera that is brought back whenever it is lost, and says when it did not watch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_lsla.errors import InputError, UsageError
from edge_lsla.events import PAUSED, STOPPED, Gap
from edge_lsla.pipeline.address import names_recording
from edge_lsla.pipeline.arrivals import Arrivals, Arrived
from edge_lsla.pipeline.capture_link import CaptureLink
from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.gaps import Gaps
from edge_lsla.pipeline.recovery import REOPEN, RESET, RESTART, CameraLost, Recovery, SupervisionSettings, run_resets
from edge_lsla.pipeline.settings import SourceSettings, plain_settings

__all__ = ["CameraLost", "CameraState", "SupervisedCamera", "SupervisionSettings"]

START_SECONDS = 15.0  # for a process's cold start from a slow card, before its first word is awaited
POLL_SECONDS = 0.1  # how late a stop or a pace is seen
JOIN_SECONDS = 1.9
END_OF_FILE = "end of file"


@dataclass(frozen=True)
class CameraState:
    """How a camera does.

    Attributes:
        name: the camera's configured name.
        watching: whether frames come.
        since: seconds since the epoch, since when `watching` has been as it is.
        attempts: tries to bring it back since it was last well.
        step: what is tried: "reopen", "new process", "reset" or "restart"; None while nothing has to be.
        frames: frames that were taken.
        dropped: frames that came and were not taken, because a newer one did.
        fps: frames a second that come, those left out for the pace not counted.
        last_error: what was last wrong; None where nothing ever was.
        ended: "end of file" after a recording's last frame was read, "stopped" after `stop`; None before.
        paused: whether the pace is 0.
        gaps: how often it was lost.
        process: the capture process, while there is one.
    """

    name: str
    watching: bool = False
    since: float = 0.0
    attempts: int = 0
    step: str | None = None
    frames: int = 0
    dropped: int = 0
    fps: float = 0.0
    last_error: str | None = None
    ended: str | None = None
    paused: bool = False
    gaps: int = 0
    process: int | None = None


class SupervisedCamera:
    """Frames of a source that is read in a process of its own, so that no driver or decoder harms anything else.

    Of a live source there is one frame to take, the newest; older ones are dropped and counted. Of a recording every
    frame is given, and its end or damage is final: only a capture process that dies is replaced, and the new one goes
    on behind the last frame.

    Args:
        name: under which gaps and frames are recorded.
        source: see `open_source`; or what returns it, asked anew at each try. Where that raises an `InputError`, the
            camera is lost, and nothing is done but to ask again.
        opening: see `SourceSettings`.
        settings: see `SupervisionSettings`.
        on_gap: called in the camera's thread when a gap begins, with `seconds` 0; every ten seconds while it lasts; and
            when it ends; `ended` is None before. What it raises ends the camera, and comes out of `take`.
    """

    def __init__(
        self,
        name: str,
        source: str | Callable[[], str],
        opening: SourceSettings,
        settings: SupervisionSettings,
        on_gap: Callable[[Gap], None],
    ) -> None:
        self._name, self._source, self._opening, self._settings = name, source, opening, settings
        self._arrivals = Arrivals(name)
        self._gaps = Gaps(name, on_gap)
        self._recovery = Recovery(settings)
        self._recording = isinstance(source, str) and names_recording(source)  # else known once it is open
        self._stopping = threading.Event()
        self._wanted: float | None = None  # the pace; `_pace` is what the capture process was told
        self._pace: float | None = None
        # Written by the camera's thread alone.
        self._link: CaptureLink | None = None
        self._step: str | None = None
        self._due: float | None = None  # when the step is to be taken
        self._last_error: str | None = None
        self._well_since = 0.0
        self._heard = self._moved = 0.0  # when the process last spoke, and last read a frame
        self._patience = 0.0  # seconds without a frame
        self._read = 0
        self._base = self._next = 0  # sequence numbers
        self._thread = threading.Thread(target=self._run, name=f"camera {name}", daemon=True)

    def start(self) -> None:
        """Begin to watch; a source that cannot be opened is a gap."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch and the capture process, within two seconds; a gap that is open ends with it."""
        self._stopping.set()
        self._arrivals.end(STOPPED)
        if self._thread.ident is not None:
            self._thread.join(JOIN_SECONDS)

    def pace(self, rate: float | None) -> None:
        """Ask for at most so many frames a second; None takes all, and 0 closes the source until another pace.

        Raises:
            UsageError: a negative rate.
        """
        if rate is not None and not 0 <= rate <= 10_000:
            raise UsageError("a frame rate is 0 to 10000 a second", rate, "report this")
        self._wanted = rate

    def wake(self) -> None:
        """Let `take` return, now or when it is called next, also without a frame; from any thread."""
        self._arrivals.wake()

    def take(self, timeout: float) -> Frame | None:
        """Return the newest frame (of a recording, the next one).

        None where none came within `timeout` seconds, or `wake` was called.

        Raises:
            StopIteration: the source is at its end, or the camera was stopped.
            CameraLost: everything was tried to bring the camera back; or the recording cannot be read.
        """
        return self._arrivals.take(timeout)

    @property
    def state(self) -> CameraState:
        """How the camera does just now."""
        link, arrivals = self._link, self._arrivals
        return CameraState(
            self._name,
            arrivals.watching and self._pace != 0,  # frames of a recording may still be on their way
            arrivals.since,
            self._recovery.attempts,
            self._step,
            arrivals.taken,
            arrivals.dropped,
            arrivals.fps,
            self._last_error,
            arrivals.ended,
            self._wanted == 0,
            self._gaps.count,
            None if link is None else link.pid,
        )

    def _run(self) -> None:
        try:
            try:
                self._gaps.seen(time.monotonic())
                self._try()
                while not self._stopping.is_set() and self._arrivals.ended is None:
                    self._follow_pace()
                    self._listen()
                    if self._pace != 0:
                        self._look_after()
                        self._gaps.lasts(time.monotonic())
            finally:
                self._let_go(gently=True)
                self._gaps.end(time.monotonic(), STOPPED)
        except BaseException as error:  # whoever takes frames must learn of it
            self._arrivals.fail(error)

    def _follow_pace(self) -> None:
        before, self._pace = self._pace, self._wanted
        if self._pace == before:
            return
        if self._pace == 0:
            self._due = self._step = None
            self._gaps.end(time.monotonic(), PAUSED)
            self._arrivals.interrupted(forget=not self._recording)
            if self._link is not None:
                self._link.tell("close")
        elif before == 0:
            self._gaps.seen(time.monotonic())
            self._try()
        elif self._link is not None:
            self._link.tell("pace", rate=self._pace)

    def _listen(self) -> None:
        """Wait a moment for what the capture process says, and act on it."""
        link = self._link
        if link is None:
            self._stopping.wait(POLL_SECONDS)
            return
        try:
            said = link.hear(POLL_SECONDS)
        except EOFError:
            self._let_go(gently=False)
            if self._pace != 0 and self._due is None:
                self._lost(link.last_words(), process_usable=False)
            return
        if said is None:
            return
        self._heard = time.monotonic()
        if said["say"] == "frame":
            self._arrive(Arrived(link, said, self._base + said["sequence"]))
        elif said["say"] == "alive" and (said["read"] != self._read or said["full"]):
            self._read, self._moved = said["read"], self._heard
        elif said["say"] == "opened":
            self._recording = not said["live"]
            self._base = 0 if self._recording else self._next
        elif said["say"] == "ended":
            self._arrivals.end(END_OF_FILE)
        elif said["say"] == "lost" and self._pace != 0:
            self._lost(said["reason"], process_usable=True)

    def _arrive(self, one: Arrived) -> None:
        captured = one.said["captured"]
        if one.sequence < self._next or (self._pace == 0 and not self._recording):
            one.give_back()  # it came before a pause, and again after it; or a pause has just begun
            return
        self._next = one.sequence + 1
        self._moved, self._patience, self._step = self._heard, self._settings.stall_seconds, None
        if not self._arrivals.watching:
            self._well_since = captured
        if self._recovery.attempts and captured - self._well_since >= self._settings.settled_seconds:
            self._recovery.settled()
        self._arrivals.put(one, live=not self._recording)
        self._gaps.seen(captured)

    def _look_after(self) -> None:
        """Take the step that is due, or notice that nothing comes."""
        now = time.monotonic()
        if self._due is not None:
            if now >= self._due:
                self._try()
        elif now - self._heard > self._settings.heartbeat_seconds:
            self._lost("the capture process hangs", process_usable=False)
        elif now - self._moved > self._patience:
            self._lost(f"no frame for {now - self._moved:.0f} s", process_usable=False)

    def _lost(self, reason: str, process_usable: bool) -> None:
        self._last_error = reason
        self._arrivals.interrupted()
        if process_usable and self._recording:
            raise CameraLost("the recording cannot be read", self._name, reason)
        self._gaps.begin(reason)
        step = self._recovery.failed(process_usable)
        self._step = step.name
        if step.name != REOPEN:
            self._let_go(gently=process_usable)
        if step.name == RESTART:
            self._gaps.tried(RESTART)
            raise CameraLost("the camera is lost, and nothing brings it back", self._name, reason)
        self._due = time.monotonic() + step.pause

    def _try(self) -> None:
        """Open the source, by the step that is due or for the first time."""
        self._due = None
        try:
            source = self._source if isinstance(self._source, str) else self._source()
        except InputError as error:
            self._last_error = str(error)
            self._gaps.begin(self._last_error)
            self._due = time.monotonic() + self._settings.longest_pause_seconds
            return
        if self._step is not None:
            wrong = run_resets(self._settings, self._stopping) if self._step == RESET else []
            self._gaps.tried(f"{self._step} ({', '.join(wrong)})" if wrong else self._step)
        self._heard = self._moved = time.monotonic()
        if self._link is None:
            try:
                self._link = CaptureLink()
            except OSError as error:
                self._lost(f"the capture process cannot be started ({error.strerror})", process_usable=False)
                return
            self._heard += START_SECONDS
            self._moved += START_SECONDS
        self._patience = self._settings.stall_seconds + 2 * self._opening.open_timeout
        self._read = 0
        self._link.tell(
            "open",
            source=source,
            opening=plain_settings(self._opening),
            rate=self._pace or None,
            skip=self._next if self._recording else 0,
            frozen=self._settings.frozen_seconds,
            hidden=not isinstance(self._source, str),  # it comes from where secrets are kept
        )

    def _let_go(self, gently: bool) -> None:
        if self._link is not None:
            self._link.end(gently)
            self._link = None
