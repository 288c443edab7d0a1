"""Events, effort and gaps as tables: CSV and JSON Lines. They stream, so that their size does not matter."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from edge_lsla.atomic import atomic_path
from edge_lsla.records.reader import Reader

COLUMNS = {
    "events": (
        *("seq", "id", "kind", "time", "source", "track", "label", "confidence", "left", "top", "right", "bottom"),
        *("engine", "clock", "crop", "details", "device"),
    ),
    "effort": ("source", "began", "ended", "seconds", "frames", "dropped", "engine", "clock", "device"),
    "gaps": ("source", "began", "ended", "seconds", "reason", "steps", "device"),
}
_FORMULA = ("=", "+", "-", "@", "\t")
_LINES = {ord(mark): " " for mark in "\r\n"}


def export_csv(
    reader: Reader,
    output: Path,
    since: float | None = None,
    until: float | None = None,
    what: str = "events",
    device: str | None = None,
) -> int:
    """Write a table as CSV (UTF-8, a header, times as UTC) and return its rows; `output` is whole or absent.

    Text that a spreadsheet would take for a formula begins with an apostrophe; see `harmless`.

    Args:
        reader: the records.
        output: where to.
        since, until: seconds since the epoch: events and spans of effort that began in between, and gaps that reach
            into it.
        what: one of `COLUMNS`: "events"; "effort", the spans that were watched; "gaps", those that were not.
        device: the device's name, for the column of that name.

    Raises:
        UsageError: the output cannot be written.
        StoreError: the records cannot be read.
    """
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS[what])
        number = 0
        for row in _rows(reader, what, since, until):
            writer.writerow([*_CELLS[what](row), harmless(device)])
            number += 1
    return number


def export_jsonl(
    reader: Reader,
    output: Path,
    since: float | None = None,
    until: float | None = None,
    what: str = "events",
    device: str | None = None,
) -> int:
    """Write a table as JSON Lines; events as they are delivered, with `seq` and `crop`. See `export_csv`."""
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        return write_lines(({**row, "device": device} for row in _rows(reader, what, since, until)), file)


def write_lines(rows: Iterable[dict[str, Any]], file: TextIO) -> int:
    """Write a JSON line a row; return how many."""
    number = 0
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        number += 1
    return number


def harmless(text: object) -> str:
    """Return text on one line that no spreadsheet takes for a formula: labels come from bundles that others made."""
    shown = "" if text is None else str(text).translate(_LINES)
    return "'" + shown if shown.startswith(_FORMULA) else shown


def utc(time: float) -> str:
    """Return a time as ISO 8601 with milliseconds, 2026-05-01T12:00:00.250Z; it ends with the year 9999."""
    try:
        when = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=round(time, 3))
    except OverflowError:
        when = datetime.datetime.max if time > 0 else datetime.datetime.min
    return when.isoformat(timespec="milliseconds") + "Z"


def _rows(reader: Reader, what: str, since: float | None, until: float | None) -> Iterator[dict[str, Any]]:
    if what == "events":
        return reader.events(since, until)
    spans = reader.effort_spans(since, until) if what == "effort" else reader.gap_spans(since, until)
    return ({name: _short(value) for name, value in dataclasses.asdict(span).items()} for span in spans)


def _short(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def _event(event: dict[str, Any]) -> list[object]:
    box = event["box"] or [None] * 4
    details = json.dumps(event["details"], ensure_ascii=False) if event["details"] else ""
    return [
        *(event["seq"], event["id"], event["kind"], utc(event["time"]), harmless(event["source"])),
        *(harmless(event["track"]), harmless(event["label"]), event["confidence"], *box),
        *(event["engine"], event["clock"], event["crop"], harmless(details)),
    ]


def _effort(span: dict[str, Any]) -> list[object]:
    return [
        *(harmless(span["source"]), utc(span["began"]), utc(span["ended"]), span["seconds"]),
        *(span["frames"], span["dropped"], span["engine"], span["clock"]),
    ]


def _gap(gap: dict[str, Any]) -> list[object]:
    ended = "" if gap["ended"] is None else utc(gap["ended"])
    return [
        *(harmless(gap["source"]), utc(gap["began"]), ended, gap["seconds"]),
        *(harmless(gap["reason"]), harmless(", ".join(gap["steps"]))),
    ]


_CELLS: dict[str, Callable[[dict[str, Any]], list[object]]] = {"events": _event, "effort": _effort, "gaps": _gap}
