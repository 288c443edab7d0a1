"""What the field service records: events of individuals, gaps in watching, and the effort of watching."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_lsla.errors import UsageError

VERSION = 1  # of an event's JSON form
CLOCKS = ("synchronised", "unsynchronised", "jumped", "unknown")
STOPPED, PAUSED = UNWATCHED = ("stopped", "paused")  # last step of a gap whose camera was not back when watching ended


def new_id() -> str:
    """Return an identifier that no other event, track or device has: 32 hexadecimal digits."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Box:
    """A rectangle in a frame, pixels from its upper left corner; `right` and `bottom` lie just outside.

    Raises:
        UsageError: it is empty or starts outside the frame.
    """

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right and 0 <= self.top < self.bottom):
            raise UsageError("a box is empty or starts outside the frame", self.to_list(), "report this")

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    def to_list(self) -> list[int]:
        """Return [left, top, right, bottom]."""
        return [self.left, self.top, self.right, self.bottom]


@dataclass(frozen=True)
class Event:
    """One thing that happened, recorded once and never changed.

    Attributes:
        kind: "arrived" (an individual was first seen for sure), "left" (it is gone; label and confidence are its last),
            or "model" (another model watches from now on; `details` say which).
        time: seconds since the epoch, when it happened.
        source: the configured name of the camera; "" where no camera is concerned.
        track: the individual's identifier, the same in its "arrived" and "left".
        label: the class, or "unknown".
        confidence: 0 to 1.
        box: where in the frame, pixels.
        engine: SHA-256 of the artifact that said so.
        clock: how far `time` can be trusted: one of `CLOCKS`.
        details: more, JSON-ready, such as `seconds` and `frames` of "left".
        id: unique for ever; whoever receives an event twice knows it by this.
    """

    kind: str
    time: float
    source: str = ""
    track: str | None = None
    label: str | None = None
    confidence: float | None = None
    box: Box | None = None
    engine: str = ""
    clock: str = "unknown"
    details: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        if not math.isfinite(self.time):
            raise UsageError("an event's time is a number of seconds", self.time, "report this")
        if self.clock not in CLOCKS:
            raise UsageError("unknown state of the clock", self.clock, f"one of {', '.join(CLOCKS)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON-ready values, as it is exported and delivered."""
        return {
            "version": VERSION,
            "id": self.id,
            "kind": self.kind,
            "time": round(self.time, 3),
            "source": self.source,
            "track": self.track,
            "label": self.label,
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "box": None if self.box is None else self.box.to_list(),
            "engine": self.engine,
            "clock": self.clock,
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class Gap:
    """A time in which a camera should have watched and did not.

    Attributes:
        source: the camera's configured name.
        began, ended: seconds since the epoch; `ended` is None while it lasts.
        reason: what the source said first.
        steps: what was tried, in order, such as ("reopen", "reopen", "new process"); the last is one of `UNWATCHED`
            where watching ended before the camera was back.
        seconds: how long, by a clock that does not jump; while it lasts, how long when it was last told.
    """

    source: str
    began: float
    ended: float | None
    reason: str
    steps: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Effort:
    """A span in which a camera really watched: what a count must be divided by.

    Attributes:
        source: the camera's configured name.
        began, ended: seconds since the epoch.
        seconds: how long, by a clock that does not jump.
        frames: frames that were looked at.
        dropped: frames that came and were not looked at.
        engine: SHA-256 of the artifact that looked.
        clock: how far the epoch times can be trusted: one of `CLOCKS`.
    """

    source: str
    began: float
    ended: float
    seconds: float
    frames: int
    dropped: int
    engine: str
    clock: str = "unknown"
