"""Packages are validated with frictionless against the tables of Camtrap DP 1.0.2, and against its profile."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from record_parts import JPEG, NOON, arrived, left, watched

from edge_lsla.errors import UsageError
from edge_lsla.records.camtrap import Survey, export_camtrap
from edge_lsla.records.camtrap_fields import SAMPLING_DESIGNS, TABLES, table_schema
from edge_lsla.records.reader import Reader
from edge_lsla.records.store import Store

BERLIN = Survey({"": (52.52, 13.405)}, names={"ant": "Formicidae"}, title="Orchard")
# What camtrap-dp-profile.json of 1.0.2 demands beyond a Data Package.
PROFILE: dict[str, Any] = {
    "type": "object",
    "required": ["resources", "profile", "created", "contributors", "project", "spatial", "temporal", "taxonomic"],
    "properties": {
        "resources": {
            "minItems": 3,
            "items": {
                "required": ["name", "path", "profile", "schema"],
                "properties": {
                    "name": {"enum": ["deployments", "media", "observations"]},
                    "profile": {"enum": ["tabular-data-resource"]},
                    "schema": {"type": "string", "pattern": r"1\.0\.2"},
                },
            },
        },
        "profile": {"type": "string", "pattern": r"1\.0\.2/camtrap-dp-profile\.json$"},
        "contributors": {
            "minItems": 1,
            "items": {
                "required": ["title"],
                "properties": {
                    "role": {"enum": ["contact", "principalInvestigator", "rightsHolder", "publisher", "contributor"]}
                },
            },
        },
        "project": {
            "required": ["title", "samplingDesign", "captureMethod", "individualAnimals", "observationLevel"],
            "properties": {
                "title": {"type": "string"},
                "samplingDesign": {"enum": list(SAMPLING_DESIGNS)},
                "captureMethod": {
                    "minItems": 1,
                    "uniqueItems": True,
                    "items": {"enum": ["activityDetection", "timeLapse"]},
                },
                "individualAnimals": {"type": "boolean"},
                "observationLevel": {"items": {"enum": ["media", "event"]}},
            },
        },
        "spatial": {"required": ["type", "coordinates"], "properties": {"type": {"const": "MultiPoint"}}},
        "temporal": {
            "required": ["start", "end"],
            "properties": {key: {"pattern": r"^\d{4}-\d\d-\d\d$"} for key in ("start", "end")},
        },
        "taxonomic": {"type": "array", "items": {"required": ["scientificName"]}},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cameras, a pause of a day, an individual outside of any effort, and one that is still there."""
    with Store(tmp_path) as store:
        for began in (NOON, NOON + 100, NOON + 86_400):
            store.add_effort(watched(began, began + 100))
        store.add_effort(watched(NOON, NOON + 50, "trap-2"))
        ant, moth, fly = arrived(NOON + 10), arrived(NOON + 20, "moth", "trap-2"), arrived(NOON - 5000, "unknown")
        late = arrived(NOON + 86_410, "=cmd()")
        store.record_many([(ant, JPEG), (left(ant), JPEG), (moth, JPEG), (left(moth), None), (fly, None), (late, JPEG)])
        yield tmp_path


def export(folder: Path, output: Path, survey: Survey = BERLIN, *span: float) -> dict[str, int]:
    with Reader(folder) as reader:
        return export_camtrap(reader, output, survey, *span)


