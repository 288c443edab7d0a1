"""Records as a Camera Trap Data Package (Camtrap DP 1.0.2), the exchange format of biodiversity data.

A span of watching is a deployment, so that counts can be divided by effort; a crop is a medium; an individual is an
observation of level `event` with count 1, and each of its crops one of level `media`.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from edge_lsla.atomic import atomic_path
from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.records import durable
from edge_lsla.records.camtrap_fields import BASE, PROFILE, SAMPLING_DESIGNS, TABLES
from edge_lsla.records.deployments import Deployments
from edge_lsla.records.exports import harmless, utc
from edge_lsla.records.reader import Reader
from edge_lsla.records.rows import UNKNOWN

AddMedium = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Survey:
    """What the records do not know of themselves.

    Attributes:
        places: latitude and longitude in degrees (WGS 84) of each source; "" stands for all others.
        title: of the project.
        contributor: who publishes the data.
        sampling_design: one of `SAMPLING_DESIGNS`.
        names: scientific name of each label that has one.
        public: whether the crops may be shown to everybody.
        device: the device's name; None where it is not known.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    places: Mapping[str, tuple[float, float]]
    title: str = "Insect camera"
    contributor: str = "the operator of the camera"
    sampling_design: str = "opportunistic"
    names: Mapping[str, str] = field(default_factory=dict)
    public: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        for latitude, longitude in self.places.values():
            if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
                raise UsageError("latitude is -90 to 90 degrees, longitude -180 to 180", "places", "correct it")
        if self.sampling_design not in SAMPLING_DESIGNS:
            raise UsageError("unknown sampling design", "sampling_design", f"one of {', '.join(SAMPLING_DESIGNS)}")

    def place(self, source: str) -> tuple[float, float]:
        """Return where a source stands.

        Raises:
            UsageError: that is not told.
        """
        found = self.places.get(source, self.places.get(""))
        if found is None:
            raise UsageError("Camtrap DP needs the place of each camera", source, "give its latitude and longitude")
        return found


def export_camtrap(
    reader: Reader, output: Path, survey: Survey, since: float | None = None, until: float | None = None
) -> dict[str, int]:
    """Write a data package: a new folder, or a zip file where the name ends so; it is whole or absent.

    Args:
        reader: the records.
        output: where to.
        survey: see `Survey`.
        since, until: seconds since the epoch; individuals that arrived in between, and their crops.

    Returns:
        the rows of each table.

    Raises:
        UsageError: there is nothing to export, a place is missing, or the output cannot be written.
        StoreError: the records cannot be read.
    """
    with _package(output) as (folder, add):
        deployments = Deployments(reader.effort_spans(), since, until, survey.device)
        rows = {"media": 0, "observations": 0}
        with _table(folder, "media") as media, _table(folder, "observations") as observations:
            for individual in reader.individuals(since, until):
                observations.writerow(_individual(individual, deployments, survey))
                rows["observations"] += 1
            for event in reader.events(since, until):
                crop = reader.crop_at(event["crop"]) if event["crop"] else None
                if crop is not None:
                    name = f"media/{event['id']}.jpg"
                    add(name, crop)
                    deployment = deployments.of(event["source"], event["time"], event["time"])
                    media.writerow(_medium(event, name, deployment, survey))
                    observations.writerow(_crop(event, deployment, survey))
                    rows["media"] += 1
                    rows["observations"] += 1
        used = deployments.rows(survey.place)
        if not used:
            raise UsageError("nothing was recorded in this time", reader.folder, "give another time")
        with _table(folder, "deployments") as table:
            table.writerows(used)
        package = json.dumps(_describe(used, survey), indent=2, ensure_ascii=False) + "\n"
        (folder / "datapackage.json").write_text(package, encoding="utf-8")
    return {"deployments": len(used), **rows}


def seconds_utc(time: float) -> str:
    """Return a time as the standard writes it, such as 2026-05-01T12:00:00Z."""
    return utc(time).partition(".")[0] + "Z"


def _individual(individual: dict[str, Any], deployments: Deployments, survey: Survey) -> dict[str, object]:
    event = individual["event"] or {}
    ended = max(individual["ended"] or individual["began"], individual["began"])
    return {
        "observationID": individual["track"],
        "deploymentID": deployments.of(individual["source"], individual["began"], ended),
        "eventID": individual["track"],
        "eventStart": seconds_utc(individual["began"]),
        "eventEnd": seconds_utc(ended),
        "observationLevel": "event",
        "count": 1,
        **_classified(individual["label"], event, survey),
    }


