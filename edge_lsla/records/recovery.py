"""What a kill or a power cut left unfinished, finished when the store is opened."""

from __future__ import annotations

import sqlite3
import time
import uuid

from edge_lsla.events import Event
from edge_lsla.records.crops import CropFolder
from edge_lsla.records.rows import event_of
from edge_lsla.records.schema import transaction

REMEMBERED_DAYS = 8  # folders in which a crop may lie whose row was not committed
_LEFT = uuid.UUID("5f0ed7a1-5a0a-4b5c-8c5e-2b6d0f3d9a11")


def lasting_left(track: str) -> str:
    """Return the identifier of the event that closes an individual after an interruption: always the same."""
    return uuid.uuid5(_LEFT, track).hex


def interrupted_tracks(connection: sqlite3.Connection) -> list[Event]:
    """Return a "left" for each individual that arrived and did not leave, at the last time that is known of it."""
    found = connection.execute(
        "SELECT tracks.track, tracks.source, tracks.label, tracks.began, events.body FROM tracks"
        " LEFT JOIN events ON events.seq = tracks.arrived WHERE tracks.ended IS NULL ORDER BY tracks.arrived"
    ).fetchall()
    events = []
    for row in found:
        if row["body"] is None:  # its row was deleted for room
            arrived = Event("arrived", row["began"], row["source"], row["track"], row["label"])
        else:
            arrived = event_of(row["body"])
        events.append(
            Event(
                "left",
                *(arrived.time, arrived.source, arrived.track, arrived.label, arrived.confidence, arrived.box),
                *(arrived.engine, arrived.clock, {"interrupted": True}),
                id=lasting_left(row["track"]),
            )
        )
    return events


def close_gaps(connection: sqlite3.Connection) -> None:
    """End the gaps that lasted when the store was left: nothing watched until now."""
    now = time.time()
    if connection.execute("SELECT 1 FROM gaps WHERE ended IS NULL LIMIT 1").fetchone():
        with transaction(connection):
            connection.execute(
                "UPDATE gaps SET ended = max(began, ?), seconds = max(seconds, ? - began) WHERE ended IS NULL",
                (now, now),
            )


def remember_days(connection: sqlite3.Connection, days: set[str], known: set[str]) -> None:
    """Note durably, before the first crop of a day is written, that the day's folder may hold one without a row."""
    if days <= known:
        return
    with transaction(connection):
        number = connection.execute("SELECT coalesce(max(used), 0) FROM days").fetchone()[0]
        for day in sorted(days):
            number += 1
            connection.execute(
                "INSERT INTO days VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET used = excluded.used", (day, number)
            )
        # All older crops have their rows by now.
        connection.execute("DELETE FROM days WHERE used <= ?", (number - max(len(days), REMEMBERED_DAYS),))
    known.clear()
    known.update(remembered_days(connection))


def remembered_days(connection: sqlite3.Connection) -> set[str]:
    """Return the days that are noted."""
    return {row[0] for row in connection.execute("SELECT day FROM days")}


def remove_orphans(connection: sqlite3.Connection, crops: CropFolder) -> int:
    """Remove the crops whose rows a kill or power cut kept from being committed; return how many."""
    orphans: list[str] = []
    for day in remembered_days(connection):
        orphans += [place for place in crops.of_day(day) if not has_row(connection, place)]
    crops.remove(orphans)
    return len(orphans)


def has_row(connection: sqlite3.Connection, place: str) -> bool:
    """Say whether a row names a crop."""
    name = place.rpartition("/")[2].removesuffix(".jpg")
    row = connection.execute("SELECT crop FROM events WHERE id = ?", (name,)).fetchone()
    return row is not None and row[0] == place


def any_crop(crops: CropFolder) -> bool:
    """Say whether there is any crop."""
    return any(next(crops.of_day(day), None) is not None for day in crops.days())
