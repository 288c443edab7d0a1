"""From the cameras' stages to the event store: a queue that drops nothing, and the thread that empties it."""

from __future__ import annotations

import io
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import EdgeLslaError
from edge_lsla.events import Effort, Event, Gap
from edge_lsla.service.stages import Pulse

log = logging.getLogger(__name__)
COMMIT_EVENTS = 64  # most events of one commit
CROPS_HELD = 200  # 60 MB at the largest
POLL_SECONDS = 0.2
RETRY_SECONDS = 2.0


class Records(Protocol):
    """What is written to: `edge_lsla.records.store.Store`."""

    def record_many(self, events: Sequence[tuple[Event, bytes | None]], /) -> None: ...

    def add_effort(self, effort: Effort, /) -> None: ...

    def add_gap(self, gap: Gap, /) -> None: ...


@dataclass(frozen=True, eq=False)
class Recorded:
    """An event on its way into the store.

    Attributes:
        event: what happened.
        crop: uint8 [h, w, 3], or None.
        captured: when its frame was captured, seconds of the monotonic clock; None where no frame is concerned.
        inference: seconds that the engine took for the frame.
    """

    event: Event
    crop: NDArray[np.uint8] | None = None
    captured: float | None = None
    inference: float = 0.0


Item = Recorded | Effort | Gap


class Recording:
    """Writes what is put to the store, in order; on a full disk it keeps everything in memory and tries again.

    Args:
        store: where to.
        quality: of the crops' JPEG, 1 to 95.
        recorded: called after each commit that had events.

    Attributes:
        overheads: of the last 2000 events from frames, milliseconds from capture to commit less inference.
        problem: why nothing can be written just now, a sentence; "" otherwise.
        events: how many were committed.
    """

    def __init__(self, store: Records, quality: int, recorded: Callable[[], None]) -> None:
        self._store, self._quality, self._recorded = store, quality, recorded
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._held: list[Item] = []  # taken from the queue, not yet written; outlives a restart of the stage
        self.overheads: deque[float] = deque(maxlen=2000)
        self.problem = ""
        self.events = 0

    def put(self, item: Item) -> None:
        """Queue an item; never blocks, never drops. While many wait for the disk, crops are left out."""
        if isinstance(item, Recorded) and item.crop is not None and self.waiting >= CROPS_HELD:
            details = {**item.event.details, "crop": None, "crop_missing": "too many events waited for the disk"}
            item = replace(item, event=replace(item.event, details=details), crop=None)
        self._queue.put(item)

    @property
    def waiting(self) -> int:
        """Items that are not yet written."""
        return self._queue.qsize() + len(self._held)

    def work(self, pulse: Pulse) -> None:
        """Write until the stage should end."""
        to_jpeg(np.zeros((8, 8, 3), np.uint8), self._quality)  # loads what the first event should not wait for
        while not pulse.stopping:
            pulse.beat()
            if self._fill(POLL_SECONDS) and not self._write():
                pulse.wait(RETRY_SECONDS)

    def flush(self, seconds: float) -> int:
        """Write what is left, at the service's end; return how many items could not be written within the time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._fill(0) and self._write():
            pass
        return self.waiting

    def _fill(self, timeout: float) -> bool:
        """Take what is queued, up to one commit; return whether there is anything to write."""
        try:
            if not self._held:
                self._held.append(self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait())
            while len(self._held) < COMMIT_EVENTS:
                self._held.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return bool(self._held)

    def _write(self) -> bool:
        """Write what is held; on failure the rest stays held and `problem` says why."""
        try:
            for item in [i for i in self._held if not isinstance(i, Recorded)]:
                self._store.add_gap(item) if isinstance(item, Gap) else self._store.add_effort(item)
                self._held.remove(item)
            events = [item for item in self._held if isinstance(item, Recorded)]
            if events:
                self._store.record_many([(item.event, to_jpeg(item.crop, self._quality)) for item in events])
        except EdgeLslaError as error:
            if not self.problem:
                log.error("events cannot be recorded, they are kept in memory: %s", error)
            self.problem = f"events cannot be recorded, {self.waiting} are kept in memory: {error}"
            return False
        if self.problem:
            log.warning("events are recorded again")
        self.problem = ""
        self._held.clear()
        if events:
            self._measure(events)
            self._recorded()
        return True

    def _measure(self, events: Sequence[Recorded]) -> None:
        now = time.monotonic()
        self.events += len(events)
        self.overheads += [(now - e.captured - e.inference) * 1000 for e in events if e.captured is not None]


def to_jpeg(pixels: NDArray[np.uint8] | None, quality: int) -> bytes | None:
    """Encode a picture uint8 [h, w, 3]; None stays None."""
    if pixels is None:
        return None
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()