def _crop(event: dict[str, Any], deployment: str, survey: Survey) -> dict[str, object]:
    return {
        "observationID": event["id"],
        "deploymentID": deployment,
        "mediaID": event["id"],
        "eventID": event["track"],
        "eventStart": seconds_utc(event["time"]),
        "eventEnd": seconds_utc(event["time"]),
        "observationLevel": "media",
        **_classified(event["label"] or UNKNOWN, event, survey),
    }


def _medium(event: dict[str, Any], name: str, deployment: str, survey: Survey) -> dict[str, object]:
    return {
        "mediaID": event["id"],
        "deploymentID": deployment,
        "captureMethod": "activityDetection",
        "timestamp": seconds_utc(event["time"]),
        "filePath": name,
        "filePublic": str(survey.public).lower(),
        "fileName": name.rpartition("/")[2],
        "fileMediatype": "image/jpeg",
        "mediaComments": f"cut out of the frame at {event['box']}" if event["box"] else None,
    }


def _classified(label: str, event: Mapping[str, Any], survey: Survey) -> dict[str, object]:
    engine = event.get("engine")
    return {
        "observationType": "unknown" if label == UNKNOWN else "animal",
        "scientificName": harmless(survey.names.get(label)),
        "classificationMethod": "machine",
        "classifiedBy": f"edge-lsla {engine}" if engine else "edge-lsla",
        "classificationTimestamp": seconds_utc(event["time"]) if event else None,
        "classificationProbability": event.get("confidence"),
        "observationTags": f"label:{label.replace('|', ' ')}",
    }


def _describe(used: list[dict[str, object]], survey: Survey) -> dict[str, Any]:
    """Return the package's descriptor."""
    points = sorted({(row["longitude"], row["latitude"]) for row in used}, key=str)
    starts, ends = (sorted(str(row[key])[:10] for row in used) for key in ("deploymentStart", "deploymentEnd"))
    return {
        "resources": [
            {
                "name": name,
                "path": f"{name}.csv",
                "profile": "tabular-data-resource",
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "schema": f"{BASE}{name}-table-schema.json",
            }
            for name in TABLES
        ],
        "profile": PROFILE,
        "name": "edge-lsla-records",
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "title": survey.title,
        "contributors": [{"title": survey.contributor, "role": "contact"}],
        "project": {
            "title": survey.title,
            "samplingDesign": survey.sampling_design,
            "captureMethod": ["activityDetection"],
            "individualAnimals": False,  # a track is one visit, not a recognisable animal
            "observationLevel": ["media", "event"],
        },
        "spatial": {"type": "MultiPoint", "coordinates": [list(point) for point in points]},
        "temporal": {"start": starts[0], "end": ends[-1]},
        "taxonomic": [{"scientificName": name} for name in sorted(set(survey.names.values()))],
    }


@contextlib.contextmanager
def _table(folder: Path, name: str) -> Iterator[csv.DictWriter[str]]:
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        yield _writer(file, name)


def _writer(file: TextIO, name: str) -> csv.DictWriter[str]:
    writer = csv.DictWriter(file, [column[0] for column in TABLES[name]], lineterminator="\n")
    writer.writeheader()
    return writer


@contextlib.contextmanager
def _package(output: Path) -> Iterator[tuple[Path, AddMedium]]:
    """Give a folder for the tables and a way to add media; the package appears when all is written."""
    if not output.parent.is_dir():
        raise UsageError("no such folder to write into", output.parent, "create it first")
    zipped = output.suffix.lower() == ".zip"
    if output.exists() and not zipped:
        raise UsageError("the output exists already", output, "give a new folder, or a name that ends in .zip")
    try:
        folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".part"))
    except OSError as error:
        raise UsageError(f"cannot write into the folder ({error.strerror})", output.parent, "choose another") from error
    try:
        if zipped:
            with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                yield folder, archive.writestr
                for table in sorted(folder.iterdir()):
                    archive.write(table, table.name, zipfile.ZIP_DEFLATED)
        else:
            (folder / "media").mkdir()
            yield folder, lambda name, data: _write(folder / name, data)
            folder.chmod(0o755)
            os.sync()  # thousands of files at once
            folder.rename(output)
            durable.sync_folder(output.parent)
    except OSError as error:
        raise EdgeLslaError("cannot write", output, f"{error.strerror}; free some space or choose another") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
