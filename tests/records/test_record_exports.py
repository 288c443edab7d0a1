from __future__ import annotations

import csv
import itertools
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from record_parts import JPEG, NOON, arrived, left, visits, watched

from edge_lsla.errors import UsageError
from edge_lsla.events import Event, Gap
from edge_lsla.records.device_name import FILE, keep_device, read_device
from edge_lsla.records.exports import COLUMNS, export_csv, export_jsonl, utc
from edge_lsla.records.reader import CHUNK, Reader
from edge_lsla.records.store import Store


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_an_event(tmp_path: Path) -> None:
    event = arrived(NOON + 0.25, "lady beetle")
    with Store(tmp_path) as store:
        store.record_many([(event, JPEG), (left(event), None), (Event("model", NOON + 9, details={"slot": "b"}), None)])
    with Reader(tmp_path) as reader:
        assert export_csv(reader, tmp_path / "out.csv") == 3
    come, _, model = rows_of(tmp_path / "out.csv")
    expected = {"seq": "1", "id": event.id, "kind": "arrived", "time": "2026-05-28T20:26:40.250Z", "source": "trap-1"}
    expected |= {"track": event.track, "label": "lady beetle", "confidence": "0.75"}
    expected |= {"left": "1", "top": "2", "right": "31", "bottom": "42", "engine": "e" * 64, "clock": "synchronised"}
    expected |= {"crop": f"crops/2026/05/28/{event.id}.jpg", "details": "", "device": ""}
    assert come == expected
    assert tuple(come) == COLUMNS["events"]
    assert (model["label"], model["left"], model["details"]) == ("", "", '{"slot": "b"}')


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "=\r\n1"])
def test_no_cell_is_a_formula(tmp_path: Path, label: str) -> None:
    with Store(tmp_path) as store:
        store.record(arrived(label=label, source=label, track=label))
    with Reader(tmp_path) as reader:
        export_csv(reader, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.reader(file))[1]
    assert [cells[COLUMNS["events"].index(name)] for name in ("source", "track", "label")] == [
        "'" + label.replace("\r\n", "  ")
    ] * 3


def test_json_lines_are_what_is_delivered_with_number_and_crop(tmp_path: Path) -> None:
    event = arrived(label="Käfer\n\"'")
    with Store(tmp_path) as store:
        store.record(event, JPEG)
    with Reader(tmp_path) as reader:
        assert export_jsonl(reader, tmp_path / "out.jsonl", device="orchard-3") == 1
    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    place = f"crops/2026/05/28/{event.id}.jpg"
    assert json.loads(line) == {"seq": 1, **event.to_dict(), "crop": place, "device": "orchard-3"}


def test_times_choose_events_and_every_chunk_is_read(tmp_path: Path) -> None:
    number = CHUNK + 7
    with Store(tmp_path) as store:
        visits(store, number, step=1.0, crop=None)
        with Reader(tmp_path) as reader:  # beside the service
            assert export_csv(reader, tmp_path / "all.csv") == 2 * number
            assert export_csv(reader, tmp_path / "some.csv", NOON + 10, NOON + 20) == 20
            assert len(list(reader.individuals(NOON + 10, NOON + 20))) == 10
            assert len({one["track"] for one in reader.individuals()}) == number
    assert len({row["id"] for row in rows_of(tmp_path / "all.csv")}) == 2 * number
    assert {row["time"][:19] for row in rows_of(tmp_path / "some.csv")} == {utc(NOON + s)[:19] for s in range(10, 20)}


