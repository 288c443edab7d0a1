from __future__ import annotations

import dataclasses
import datetime
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from record_parts import JPEG, NOON, ROOMY, arrived, crops, left, visits, watched

from edge_lsla.errors import CompatibilityError, UsageError
from edge_lsla.events import Event, Gap
from edge_lsla.records import recovery
from edge_lsla.records.failures import StoreError
from edge_lsla.records.reader import Reader
from edge_lsla.records.settings import RecordSettings
from edge_lsla.records.store import Store

DAY = 86_400.0


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    event = arrived(label="lady beetle")
    with Store(tmp_path) as store:
        store.record(event, JPEG)
        place = f"crops/2026/05/28/{event.id}.jpg"
        assert store.recent() == [{"seq": 1, **event.to_dict(), "crop": place}]
        assert store.crop(event.id) == JPEG
        assert store.crop("no such event") is None
        assert (tmp_path / place).read_bytes() == JPEG
        assert store.state.events == 1
        assert store.state.bytes > len(JPEG)
        assert store.state.problems == ()


def test_an_event_is_recorded_once(tmp_path: Path) -> None:
    event = arrived()
    with Store(tmp_path) as store:
        store.record(event, JPEG)
        store.record(event, b"another crop")
        store.record_many([(event, None), (event, None)])
        assert store.state.events == 1
        assert store.crop(event.id) == JPEG


def test_a_batch_is_recorded_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    good, bad = arrived(), dataclasses.replace(arrived(), details={"no": object()})
    with Store(tmp_path) as store:
        with pytest.raises(TypeError):
            store.record_many([(good, JPEG), (bad, JPEG)])
        assert store.state.events == 0
        assert not crops(tmp_path)
        store.record(good, JPEG)
        assert store.state.events == 1


@pytest.mark.parametrize("name", ["../../../x", "a/b", "", "x" * 65, "a\0b"])
def test_an_identifier_that_is_no_file_name_gets_no_crop(tmp_path: Path, name: str) -> None:
    with Store(tmp_path) as store, pytest.raises(UsageError, match="identifier"):
        store.record(dataclasses.replace(arrived(), id=name), JPEG)
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_crop_that_cannot_be_written_costs_no_event(tmp_path: Path) -> None:
    (tmp_path / "crops").write_text("in the way")
    event = arrived()
    with Store(tmp_path) as store:
        store.record(event, JPEG)
        (row,) = store.recent()
        assert row["crop"] is None
        assert row["details"] == {"crop": None, "crop_missing": "File exists"}
        assert store.crop(event.id) is None
        assert any("without crops" in each for each in store.state.problems)
        (tmp_path / "crops").unlink()
        store.record(arrived(), JPEG)
        assert store.recent(1)[0]["crop"]
        assert store.state.problems == ()


