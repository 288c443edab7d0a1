"""What the event store can be told."""

from __future__ import annotations

from dataclasses import dataclass

from edge_lsla.errors import UsageError


@dataclass(frozen=True)
class RecordSettings:
    """How much the event store may keep, and for how long.

    Attributes:
        max_mb: most megabytes of database and crops together; beyond it the oldest are deleted.
        keep_free_mb: megabytes of the disk that are left to others; below it the oldest are deleted.
        max_days: how long crops and events are kept; None keeps them until there is no room.
        drop_undelivered: whether events that a sink waits for may be deleted too. Otherwise only their crops ever are,
            and only when the disk has less than `keep_free_mb` left; either is counted and said.
        crop_quality: JPEG quality of crops, 1 to 95.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    max_mb: float = 20_000.0
    keep_free_mb: float = 500.0
    max_days: float | None = 400.0
    drop_undelivered: bool = False
    crop_quality: int = 90

    def __post_init__(self) -> None:
        if not 1 <= self.max_mb <= 1e9:
            raise UsageError("the records need at least 1 MB", "max_mb", "correct it")
        if not 0 <= self.keep_free_mb <= 1e9:
            raise UsageError("the space left free is 0 MB or more", "keep_free_mb", "correct it")
        if self.max_days is not None and not 0 < self.max_days <= 36_500:
            raise UsageError("records are kept for more than 0 and at most 36500 days", "max_days", "correct it")
        if not 1 <= self.crop_quality <= 95:
            raise UsageError("the JPEG quality is from 1 to 95", "crop_quality", "correct it")
