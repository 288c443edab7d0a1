"""Making room: what is deleted, in which order, and what never is.

By age (`max_days`) go crops and events that every sink has acknowledged, and effort and gaps. For room, the oldest go
first, and only as much as is needed: damaged databases that were set aside, crops of acknowledged events, and then,
where `max_mb` is exceeded, their events. What a sink still waits for stays, except that the crops of such events go
where the disk has less than `keep_free_mb` left; `drop_undelivered` treats them like others. Events are small, so that
a disk which others fill costs no events.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.records import durable
from edge_lsla.records.crops import CropFolder
from edge_lsla.records.opening import CORRUPT, keep_reserve
from edge_lsla.records.schema import DATABASE, SIDE_FILES, transaction
from edge_lsla.records.settings import RecordSettings
from edge_lsla.records.writer import Writer

MB = 1_000_000
DAY = 86_400.0
CROPS_AT_ONCE, ROWS_AT_ONCE, PAGES_AT_ONCE = 200, 1000, 2000  # so that no event waits long
JUMP_SECONDS = 3600.0
_ALL = 1 << 62


@dataclass(frozen=True)
class Retained:
    """What was deleted.

    Attributes:
        crops, events: how many, of acknowledged ones.
        undelivered_crops, undelivered_events: how many that a sink still waits for.
        set_aside: damaged databases.
        lacking: bytes of room that are still missing, because nothing more may be deleted.
    """

    crops: int = 0
    events: int = 0
    undelivered_crops: int = 0
    undelivered_events: int = 0
    set_aside: int = 0
    lacking: int = 0


class Retention:
    """Deletes what is too old or too much; the writer's lock is held for one small part at a time."""

    def __init__(
        self,
        folder: Path,
        settings: RecordSettings,
        writer: Writer,
        crops: CropFolder,
    ) -> None:
        self._folder, self._settings, self._writer, self._crops = folder, settings, writer, crops
        self._crop_bytes = 0  # of all crops, as of now, while running
        self._offset = time.time() - steady()
        self._jumped = float("-inf")

    def run(self) -> Retained:
        """Delete what the settings say."""
        keep = self._settings
        floor = self._floor()
        everything = _ALL if keep.drop_undelivered else floor
        counts = [0, 0, 0, 0]
        self._crop_bytes = self._sum_crops()
        cutoff = self._cutoff()
        if cutoff is not None:
            self._delete_crops(counts, floor, everything, cutoff)
            self._delete_events(counts, floor, everything, cutoff)
            with self._writer.lock, transaction(self._connection):
                self._connection.execute("DELETE FROM effort WHERE ended < ?", (cutoff,))
                self._connection.execute("DELETE FROM gaps WHERE ended < ?", (cutoff,))
        self._shrink(counts[1] + counts[3])
        aside = self._delete_set_aside()
        self._delete_crops(counts, floor, everything)
        if self._over() > 0:
            self._delete_events(counts, floor, everything)
        if self._short() > 0:
            self._delete_crops(counts, floor, _ALL)
        with self._writer.lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        keep_reserve(self._folder)
        return Retained(counts[0], counts[1], counts[2], counts[3], aside, max(0, self._lacking()))

    @property
    def _connection(self) -> sqlite3.Connection:
        """Another one after the database was written anew."""
        return self._writer.connection

    def _sum_crops(self) -> int:
        with self._writer.lock:
            found = self._connection.execute("SELECT sum(crop_bytes) FROM events WHERE crop IS NOT NULL").fetchone()
        return int(found[0] or 0)

    def _lacking(self) -> int:
        return max(self._over(), self._short())

    def _over(self) -> int:
        return int(self._crop_bytes + files_size(self._folder) - self._settings.max_mb * MB)

    def _short(self) -> int:
        return int(self._settings.keep_free_mb * MB - shutil.disk_usage(self._folder).free)

    def _floor(self) -> int:
        """Return the last event that every sink has acknowledged; without sinks none waits."""
        with self._writer.lock:
            found = self._connection.execute("SELECT min(upto) FROM deliveries").fetchone()[0]
        return _ALL if found is None else int(found)

    def _cutoff(self) -> float | None:
        """Return the time before which all goes; None while the clock is in doubt.

        A clock that jumps forward must not age everything at once: nothing goes by age for a day after a jump, and time
        goes on by at most a day beyond the last watching under a synchronised clock, where there was any.
        """
        offset = time.time() - steady()
        if abs(offset - self._offset) > JUMP_SECONDS:
            self._jumped = steady()
        self._offset = offset
        if self._settings.max_days is None or steady() - self._jumped < DAY:
            return None
        with self._writer.lock:
            trusted = self._connection.execute("SELECT max(ended) FROM effort WHERE clock = 'synchronised'").fetchone()[
                0
            ]
        now = time.time() if trusted is None else min(time.time(), float(trusted) + DAY)
        return now - self._settings.max_days * DAY

    def _delete_crops(self, counts: list[int], floor: int, upto: int, before: float | None = None) -> None:
        """Delete crops up to event `upto`, older than `before` or, without it, while room is lacking.

        The files go first: a power cut in between leaves rows that name a crop which is gone, and these are found here
        again, whereas a file without a row would stay for ever. On a full disk this order also makes its own room.
        """
        lacking = 1 if before is not None else self._lacking()
        where = "WHERE crop IS NOT NULL AND seq <= ? ORDER BY seq"
        if before is not None:
            where = f"INDEXED BY events_time WHERE crop IS NOT NULL AND seq <= ? AND time < {before!r} ORDER BY time"
        while lacking > 0:
            with self._writer.lock:
                rows = self._connection.execute(
                    f"SELECT seq, crop, crop_bytes FROM events {where} LIMIT {CROPS_AT_ONCE}", (upto,)
                ).fetchall()
                chosen, freed = [], 0
                for row in rows:
                    if before is None and freed >= lacking:
                        break
                    chosen.append(row)
                    freed += row["crop_bytes"]
                if not chosen:
                    return
                self._crops.remove([row["crop"] for row in chosen])
                with transaction(self._connection):
                    self._connection.executemany(
                        "UPDATE events SET crop = NULL, crop_bytes = 0 WHERE seq = ?", [(row["seq"],) for row in chosen]
                    )
                self._crop_bytes -= freed
                waiting = sum(row["seq"] > floor for row in chosen)
                counts[0] += len(chosen) - waiting
                counts[2] += waiting
            if before is None:
                lacking = self._lacking()

    def _delete_events(self, counts: list[int], floor: int, upto: int, before: float | None = None) -> None:
        """Delete events without crops up to `upto`, older than `before` or, without it, while `max_mb` is exceeded."""
        where = "WHERE crop IS NULL AND seq <= ? ORDER BY seq"
        if before is not None:
            where = f"INDEXED BY events_time WHERE crop IS NULL AND seq <= ? AND time < {before!r} ORDER BY time"
        while before is not None or self._over() > 0:
            with self._writer.lock:
                rows = self._connection.execute(
                    f"SELECT seq, kind, track FROM events {where} LIMIT {ROWS_AT_ONCE}", (upto,)
                ).fetchall()
                if not rows:
                    return
                gone = [(row["track"],) for row in rows if row["kind"] == "left"]
                with transaction(self._connection):
                    self._connection.executemany("DELETE FROM tracks WHERE track = ?", gone)
                    self._connection.executemany("DELETE FROM events WHERE seq = ?", [(row["seq"],) for row in rows])
                waiting = sum(row["seq"] > floor for row in rows)
                counts[1] += len(rows) - waiting
                counts[3] += waiting
            if before is None:
                self._shrink(len(rows))

    def _shrink(self, deleted: int) -> None:
        """Give the pages of deleted rows back to the disk."""
        while deleted:
            with self._writer.lock:
                free = int(self._connection.execute("PRAGMA freelist_count").fetchone()[0])
                if not free:
                    break
                self._connection.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
        if deleted:
            with self._writer.lock:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _delete_set_aside(self) -> int:
        """Delete what was set aside of damaged databases, oldest first, while room is lacking."""
        deleted = 0
        for path in sorted(self._folder.glob(f"{CORRUPT}*.db")):
            if self._lacking() <= 0:
                break
            durable.remove_files([path, *(path.with_name(path.name + end) for end in SIDE_FILES)])
            crops = path.with_suffix(".crops")
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(crops)
            deleted += 1
        return deleted


def steady() -> float:
    """Return seconds of a clock that never jumps, and goes on while the device sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def files_size(folder: Path) -> int:
    """Return the bytes of the database, its log, and what was set aside of damaged ones."""
    total = 0
    for path in [*(folder / (DATABASE + end) for end in ("", "-wal")), *folder.glob(f"{CORRUPT}*"),
                 *folder.glob(f"{CORRUPT}*.crops/*")]:  # fmt: skip
        with contextlib.suppress(OSError):
            if path.is_file():
                total += path.stat().st_size
    return total