def test_odd_texts_and_times_are_recorded(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for time in (-1.0, 0.0, 4e11, -1e300, 1e300):
            store.record(arrived(time), JPEG)
        store.record(arrived(label="half a character \ud800 and a name: Käfer"), None)
        assert store.state.events == 6
        assert len(crops(tmp_path)) == 5


def test_deliveries_go_on_where_they_ended(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.register("broker")
        visits(store, 5)
        first = store.pending("broker", 4)
        assert [seq for seq, _ in first] == [1, 2, 3, 4]
        assert [event.to_dict() for _, event in first] == [
            {key: value for key, value in row.items() if key not in ("seq", "crop")}
            for row in reversed(store.recent()[-4:])
        ]
        store.delivered("broker", 4)
        store.delivered("broker", 2)  # an old answer
        assert store.backlog("broker") == store.state.undelivered == 6
        store.register("web")
        assert store.backlog("web") == 10
    with Store(tmp_path) as store:
        store.register("broker")
        assert [seq for seq, _ in store.pending("broker", 100)] == [5, 6, 7, 8, 9, 10]
        store.delivered("broker", 1_000_000)  # nonsense must not pass future events over
        store.record(arrived())
        assert store.backlog("broker") == 1
        assert store.state.undelivered == 11
        store.forget("web")
        assert store.sinks() == ["broker"]
        assert store.state.undelivered == 1
        with pytest.raises(UsageError, match="not registered"):
            store.pending("web", 1)


def test_individuals_are_counted_once_with_their_last_label(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        ant, moth, fly = arrived(NOON, "ant"), arrived(NOON + 130, "moth"), arrived(NOON + 180, "fly")
        store.record_many([(event, None) for event in (ant, moth, fly, left(moth, 3600, "bee"), left(ant, 1))])
        store.record(Event("model", NOON, details={"slot": "b"}))
        counts = store.counts(NOON, NOON + 180, 60)
        assert counts["labels"] == {"ant": [1, 0, 0], "bee": [0, 0, 1]}
        assert counts["steps"] == [NOON, NOON + 60, NOON + 120]
        assert (counts["individuals"], counts["totals"]) == (2, {"ant": 1, "bee": 1})
        assert store.counts(NOON, NOON + 181, 60)["labels"]["fly"] == [0, 0, 0, 1]
        for step in (0.0, -1.0, 0.001, float("nan")):
            with pytest.raises(UsageError, match="steps"):
                store.counts(NOON, NOON + 180, step)


def test_effort_and_gaps_are_replaced_by_what_continues_them(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_effort(watched(NOON, NOON + 60))
        store.add_effort(watched(NOON, NOON + 120))
        gap = Gap("trap-1", NOON + 120, None, "no frame")
        store.add_gap(gap)
        ended = dataclasses.replace(gap, ended=NOON + 130, steps=("reopen", "new process"), seconds=10.0)
        store.add_gap(ended)
    with Reader(tmp_path) as reader:
        assert reader.effort() == [watched(NOON, NOON + 120)]
        assert reader.gaps() == [ended]


def test_opening_closes_what_a_power_cut_left_open_and_only_once(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.register("broker")
        here, gone = arrived(), arrived(NOON + 1)
        store.record_many([(here, JPEG), (gone, JPEG), (left(gone), None)])
        store.add_gap(Gap("trap-1", NOON, None, "no frame"))
    for _ in range(2):
        with Store(tmp_path) as store:
            assert store.state.events == 4
            closing = store.recent(1)[0]
            assert (closing["kind"], closing["track"], closing["time"]) == ("left", here.track, here.time)
            assert closing["details"] == {"interrupted": True}
            assert closing["label"] == here.label
            assert store.backlog("broker") == 4
    with Reader(tmp_path) as reader:
        assert all(gap.ended is not None for gap in reader.gaps())


def test_a_crop_whose_event_was_not_committed_is_removed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        kept = arrived()
        store.record(kept, JPEG)
    (tmp_path / "crops/2026/05/28/stray.jpg").write_bytes(JPEG[:9])
    with Store(tmp_path) as store:
        assert crops(tmp_path) == {kept.id}
        assert store.state.problems == ()


def test_the_days_folder_is_there_before_its_first_crop(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        day = datetime.datetime.now(datetime.timezone.utc)
        folders = {f"crops/{each:%Y/%m/%d}" for each in (day - datetime.timedelta(seconds=60), day)}
        assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("crops/*/*/*")} <= folders
        assert any((tmp_path / folder).is_dir() for folder in folders)
        assert recovery.remembered_days(store._connection) <= folders


def test_one_service_at_a_time(tmp_path: Path) -> None:
    with Store(tmp_path):
        with pytest.raises(StoreError, match="another service has these records open"):
            Store(tmp_path)
        code = f"from edge_lsla.records.store import Store; from pathlib import Path; Store(Path({str(tmp_path)!r}))"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "StoreError: another service has these records open" in other.stderr
        with Reader(tmp_path) as reader:
            assert reader.recent() == []
    Store(tmp_path).close()


def test_folders_that_cannot_hold_a_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        Store(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="this is none"):
        Store(tmp_path / "file")
    with pytest.raises(UsageError, match="no records in this folder"):
        Reader(tmp_path)


def test_a_newer_or_foreign_database_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    path = tmp_path / "events.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for opening in (Store, Reader):
        with pytest.raises(CompatibilityError, match="a newer program made this store"):
            opening(tmp_path)
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE accounts (name)")
    connection.close()
    with pytest.raises(StoreError, match="no store of events"):
        Store(tmp_path)
    assert not list(tmp_path.glob("events.corrupt*"))


def test_many_threads_use_one_store(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.register("broker")
        failures: list[BaseException] = []

        def use() -> None:
            try:
                for _ in range(10):
                    visits(store, 1)
                    store.recent(5)
                    store.counts(NOON, NOON + DAY, 3600)
                    store.delivered("broker", store.pending("broker", 2)[-1][0]) if store.backlog("broker") else None
            except BaseException as error:  # shown by the test
                failures.append(error)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not failures
        assert store.state.events == 80
        assert store.counts(NOON, NOON + DAY, DAY)["individuals"] == 40


def test_counting_reads_an_index_alone(tmp_path: Path) -> None:
    """A million events are counted in milliseconds for that: benchmarks/results/store_speed.json."""
    asked: list[str] = []
    with Store(tmp_path), Reader(tmp_path) as reader:
        with reader._connection() as connection:
            connection.set_trace_callback(asked.append)
        reader.counts(NOON, NOON + DAY, 3600)
        with reader._connection() as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}").fetchall()
    assert "SEARCH tracks USING COVERING INDEX tracks_began (began>? AND began<?)" in [row["detail"] for row in plan]


def test_the_log_stays_small(tmp_path: Path) -> None:
    with Store(tmp_path, ROOMY) as store:
        for _ in range(60):
            visits(store, 100, crop=None)
        assert (tmp_path / "events.db-wal").stat().st_size < 9e6


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_mb", 0), ("max_mb", float("nan")), ("keep_free_mb", -1), ("max_days", 0), ("crop_quality", 96)],
)
def test_settings_name_the_field(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        RecordSettings(**{field: value})


def test_a_day_that_is_a_link_is_left_alone_and_costs_no_event(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("photographs")
    (elsewhere / "holiday.jpg").write_bytes(JPEG)
    with Store(tmp_path) as store:
        store.record(arrived(), JPEG)
    (crop,) = tmp_path.glob("crops/*/*/*/*.jpg")
    day = crop.parent
    crop.unlink()
    day.rmdir()
    day.symlink_to(elsewhere)
    with Store(tmp_path, RecordSettings(max_days=0.001)) as store:
        event = arrived()
        store.record(event, JPEG)
        store.retain()
        assert "symbolic link" in store.state.problems[-1]
    assert [path.name for path in elsewhere.iterdir()] == ["holiday.jpg"]
