"""A database that the disk damaged is salvaged, moved aside, and spoken of; nothing is delivered twice in silence."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from record_parts import JPEG, NOON, arrived, crops, overwrite, visits, watched

from edge_lsla.errors import UsageError
from edge_lsla.records.failures import CorruptStoreError, StoreError
from edge_lsla.records.reader import Reader
from edge_lsla.records.store import Store

PAGE = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed store of 300 individuals, of whose 600 events a broker has 450."""
    with Store(tmp_path) as store:
        store.register("broker")
        visits(store, 300)
        store.add_effort(watched(NOON, NOON + 60))
        store.delivered("broker", 450)
    return tmp_path


def pages_of(folder: Path, name: str) -> list[int]:
    """Return the leaf pages of a table, by their numbers from 0."""
    connection = sqlite3.connect(folder / "events.db")
    statement = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path"
    pages = [row[0] - 1 for row in connection.execute(statement, (name,))]
    connection.close()
    return pages


def identifiers(store: Store) -> list[str]:
    return [event["id"] for event in store.recent(10_000)]


def aside(folder: Path) -> list[Path]:
    return list(folder.glob("events.corrupt-*.db"))


def test_a_destroyed_first_page_costs_nothing(folder: Path) -> None:
    before = (folder / "events.db").read_bytes()
    overwrite(folder / "events.db", 0, PAGE)
    with Store(folder) as store:
        assert store.state.events == len(set(identifiers(store))) == 600
        assert store.backlog("broker") == 150
        assert store.counts(NOON, NOON + 1e6, 1e6)["individuals"] == 300
        assert "file is not a database" in store.state.problems[0]
        assert "600 events salvaged; the state of delivery is kept" in store.state.problems[0]
    (kept,) = aside(folder)
    assert kept.read_bytes()[PAGE:] == before[PAGE:]
    assert len(crops(folder)) == 300
    with Store(folder) as store:  # said as long as the file is there
        assert store.state.problems == (
            f"a damaged database is kept: {kept.name}; delete it once nobody wants to look at it",
        )
        assert store.state.events == 600


