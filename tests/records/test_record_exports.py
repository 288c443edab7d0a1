from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from record_parts import JPEG, NOON, arrived, left, visits

from edge_lsla.errors import UsageError
from edge_lsla.events import Event
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
    expected |= {"crop": f"crops/2026/05/28/{event.id}.jpg", "details": ""}
    assert come == expected
    assert tuple(come) == COLUMNS
    assert (model["label"], model["left"], model["details"]) == ("", "", '{"slot": "b"}')


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "=\r\n1"])
def test_no_cell_is_a_formula(tmp_path: Path, label: str) -> None:
    with Store(tmp_path) as store:
        store.record(arrived(label=label, source=label, track=label))
    with Reader(tmp_path) as reader:
        export_csv(reader, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.reader(file))[1]
    assert [cells[COLUMNS.index(name)] for name in ("source", "track", "label")] == [
        "'" + label.replace("\r\n", "  ")
    ] * 3


def test_json_lines_are_what_is_delivered_with_number_and_crop(tmp_path: Path) -> None:
    event = arrived(label="Käfer\n\"'")
    with Store(tmp_path) as store:
        store.record(event, JPEG)
    with Reader(tmp_path) as reader:
        assert export_jsonl(reader, tmp_path / "out.jsonl") == 1
    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"seq": 1, **event.to_dict(), "crop": f"crops/2026/05/28/{event.id}.jpg"}


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