def table(package: Path, name: str) -> list[dict[str, str]]:
    with (package / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def validate(package: Path) -> None:
    """Validate a package; the standard's schemas are replaced by ours, since nothing can be fetched."""
    import jsonschema
    from frictionless import Package, system

    descriptor = json.loads((package / "datapackage.json").read_text(encoding="utf-8"))
    jsonschema.validate(descriptor, PROFILE)
    for resource in descriptor["resources"]:
        assert resource["schema"].endswith(f"/1.0.2/{resource['name']}-table-schema.json")
        resource["schema"] = table_schema(resource["name"])
    del descriptor["profile"]
    with system.use_context(trusted=True):
        report = Package(descriptor, basepath=str(package)).validate()
    assert report.valid, report.flatten(["type", "message"])
    assert report.stats["tasks"] == 3


def test_a_package_is_valid(folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    assert export(folder, package) == {"deployments": 4, "media": 4, "observations": 8}
    validate(package)
    for name, columns in TABLES.items():
        assert list(table(package, name)[0]) == [column[0] for column in columns]
    assert all((package / row["filePath"]).read_bytes() == JPEG for row in table(package, "media"))
    assert not list(tmp_path.glob(".package*"))


def test_effort_becomes_deployments(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "package")
    first, later, other, none = table(tmp_path / "package", "deployments")
    assert (first["deploymentStart"], first["deploymentEnd"]) == ("2026-05-28T20:26:40Z", "2026-05-28T20:30:00Z")
    assert "effort_seconds:200 | frames:6000 | frames_dropped:14" in first["deploymentTags"]
    assert (first["cameraID"], other["cameraID"]) == ("trap-1", "trap-2")
    assert first["timestampIssues"] == "false"
    assert later["deploymentStart"].startswith("2026-05-29")
    assert none["deploymentID"] == "trap-1-without-effort"
    assert none["timestampIssues"] == "true"


def test_a_package_names_its_device(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "package", Survey({"": (52.52, 13.405)}, device="orchard|3"))
    validate(tmp_path / "package")
    rows = table(tmp_path / "package", "deployments")
    assert [row["deploymentID"].startswith("orchard|3-trap-") for row in rows] == [True] * 4
    assert rows[0]["deploymentTags"].startswith("device:orchard 3 | effort_seconds:200 | ")
    assert rows[3]["deploymentTags"] == "device:orchard 3"


def test_individuals_are_observations_that_can_be_summed(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "package")
    rows = table(tmp_path / "package", "observations")
    events = {row["observationTags"]: row for row in rows if row["observationLevel"] == "event"}
    assert sum(int(row["count"]) for row in events.values()) == 4
    assert events["label:ant"]["scientificName"] == "Formicidae"
    assert (events["label:ant"]["eventStart"], events["label:ant"]["eventEnd"]) == (
        *("2026-05-28T20:26:50Z", "2026-05-28T20:26:55Z"),
    )
    assert events["label:moth"]["scientificName"] == ""
    assert events["label:unknown"]["observationType"] == "unknown"
    assert {row["count"] for row in rows if row["observationLevel"] == "media"} == {""}


def test_a_zip_file_holds_the_same(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "package.zip")
    (tmp_path / "unpacked").mkdir()
    with zipfile.ZipFile(tmp_path / "package.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "unpacked")
    validate(tmp_path / "unpacked")


def test_a_span_is_exported_alone(folder: Path, tmp_path: Path) -> None:
    rows = {"deployments": 1, "media": 1, "observations": 2}
    assert export(folder, tmp_path / "package", BERLIN, NOON + 86_000) == rows
    validate(tmp_path / "package")


def test_the_validation_of_this_test_can_fail(folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    export(folder, package)
    path = package / "observations.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("trap-2-", "trap-3-"), encoding="utf-8")
    with pytest.raises(AssertionError, match="foreign-key"):
        validate(package)


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "package"
    with pytest.raises(UsageError, match="needs the place of each camera: trap-2"):
        export(folder, output, Survey({"trap-1": (0.0, 0.0)}))
    with pytest.raises(UsageError, match="nothing was recorded in this time"):
        export(folder, output, BERLIN, NOON + 1e7)
    with pytest.raises(UsageError, match="no such folder"):
        export(folder, tmp_path / "missing" / "package")
    assert not output.exists()
    output.mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export(folder, output)
    with pytest.raises(UsageError, match="latitude"):
        Survey({"": (91.0, 0.0)})
    with pytest.raises(UsageError, match="sampling design"):
        Survey({}, sampling_design="at random")
    assert not list(tmp_path.glob(".package*"))
