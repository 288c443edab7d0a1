"""Events as tables: CSV and JSON Lines. They stream, so that their size does not matter."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from edge_lsla.atomic import atomic_path
from edge_lsla.records.reader import Reader

COLUMNS = (
    *("seq", "id", "kind", "time", "source", "track", "label", "confidence", "left", "top", "right", "bottom"),
    *("engine", "clock", "crop", "details"),
)
_FORMULA = ("=", "+", "-", "@", "\t")
_LINES = {ord(mark): " " for mark in "\r\n"}


def export_csv(reader: Reader, output: Path, since: float | None = None, until: float | None = None) -> int:
    """Write events as CSV (UTF-8, a header, times as UTC) and return how many; `output` is whole or absent.

    Text that a spreadsheet would take for a formula begins with an apostrophe; see `harmless`.

    Raises:
        UsageError: the output cannot be written.
        StoreError: the records cannot be read.
    """
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        number = 0
        for event in reader.events(since, until):
            writer.writerow(_cells(event))
            number += 1
    return number


def export_jsonl(reader: Reader, output: Path, since: float | None = None, until: float | None = None) -> int:
    """Write events as JSON Lines, as they are delivered, with `seq` and `crop`; see `export_csv`."""
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        return write_lines(reader.events(since, until), file)


def write_lines(events: Iterator[dict[str, Any]], file: TextIO) -> int:
    """Write a JSON line an event; return how many."""
    number = 0
    for event in events:
        file.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")
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


def _cells(event: dict[str, Any]) -> list[object]:
    box = event["box"] or [None] * 4
    details = json.dumps(event["details"], ensure_ascii=False) if event["details"] else ""
    return [
        *(event["seq"], event["id"], event["kind"], utc(event["time"]), harmless(event["source"])),
        *(harmless(event["track"]), harmless(event["label"]), event["confidence"], *box),
        *(event["engine"], event["clock"], event["crop"], harmless(details)),
    ]
