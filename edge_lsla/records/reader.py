"""Reading a store beside its writer, or one that nobody has open."""

from __future__ import annotations

import contextlib
import json
import queue
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_lsla.errors import UsageError
from edge_lsla.events import Effort, Gap
from edge_lsla.records.crops import CropFolder
from edge_lsla.records.failures import explained
from edge_lsla.records.rows import shown
from edge_lsla.records.schema import DATABASE, check_version, connect_reader, lost_tables

CHUNK = 1000  # rows read at once: a long export holds neither memory nor the write-ahead log
MOST_STEPS = 10_000
IDLE = 4  # connections kept
CANNOT = "the records cannot be read"
_ALWAYS = (float("-inf"), float("inf"))
_SPANS = "SELECT * FROM {} WHERE (source, began) > (?, ?) ORDER BY source, began LIMIT ?"


class Reader:
    """Reads a store's folder; any number of threads may use it. A context manager.

    Args:
        folder: the store's.

    Raises:
        UsageError: there are no records in the folder.
        CompatibilityError: a newer program made them.
        StoreError: they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / DATABASE).is_file():
            raise UsageError("no records in this folder", folder, "give the service's data folder")
        self.folder = folder
        self._crops = CropFolder(folder)
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(IDLE)
        self._closed = False
        with self._connection() as connection:
            check_version(connection, folder / DATABASE)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; one that is in use is closed when it is given back."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def recent(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return the last events, newest first, as they are exported."""
        rows = self._rows("SELECT seq, body, crop FROM events ORDER BY seq DESC LIMIT ?", limit)
        return [shown(row) for row in rows]

    def counts(self, since: float, until: float, step_seconds: float) -> dict[str, Any]:
        """Count individuals by label in steps of time; each counts once, when it arrived, with its last label.

        Args:
            since, until: seconds since the epoch; `until` is excluded.
            step_seconds: of one step; the last one may reach beyond `until`.

        Returns:
            JSON-ready: `since`, `until`, `step_seconds`, `steps` (when each begins), `labels` (label to counts, one a
            step, most frequent label first), `totals` (label to count) and `individuals` (their sum).

        Raises:
            UsageError: the steps are more than 10000, or none.
        """
        if not (step_seconds > 0 and since < until and until - since <= step_seconds * MOST_STEPS):
            raise UsageError(f"counts need 1 to {MOST_STEPS} steps", step_seconds, "take a longer step")
        number = int(-(-(until - since) // step_seconds))
        rows = self._rows(
            "SELECT CAST((began - ?) / ? AS INTEGER) AS step, label, count(*) AS individuals FROM tracks"
            " WHERE began >= ? AND began < ? GROUP BY step, label",
            *(since, step_seconds, since, until),
        )
        labels: dict[str, list[int]] = {}
        for row in rows:
            labels.setdefault(row["label"], [0] * number)[min(row["step"], number - 1)] += row["individuals"]
        ordered = dict(sorted(labels.items(), key=lambda item: (-sum(item[1]), item[0])))
        totals = {label: sum(each) for label, each in ordered.items()}
        return {
            "since": since,
            "until": until,
            "step_seconds": step_seconds,
            "steps": [since + index * step_seconds for index in range(number)],
            "labels": ordered,
            "totals": totals,
            "individuals": sum(totals.values()),
        }

    def crop(self, event_id: str) -> bytes | None:
        """Return an event's crop, JPEG; None where it has none or it was deleted for room."""
        rows = self._rows("SELECT crop FROM events WHERE id = ?", event_id)
        return self._crops.read(rows[0]["crop"]) if rows and rows[0]["crop"] else None

    def crop_at(self, place: str) -> bytes | None:
        """Return a crop by its path, as `events` gives it; None where it is gone."""
        return self._crops.read(place)

    def events(self, since: float | None = None, until: float | None = None) -> Iterator[dict[str, Any]]:
        """Yield the events from `since` to before `until`, in the order in which they were recorded."""
        begin, end = _span(since, until)
        statement = "SELECT seq, body, crop, time FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        for row in self._chunks(statement, ("seq",), (0,)):
            if begin <= row["time"] < end:
                yield shown(row)

    def individuals(self, since: float | None = None, until: float | None = None) -> Iterator[dict[str, Any]]:
        """Yield the individuals that arrived from `since` to before `until`, in that order.

        Each has track, source, label, began, `ended` (None while it is there) and `event`, its last one (None where
        that was deleted).
        """
        begin, end = _span(since, until)
        statement = (
            "SELECT tracks.*, events.body AS body FROM tracks"
            " LEFT JOIN events ON events.seq = coalesce(tracks.gone, tracks.arrived)"
            " WHERE (began, tracks.label, tracks.track) > (?, ?, ?) ORDER BY began, tracks.label, tracks.track LIMIT ?"
        )
        for row in self._chunks(statement, ("began", "label", "track"), (begin, "", "")):
            if row["began"] >= end:
                return
            event = json.loads(row["body"]) if row["body"] is not None else None
            yield {key: row[key] for key in ("track", "source", "label", "began", "ended")} | {"event": event}

    def effort(self) -> list[Effort]:
        """Return all spans of watching, by source and time."""
        return list(self.effort_spans())

    def gaps(self) -> list[Gap]:
        """Return all gaps in watching, by source and time."""
        return list(self.gap_spans())

    def effort_spans(self, since: float | None = None, until: float | None = None) -> Iterator[Effort]:
        """Yield the spans of watching that began from `since` to before `until`, by source and time.

        By when they began, as events: so none counts in two exports, and none is left out between them.
        """
        begin, end = _span(since, until)
        for row in self._chunks(_SPANS.format("effort"), ("source", "began"), ("", _ALWAYS[0])):
            if begin <= row["began"] < end:
                yield Effort(**dict(row))

    def gap_spans(self, since: float | None = None, until: float | None = None) -> Iterator[Gap]:
        """Yield the gaps in watching that reach into the time from `since` to before `until`, by source and time."""
        begin, end = _span(since, until)
        for row in self._chunks(_SPANS.format("gaps"), ("source", "began"), ("", _ALWAYS[0])):
            if row["began"] < end and (row["ended"] is None or row["ended"] > begin):
                yield Gap(**{**dict(row), "steps": tuple(json.loads(row["steps"]))})

    def examine(self) -> list[str]:
        """Read the whole store; return what is wrong with it, sentences."""
        with self._connection() as connection, explained(CANNOT, self.folder):
            try:
                found = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
                found = lost_tables(connection) or found
            except sqlite3.DatabaseError as error:
                found = [str(error)]
        if found != ["ok"]:
            return [f"the database is damaged: {each}" for each in found]
        missing, named = 0, set()
        statement = "SELECT seq, crop FROM events WHERE seq > ? AND crop IS NOT NULL ORDER BY seq LIMIT ?"
        for row in self._chunks(statement, ("seq",), (0,)):
            named.add(row["crop"])
            missing += not (self.folder / row["crop"]).is_file()
        strays = sum(place not in named for day in self._crops.days() for place in self._crops.of_day(day))
        problems = [f"{missing} events name a crop that is not there"] if missing else []
        return problems + ([f"{strays} files among the crops belong to no event"] if strays else [])

    def _chunks(self, statement: str, keys: tuple[str, ...], position: tuple[Any, ...]) -> Iterator[sqlite3.Row]:
        while rows := self._rows(statement, *position, CHUNK):
            yield from rows
            position = tuple(rows[-1][key] for key in keys)

    def _rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        with self._connection() as connection:
            return connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with explained(CANNOT, self.folder):
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = connect_reader(self.folder / DATABASE)
                connection.row_factory = sqlite3.Row
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            try:
                self._idle.put_nowait(connection)
            except queue.Full:
                connection.close()
            if self._closed:
                self.close()


def _span(since: float | None, until: float | None) -> tuple[float, float]:
    return _ALWAYS[0] if since is None else since, _ALWAYS[1] if until is None else until
