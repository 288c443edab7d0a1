from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from record_parts import ROOMY, arrived, crops, overwrite, visits, watched

from edge_lsla.events import Gap
from edge_lsla.records import retention
from edge_lsla.records.reader import Reader
from edge_lsla.records.retention import Retained
from edge_lsla.records.settings import RecordSettings
from edge_lsla.records.store import Store

DAY = 86_400.0
BIG = b"\xff" * 100_000
ONE_MB = RecordSettings(max_mb=1, keep_free_mb=0, max_days=None)


def test_nothing_is_deleted_while_there_is_room(tmp_path: Path) -> None:
    with Store(tmp_path, ROOMY) as store:
        visits(store, 3)
        assert store.retain() == Retained()
        assert store.state.events == 6


def test_the_oldest_crops_go_first_and_only_as_many_as_needed(tmp_path: Path) -> None:
    with Store(tmp_path, ONE_MB) as store:
        come = visits(store, 20, crop=BIG)
        done = store.retain()
        assert done.crops > 0
        assert dataclasses.replace(done, crops=0) == Retained()
        assert crops(tmp_path) == {event.id for event in come[done.crops :]}
        assert 0.7e6 < store.state.bytes <= 1e6
        assert store.state.events == 40
        assert store.crop(come[0].id) is None
        assert store.recent(40)[-1]["crop"] is None
        assert store.state.problems == ()
    with Reader(tmp_path) as reader:
        assert reader.examine() == []


def test_events_go_when_no_crop_is_left_and_the_database_shrinks(tmp_path: Path) -> None:
    with Store(tmp_path, ONE_MB) as store:
        for begin in range(5):
            visits(store, 500, crop=None, begin=1e9 + begin * 1e6)
        big = store.state.bytes
        done = store.retain()
        assert done.events >= 1000
        assert store.state.bytes <= 1e6 < big
        assert store.state.events == 5000 - done.events
        newest = store.recent(1)[0]["seq"]
        assert newest == 5000
        assert [event["seq"] for event in store.recent(10_000)] == list(range(5000, done.events, -1))
        assert store.counts(1e9, 1e9 + 5e6, 5e6)["individuals"] <= store.state.events / 2 + 1


def test_what_a_sink_waits_for_stays_and_that_is_said(tmp_path: Path) -> None:
    with Store(tmp_path, ONE_MB) as store:
        store.register("broker")
        visits(store, 20, crop=BIG)
        store.delivered("broker", 4)
        done = store.retain()
        assert (done.crops, done.undelivered_crops) == (2, 0)
        assert done.lacking > 0.5e6
        assert "MB of room are missing" in store.state.problems[0]
        assert store.backlog("broker") == 36
        store.delivered("broker", 40)
        assert store.retain().lacking == 0
        assert store.state.problems == ()


def test_what_a_sink_waits_for_goes_where_that_is_allowed_and_is_counted(tmp_path: Path) -> None:
    with Store(tmp_path, dataclasses.replace(ONE_MB, drop_undelivered=True)) as store:
        store.register("broker")
        visits(store, 20, crop=BIG)
        store.delivered("broker", 4)
        done = store.retain()
        assert done.crops == 2
        assert done.undelivered_crops > 5
        assert done.lacking == 0
        visits(store, 10, crop=BIG)
        more = store.retain().undelivered_crops
        assert f"{done.undelivered_crops + more} crops were deleted for room" in store.state.problems[0]
        assert store.backlog("broker") == 56


def test_a_full_disk_takes_crops_that_a_sink_waits_for_but_no_event(tmp_path: Path) -> None:
    endless = dataclasses.replace(ROOMY, keep_free_mb=1e9)  # no disk has so much left
    with Store(tmp_path, endless) as store:
        store.register("broker")
        visits(store, 10)
        done = store.retain()
        assert (done.crops, done.undelivered_crops, done.events, done.undelivered_events) == (0, 10, 0, 0)
        assert not crops(tmp_path)
        assert store.backlog("broker") == 20
        assert len(store.state.problems) == 2


def test_old_records_go_and_new_ones_stay(tmp_path: Path) -> None:
    now = time.time()
    with Store(tmp_path, dataclasses.replace(ROOMY, max_days=10)) as store:
        store.register("broker")
        old = visits(store, 5, begin=now - 20 * DAY)
        young = visits(store, 5, begin=now - 5 * DAY)
        store.add_effort(watched(now - 20 * DAY, now - 19 * DAY))
        store.add_effort(watched(now - DAY, now))
        store.add_gap(Gap("trap-1", now - 20 * DAY, now - 19 * DAY, "no frame"))
        assert store.retain() == Retained()  # nothing of it was delivered
        store.delivered("broker", 4)
        assert store.retain() == Retained(crops=2, events=4)
        store.delivered("broker", 20)
        assert store.retain() == Retained(crops=3, events=6)
        assert crops(tmp_path) == {event.id for event in young}
        assert not crops(tmp_path) & {event.id for event in old}
    with Reader(tmp_path) as reader:
        assert [span.ended for span in reader.effort()] == [now]
        assert reader.gaps() == []
        assert len(list(reader.individuals())) == 5


def test_for_a_day_after_a_jump_of_the_clock_nothing_ages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, steady = time.time(), retention.steady()
    with Store(tmp_path, dataclasses.replace(ROOMY, max_days=10)) as store:
        visits(store, 5, begin=now - 20 * DAY)
        for later, jump in ((0.0, 2 * DAY), (0.9 * DAY, 2 * DAY)):
            monkeypatch.setattr(retention.time, "time", lambda elapsed=later + jump: now + elapsed)
            monkeypatch.setattr(retention, "steady", lambda elapsed=later: steady + elapsed)
            assert store.retain() == Retained()
        monkeypatch.setattr(retention.time, "time", lambda: now + 3.1 * DAY)
        monkeypatch.setattr(retention, "steady", lambda: steady + 1.1 * DAY)
        assert store.retain() == Retained(crops=5, events=10)


def test_a_clock_that_starts_years_ahead_ages_nothing_that_was_just_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    with Store(tmp_path) as store:
        visits(store, 5, begin=now - DAY)
        store.add_effort(watched(now - DAY, now))
    monkeypatch.setattr(retention.time, "time", lambda: now + 5000 * DAY)
    with Store(tmp_path, dataclasses.replace(ROOMY, max_days=10)) as store:
        assert store.retain() == Retained()


def test_damaged_databases_go_before_any_crop(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        visits(store, 5, crop=BIG)
    overwrite(tmp_path / "events.db", 0, 4096)
    with (tmp_path / "events.db").open("r+b") as file:
        file.truncate(600_000)
    with Store(tmp_path, ONE_MB) as store:
        assert store.retain() == Retained(set_aside=1)
        assert len(crops(tmp_path)) == 5
    assert not list(tmp_path.glob("events.corrupt*"))


def test_folders_of_days_without_crops_are_removed(tmp_path: Path) -> None:
    with Store(tmp_path, ONE_MB) as store:
        visits(store, 15, step=DAY, crop=BIG)
        done = store.retain()
        folders = list(tmp_path.glob("crops/*/*/*"))
        assert sum(any(folder.iterdir()) for folder in folders) == 15 - done.crops
        assert sum(not any(folder.iterdir()) for folder in folders) in (1, 2)  # today's, and near midnight tomorrow's
        store.record(arrived(), BIG)  # the oldest day again
        assert store.crop(store.recent(1)[0]["id"]) == BIG
