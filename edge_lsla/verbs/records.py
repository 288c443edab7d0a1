"""The verbs `records export`, `records check` and `records list`; they read beside a running service."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edge_lsla.console import say, verb, visible
from edge_lsla.errors import UsageError

records_app = typer.Typer(help="Read what a service recorded.", no_args_is_help=True)
FORMATS = {"csv": ".csv", "jsonl": ".jsonl", "camtrap-dp": ".zip"}

Folder = Annotated[Path, typer.Argument(help="The folder of the records: `data` in the service's configuration.")]
Since = Annotated[
    Optional[str],
    typer.Option(help="From this time (UTC unless it says otherwise), like 2026-05-01 or 2026-05-01T12:00."),
]
Until = Annotated[Optional[str], typer.Option(help="To before this time.")]


@verb(records_app, "records export")
def records_export(
    folder: Folder,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; for camtrap-dp a .zip or a new folder.")
    ],
    form: Annotated[
        Optional[str], typer.Option("--format", help="csv, jsonl or camtrap-dp; default: by the output's name.")
    ] = None,
    what: Annotated[str, typer.Option(help="events; effort: what was watched; or gaps: what was not.")] = "events",
    since: Since = None,
    until: Until = None,
    device: Annotated[
        Optional[str], typer.Option(help="The device's name; default: what the service kept beside the records.")
    ] = None,
    place: Annotated[
        Optional[list[str]],
        typer.Option(help="For camtrap-dp: LATITUDE,LONGITUDE, or CAMERA=LATITUDE,LONGITUDE for each."),
    ] = None,
    name: Annotated[
        Optional[list[str]], typer.Option(help="For camtrap-dp: LABEL=SCIENTIFIC NAME, for each label that has one.")
    ] = None,
    title: Annotated[str, typer.Option(help="For camtrap-dp: the project.")] = "Insect camera",
    contributor: Annotated[str, typer.Option(help="For camtrap-dp: who publishes it.")] = "the operator of the camera",
    design: Annotated[str, typer.Option(help="For camtrap-dp: the sampling design.")] = "opportunistic",
    public: Annotated[bool, typer.Option("--public", help="For camtrap-dp: crops may be shown to everybody.")] = False,
) -> dict[str, Any]:
    """Write events, effort or gaps as CSV or JSON Lines, or all as a Camera Trap Data Package; whole or absent."""
    from edge_lsla.records.camtrap import Survey, export_camtrap
    from edge_lsla.records.device_name import FILE, NAME, read_device
    from edge_lsla.records.exports import COLUMNS, export_csv, export_jsonl
    from edge_lsla.records.reader import Reader

    form = form or {".csv": "csv", ".jsonl": "jsonl", ".zip": "camtrap-dp"}.get(output.suffix.lower())
    if form not in FORMATS:
        raise UsageError("unknown format of an export", form or output, f"use --format {', '.join(FORMATS)}")
    if what not in COLUMNS:
        raise UsageError(f"unknown table {what!r}", "--what", f"use {', '.join(COLUMNS)}")
    if form == "camtrap-dp" and what != "events":
        remedy = "leave --what out, or write a .csv: deployments.csv in the package has the effort"
        raise UsageError("a data package is exported whole", "--what", remedy)
    if device is not None and not NAME.fullmatch(device):
        remedy = "give it as `device` in the configuration: letters, digits, '.', '_' and '-', at most 64"
        raise UsageError(f"not the name of a device: {device[:80]!r}", "--device", remedy)
    if form != "camtrap-dp" and (place or name):
        remedy = "leave it out, or write a .zip"
        raise UsageError("this is for a data package", "--place" if place else "--name", remedy)
    inside = folder.resolve() in output.resolve().parents
    ours = output.name.startswith("events.") or output.name == FILE
    if inside and (ours or output.resolve().parent != folder.resolve()):
        raise UsageError("the output would lie among the records", output, "choose another folder")
    begin, end = _time(since, "--since"), _time(until, "--until")
    if begin is not None and end is not None and begin >= end:
        raise UsageError("no time lies in between", "--since and --until", "give an earlier --since")
    with Reader(folder) as reader:
        device = device or read_device(folder)
        if form == "camtrap-dp":
            names = dict(_pair(each, "--name", "LABEL=SCIENTIFIC NAME") for each in name or ())
            survey = Survey(_places(place or []), title, contributor, design, names, public, device)
            rows = export_camtrap(reader, output, survey, begin, end)
        else:
            export = export_csv if form == "csv" else export_jsonl
            rows = {what: export(reader, output, begin, end, what, device)}
    told = ", ".join(f"{number} {_counted(each, number)}" for each, number in rows.items())
    say().print(f"{visible(output)}: {told}")
    if device is None:
        say().print("the records do not say which device made them, and the table lacks it; give --device")
    return {"output": str(output), "format": form, "device": device, "rows": rows}


@verb(records_app, "records check")
def records_check(folder: Folder) -> dict[str, Any]:
    """Read all records and say what is wrong with them; exit code 1 where anything is."""
    from edge_lsla.records.failures import StoreError
    from edge_lsla.records.reader import Reader

    with Reader(folder) as reader:
        problems = reader.examine()
    if problems:
        what = "; ".join(problems)
        raise StoreError(what, folder, "the service mends its records when it starts", {"problems": problems})
    say().print(f"{visible(folder)}: the records are whole")
    return {"folder": str(folder), "problems": []}


@verb(records_app, "records list")
def records_list(
    folder: Folder, limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 20
) -> dict[str, Any]:
    """Print the last events, newest first."""
    from edge_lsla.records.exports import utc
    from edge_lsla.records.reader import Reader

    with Reader(folder) as reader:
        events = reader.recent(limit)
    for event in events:
        sure = "" if event["confidence"] is None else f" {event['confidence']:.0%}"
        about = f"{event['source']}: {event['label'] or ''}{sure}"
        say().print(f"{utc(event['time'])}  {event['kind']:8} {visible(about)}")
    return {"events": events}


def _counted(table: str, number: int) -> str:
    """Return what a table's rows are, in words."""
    if number == 1:
        return {"effort": "span of effort", "media": "medium"}.get(table, table[:-1])
    return "spans of effort" if table == "effort" else table


def _time(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    try:
        when = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"not a time: {text!r}", option, "write it like 2026-05-01 or 2026-05-01T12:00") from None
    return (when if when.tzinfo else when.replace(tzinfo=datetime.timezone.utc)).timestamp()


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UsageError(f"not understood: {text!r}", option, f"write {form}")
    return key, value


def _places(texts: list[str]) -> dict[str, tuple[float, float]]:
    places = {}
    for text in texts:
        source, _, numbers = text.rpartition("=")
        latitude, _, longitude = numbers.partition(",")
        try:
            places[source] = (float(latitude), float(longitude))
        except ValueError:
            raise UsageError(f"not a place: {text!r}", "--place", "write LATITUDE,LONGITUDE in degrees") from None
    return places
