from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from record_parts import JPEG, NOON, arrived, left, visits, watched
from typer.testing import CliRunner

from edge_lsla.records.device_name import keep_device
from edge_lsla.records.store import Store
from edge_lsla.verbs.records import records_app

GUIDE = Path(__file__).parents[2] / "docs" / "in-the-field.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store(tmp_path) as store:
        visits(store, 3)
        store.add_effort(watched(NOON, NOON + 300))
    return tmp_path


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(records_app, [str(each) for each in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_list_shows_the_newest_first(folder: Path) -> None:
    with Store(folder) as store:
        hostile = arrived(NOON + 1000, "moth\x1b[2J\n")
        store.record_many([(hostile, None), (left(hostile), None)])
    code, out, _ = call("list", folder, "--limit", 2)
    assert code == 0
    assert out.splitlines() == [
        r"2026-05-28T20:43:25.000Z  left     trap-1: moth\x1b[2J\n 90%",
        r"2026-05-28T20:43:20.000Z  arrived  trap-1: moth\x1b[2J\n 75%",
    ]
    code, out, _ = call("list", folder, "--json")
    assert len(json.loads(out.splitlines()[-1])["events"]) == 8


@pytest.mark.parametrize(("name", "form"), [("a.csv", "csv"), ("a.jsonl", "jsonl"), ("a.zip", "camtrap-dp")])
def test_export_takes_the_format_from_the_name(folder: Path, tmp_path: Path, name: str, form: str) -> None:
    place = ["--place", "52.5,13.4"] if form == "camtrap-dp" else []
    code, out, err = call("export", folder, "-o", tmp_path / name, "--json", *place)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["format"] == form
    assert (tmp_path / name).stat().st_size > 100


def test_export_takes_times_in_utc(folder: Path, tmp_path: Path) -> None:
    since = ["--since", "2026-05-28T20:27:40", "--until", "2026-05-28T22:27:45+02:00"]
    assert call("export", folder, "-o", tmp_path / "a.csv", *since)[0] == 0
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert [row["time"] for row in csv.DictReader(file)] == ["2026-05-28T20:27:40.000Z"]


def test_check_finds_what_is_missing(folder: Path) -> None:
    code, out, _ = call("check", folder)
    assert (code, "the records are whole" in out) == (0, True)
    lost, _, _ = sorted(folder.glob("crops/*/*/*/*.jpg"))
    lost.rename(lost.with_name("stray.jpg"))
    code, _, err = call("check", folder)
    assert code == 1
    assert "1 events name a crop that is not there; 1 files among the crops belong to no event" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "{}/nothing"], "no records in this folder"),
        (["export", "{}", "-o", "{}/a.xyz"], "unknown format"),
        (["export", "{}", "-o", "{}/a.csv", "--since", "yesterday"], "not a time"),
        (["export", "{}", "-o", "{}/events.db", "--format", "csv"], "would lie among the records"),
        (["export", "{}", "-o", "{}/crops/a.csv"], "would lie among the records"),
        (["export", "{}", "-o", "{}/device.json", "--format", "jsonl"], "would lie among the records"),
        (["export", "{}", "-o", "{}/a.csv", "--what", "pauses"], "use events, effort, gaps"),
        (["export", "{}", "-o", "{}/a.zip", "--place", "1,2", "--what", "effort"], "a data package is exported whole"),
        (["export", "{}", "-o", "{}/a.csv", "--device", "a\x1bb"], "not the name of a device"),
        (["export", "{}", "-o", "{}/a.csv", "--device", ""], "not the name of a device"),
        (["export", "{}", "-o", "{}/a.csv", "--device", "my trap"], "not the name of a device: 'my trap'"),
        (["export", "{}", "-o", "{}/a.csv", "--place", "1,2"], "this is for a data package: --place; leave it out"),
        (["export", "{}", "-o", "{}/a.jsonl", "--name", "a=b"], "this is for a data package: --name; leave it out"),
        (
            ["export", "{}", "-o", "{}/a.csv", "--since", "2026-05-02", "--until", "2026-05-01"],
            "no time lies in between: --since and --until",
        ),
        (["export", "{}", "-o", "{}/a.zip"], "needs the place of each camera"),
        (["export", "{}", "-o", "{}/a.zip", "--place", "somewhere"], "not a place"),
        (["export", "{}", "-o", "{}/a.zip", "--place", "1,2", "--name", "ant"], "write LABEL=SCIENTIFIC NAME"),
    ],
)
def test_mistakes_are_one_sentence(folder: Path, arguments: list[str], says: str) -> None:
    code, _, err = call(*(each.replace("{}", str(folder)) for each in arguments))
    assert code == 2
    assert says in err
    assert "Traceback" not in err


