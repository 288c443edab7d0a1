"""Events as rows, and back."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from edge_lsla.events import Box, Event

UNKNOWN = "unknown"


def text(value: str) -> str:
    """Return text that SQLite takes: without half characters."""
    return value.encode("utf-8", "replace").decode("utf-8")


def body_of(event: Event) -> str:
    """Return an event's JSON form."""
    return json.dumps(event.to_dict(), separators=(",", ":"))


def event_of(body: str) -> Event:
    """Return the event of a JSON form.

    Raises:
        EdgeLslaError, ValueError, TypeError, KeyError, AttributeError: it is none.
    """
    value = json.loads(body)
    box = value["box"]
    return Event(
        kind=value["kind"],
        time=float(value["time"]),
        source=value["source"],
        track=value["track"],
        label=value["label"],
        confidence=value["confidence"],
        box=None if box is None else Box(*box),
        engine=value["engine"],
        clock=value["clock"],
        details=dict(value["details"]),
        id=value["id"],
    )


def shown(row: sqlite3.Row) -> dict[str, Any]:
    """Return a row of events as it is exported: the event's JSON form, `seq`, and `crop`, a path or None."""
    value: dict[str, Any] = json.loads(row["body"])
    return {"seq": row["seq"], **value, "crop": row["crop"]}


def insert_event(
    connection: sqlite3.Connection, event: Event, crop: str | None, crop_bytes: int, seq: int | None = None
) -> int | None:
    """Insert an event and what it says of its individual; return its number, None where it is there already."""
    values = (
        *(seq, event.id, event.kind, round(event.time, 3), text(event.source), event.track),
        *(None if event.label is None else text(event.label), event.confidence),
        *(crop, crop_bytes if crop is not None else 0, body_of(event)),
    )
    cursor = connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING", values
    )
    if cursor.rowcount < 1:
        return None
    number = cursor.lastrowid
    track, source, when = event.track, text(event.source), round(event.time, 3)
    label = text(event.label or UNKNOWN)
    if track is not None and event.kind == "arrived":
        connection.execute(
            "INSERT INTO tracks (track, source, label, began, arrived) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (track) DO UPDATE SET began = excluded.began, arrived = excluded.arrived",
            (track, source, label, when, number),
        )
    elif track is not None and event.kind == "left":  # an individual whose arrival was lost counts when it left
        connection.execute(
            "INSERT INTO tracks (track, source, label, began, ended, gone) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (track) DO UPDATE SET label = excluded.label, ended = excluded.ended, gone = excluded.gone",
            (track, source, label, when, when, number),
        )
    return number