def test_events_on_destroyed_pages_are_lost_and_their_crops_kept_aside(folder: Path) -> None:
    pages = pages_of(folder, "events")
    overwrite(folder / "events.db", pages[5] * PAGE, PAGE)
    overwrite(folder / "events.db", pages[len(pages) // 2] * PAGE, PAGE)
    with Store(folder) as store:
        rows = store.recent(10_000)
        found = [row["id"] for row in rows if "interrupted" not in row["details"]]
        lost = 600 - len(found)
        assert 2 <= lost <= 40
        assert len(set(found)) == len(found)
        left_aside = [path.stem for path in folder.glob("events.corrupt-*.crops/*")]
        assert crops(folder) | set(left_aside) >= {row["id"] for row in rows if row["crop"]}
        assert len(crops(folder)) + len(left_aside) == 300
        assert any(f"{len(left_aside)} crops of events that were lost" in each for each in store.state.problems)
        assert 0 < store.backlog("broker") <= 150 + 40
        store.record(arrived(), JPEG)
        assert store.recent(1)[0]["seq"] > 600
    with Reader(folder) as reader:
        assert reader.examine() == []


def test_a_lost_state_of_delivery_is_said_and_sends_all_again(folder: Path) -> None:
    for page in pages_of(folder, "deliveries"):
        overwrite(folder / "events.db", page * PAGE, PAGE)
    with Store(folder) as store:
        assert "the state of delivery is lost, so all are delivered again" in store.state.problems[0]
        store.register("broker")
        assert store.backlog("broker") == 600


def test_numbers_are_not_given_twice_where_the_last_events_are_lost(folder: Path) -> None:
    with Store(folder) as store:
        store.delivered("broker", 600)
    overwrite(folder / "events.db", pages_of(folder, "events")[-1] * PAGE, PAGE)
    with Store(folder) as store:
        assert store.state.events < 600 + 40
        for _, event in store.pending("broker", 100):  # closing what has lost its "left"
            assert event.details == {"interrupted": True}
        store.record(arrived())
        assert store.pending("broker", 100)[-1][0] > 600


@pytest.mark.parametrize("size", [0, 100, PAGE, 3 * PAGE])
def test_a_truncated_database_opens_and_says_so(folder: Path, size: int) -> None:
    with (folder / "events.db").open("r+b") as file:
        file.truncate(size)
    with Store(folder) as store:
        store.record(arrived(), JPEG)
        assert store.state.events >= 1
        expected = "the database was removed or lost" if size == 0 else "moved aside"
        assert any(expected in each for each in store.state.problems)


def test_a_removed_database_is_said(folder: Path) -> None:
    (folder / "events.db").unlink()
    with Store(folder) as store:
        assert store.state.problems == ("there are crops but no events: the database was removed or lost",)


def test_damage_while_running_is_one_sentence_and_mended_by_the_next_start(folder: Path) -> None:
    with Store(folder) as store:
        for page in pages_of(folder, "events")[10:20]:
            overwrite(folder / "events.db", page * PAGE, PAGE)
        with pytest.raises(CorruptStoreError, match=r"the database is damaged .*restart to salvage it"):
            store.recent(10_000)
    with Store(folder) as store:
        assert "moved aside" in store.state.problems[0]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_is_taken_away_while_open_is_written_anew(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture, replaced: bool
) -> None:
    other = tmp_path_factory.mktemp("other")
    Store(other).close()
    with Store(folder) as store:
        store.record(arrived())  # in the log
        store.recent()
        (folder / "events.db").unlink()
        if replaced:
            (other / "events.db").rename(folder / "events.db")
        store.record(arrived(), JPEG)
        with Reader(folder) as reader:
            assert sum(1 for _ in reader.events()) == 602
            assert reader.examine() == []
        assert (len(store.recent(1000)), store.backlog("broker")) == (602, 152)
        (said,) = store.state.problems
        assert said.startswith("the database was removed or replaced while it was open: its 601 events")
        assert said in caplog.text
        assert len(aside(folder)) == replaced
        store.retain()
    with Store(folder) as store:
        assert store.state.events == 602 + 2  # the two that had not left


def test_a_folder_that_is_gone_is_said_and_recording_goes_on_when_it_is_back(folder: Path) -> None:
    event, away = arrived(), folder.with_name("away")
    with Store(folder) as store:
        folder.rename(away)
        for _ in range(2):
            with pytest.raises(StoreError, match="was removed or replaced while it was open, and cannot be written"):
                store.record(event)
        away.rename(folder)
        store.record(event)
        assert store.state.events == 601
        assert store.state.problems == ()


@pytest.mark.parametrize("table", ["events", "tracks", "deliveries", "gaps", "effort", "days"])
def test_a_lost_table_is_damage(folder: Path, table: str, caplog: pytest.LogCaptureFixture) -> None:
    connection = sqlite3.connect(folder / "events.db")
    connection.execute(f"DROP TABLE {table}")
    connection.close()
    with Reader(folder) as reader:
        assert f"the database is damaged: {table} is missing in it" in reader.examine()
    with Store(folder) as store:
        saved = 0 if table == "events" else 600
        assert store.state.events == saved
        assert f"({table} is missing in it) and moved aside" in store.state.problems[0]
        assert f"{saved} events salvaged" in caplog.text
        assert store.sinks() == ([] if table == "deliveries" else ["broker"])


def test_crops_behind_a_symbolic_link_are_refused(folder: Path) -> None:
    (folder / "crops").rename(folder / "real")
    (folder / "crops").symlink_to(folder / "real")
    with pytest.raises(UsageError, match="the folder of the crops is a symbolic link"):
        Store(folder)


@pytest.mark.parametrize("taken", ["log", "link"])
def test_a_log_that_is_removed_or_a_database_that_is_moved_loses_nothing(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, taken: str
) -> None:
    copy = tmp_path_factory.mktemp("copy") / "data"
    with Store(folder) as store:
        store.record(arrived())
        if taken == "log":
            (folder / "events.db-wal").unlink()
        else:
            (folder / "events.db").rename(folder / "moved.db")
            (folder / "events.db").symlink_to("moved.db")
        store.record(arrived())
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*-shm", "*.lock"))  # as a kill would leave it
        assert "written into a new one" in store.state.problems[0]
    with Reader(copy) as reader:
        assert sum(1 for _ in reader.events()) == 602


def test_a_database_that_is_taken_away_again_and_again_loses_nothing(folder: Path) -> None:
    stop, recorded = threading.Event(), 0

    def take_away() -> None:
        while not stop.wait(0.001):
            (folder / "events.db").unlink(missing_ok=True)

    with Store(folder) as store:
        thief = threading.Thread(target=take_away)
        thief.start()
        for _ in range(40):
            with contextlib.suppress(StoreError):
                store.record(arrived())
                recorded += 1
        stop.set()
        thief.join()
        store.record(arrived())
        assert store.state.events == 601 + recorded
        with Reader(folder) as reader:
            assert sum(1 for _ in reader.events()) == 601 + recorded
            assert reader.examine() == []