def test_an_output_is_whole_or_absent(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        visits(store, 2)
    with Reader(tmp_path) as reader:
        with pytest.raises(UsageError, match="no such folder"):
            export_csv(reader, tmp_path / "missing" / "out.csv")
        reader.events = lambda *_: iter([{"seq": 1}])  # type: ignore[method-assign]  # breaks in the middle
        with pytest.raises(KeyError):
            export_csv(reader, tmp_path / "out.csv")
    assert not list(tmp_path.glob("*out.csv*"))


def test_times_outside_the_calendar_are_clamped() -> None:
    assert utc(0) == "1970-01-01T00:00:00.000Z"
    assert utc(1e300) == "9999-12-31T23:59:59.999Z"
    assert utc(-1e300) == "0001-01-01T00:00:00.000Z"


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    """Two cameras: three minutes watched by one, one by the other; a gap that ended, and one that lasts."""
    with Store(tmp_path) as store:
        for source, began in (("trap-2", NOON), ("trap-1", NOON), ("trap-1", NOON + 60), ("trap-1", NOON + 120)):
            store.add_effort(watched(began, began + 60, source))
        store.add_gap(Gap("trap-1", NOON + 180, NOON + 200.5, "=no frames", ("reopen", "new process"), 20.5))
        store.add_gap(Gap("trap-2", NOON + 60, None, "the stream ended"))
    return tmp_path


def test_effort_is_a_row_for_each_span_that_was_watched(spans: Path) -> None:
    with Reader(spans) as reader:
        assert export_csv(reader, spans / "effort.csv", what="effort", device="-orchard") == 4
        assert export_jsonl(reader, spans / "effort.jsonl", what="effort") == 4
    rows = rows_of(spans / "effort.csv")
    assert tuple(rows[0]) == COLUMNS["effort"]
    expected = {"source": "trap-1", "began": "2026-05-28T20:26:40.000Z", "ended": "2026-05-28T20:27:40.000Z"}
    expected |= {"seconds": "60.0", "frames": "1800", "dropped": "7", "engine": "e" * 64, "clock": "synchronised"}
    assert rows[0] == {**expected, "device": "'-orchard"}
    assert [row["source"] for row in rows] == ["trap-1"] * 3 + ["trap-2"]
    lines = [json.loads(line) for line in (spans / "effort.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["began"] for line in lines] == [NOON, NOON + 60, NOON + 120, NOON]
    assert set(lines[0]) == set(COLUMNS["effort"])


def test_effort_of_one_time_after_the_other_adds_up(spans: Path) -> None:
    ends = (None, NOON + 30, NOON + 60, NOON + 61, None)
    with Reader(spans) as reader:
        parts = [list(reader.effort_spans(*pair)) for pair in itertools.pairwise(ends)]
        assert [len(part) for part in parts] == [2, 0, 1, 1]
        assert sum(span.seconds for part in parts for span in part) == 240


def test_gaps_are_those_that_reach_into_the_time(spans: Path) -> None:
    with Reader(spans) as reader:
        assert export_csv(reader, spans / "gaps.csv", what="gaps") == 2
        assert [gap.source for gap in reader.gap_spans(NOON + 200, NOON + 300)] == ["trap-1", "trap-2"]
        assert [gap.source for gap in reader.gap_spans(NOON + 201)] == ["trap-2"]  # which lasts
        assert list(reader.gap_spans(None, NOON + 60)) == []
        assert export_jsonl(reader, spans / "gaps.jsonl", what="gaps", device="orchard") == 2
    ended, lasts = rows_of(spans / "gaps.csv")
    expected = {"source": "trap-1", "began": "2026-05-28T20:29:40.000Z", "ended": "2026-05-28T20:30:00.500Z"}
    expected |= {"seconds": "20.5", "reason": "'=no frames", "steps": "reopen, new process", "device": ""}
    assert ended == expected
    assert (lasts["ended"], lasts["steps"]) == ("", "")
    first = json.loads((spans / "gaps.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (first["steps"], first["device"]) == (["reopen", "new process"], "orchard")


def test_every_chunk_of_effort_is_read(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_effort(watched(NOON, NOON + 1))
    with closing(sqlite3.connect(tmp_path / "events.db")) as connection, connection:
        many = [("cam", NOON + n, NOON + n + 1, 1.0, 30, 0, "e" * 64, "synchronised") for n in range(CHUNK + 5)]
        connection.executemany("INSERT INTO effort VALUES (?, ?, ?, ?, ?, ?, ?, ?)", many)
    with Reader(tmp_path) as reader:
        assert len({(span.source, span.began) for span in reader.effort_spans()}) == CHUNK + 6


def test_the_device_is_kept_beside_the_records(tmp_path: Path) -> None:
    assert read_device(tmp_path) is None
    keep_device(tmp_path, "trap-1")
    keep_device(tmp_path, "trap-2")  # it was renamed
    assert read_device(tmp_path) == "trap-2"
    for damage in ("", "{", "[]", '{"device": 3}', '{"device": ""}', "\x00" * 5000):
        (tmp_path / FILE).write_text(damage)
        assert read_device(tmp_path) is None
        keep_device(tmp_path, "trap-2")
        assert read_device(tmp_path) == "trap-2"


def test_a_device_that_cannot_be_kept_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep_device(tmp_path / "gone", "trap-1")
    assert "exports will lack the device's name: no such folder to write into" in caplog.text