def test_a_crop_is_exported_as_it_was_recorded(folder: Path, tmp_path: Path) -> None:
    options = ["--format", "camtrap-dp", "--place", "trap-1=52.5,13.4", "--name", "ant=Formicidae", "--public"]
    assert call("export", folder, "-o", tmp_path / "package", *options)[0] == 0
    assert [path.read_bytes() for path in (tmp_path / "package" / "media").iterdir()] == [JPEG] * 3


def test_effort_and_gaps_are_exported_with_the_device(folder: Path, tmp_path: Path) -> None:
    keep_device(folder, "orchard-3")
    code, out, err = call("export", folder, "-o", tmp_path / "effort.csv", "--what", "effort", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["rows"] == {"effort": 1}
    with (tmp_path / "effort.csv").open(encoding="utf-8", newline="") as file:
        [span] = csv.DictReader(file)
    assert (span["seconds"], span["device"]) == ("300.0", "orchard-3")
    code, out, _ = call("export", folder, "-o", tmp_path / "gaps.jsonl", "--what", "gaps")
    assert (code, "0 gaps" in out) == (0, True)
    assert call("export", folder, "-o", tmp_path / "a.csv", "--device", "other")[0] == 0
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert {row["device"] for row in csv.DictReader(file)} == {"other"}
    place = ["--place", "52.5,13.4", "--format", "camtrap-dp"]
    assert call("export", folder, "-o", tmp_path / "package", *place)[0] == 0
    assert "orchard-3-trap-1-" in (tmp_path / "package" / "deployments.csv").read_text(encoding="utf-8")


def test_what_was_written_is_said_in_words(folder: Path, tmp_path: Path) -> None:
    code, out, _ = call("export", folder, "-o", tmp_path / "e.csv", "--what", "effort")
    assert (code, "e.csv: 1 span of effort\n" in out, "give --device" in out) == (0, True, True)
    keep_device(folder, "orchard-3")
    code, out, _ = call("export", folder, "-o", tmp_path / "a.csv")
    assert (code, "a.csv: 6 events\n" in out, "give --device" in out) == (0, True, False)


def test_the_documented_rate_is_individuals_by_hours_watched(folder: Path, tmp_path: Path) -> None:
    keep_device(folder, "orchard-3")
    with Store(folder) as store:
        store.add_effort(watched(NOON + 86_400, NOON + 86_400 + 1800))  # a day on which nobody came
        mistaken = arrived(NOON + 200, "bee")  # after four frames; of all of them, it was a fly
        store.record_many([(mistaken, None), (left(mistaken, label="fly"), None)])
        store.record(arrived(NOON + 250, "moth"))  # and is still there
    for name, what in (("season.csv", "events"), ("effort.csv", "effort")):
        assert call("export", folder, "-o", tmp_path / name, "--what", what)[0] == 0
    [program] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    told = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == [
        "orchard-3 trap-1 2026-05-28 0.08 h 60.0 individuals an hour {'ant': 3, 'fly': 1, 'moth': 1}",  # 5 in 300 s
        "orchard-3 trap-1 2026-05-29 0.50 h 0.0 individuals an hour {}",
    ]
