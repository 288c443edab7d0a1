"""Reports as files: HTML for people, and JSON beside it for programs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from calibration.report.data import ReportData
from calibration.report.fields import from_plain, to_plain
from calibration.report.page import render
from edge_lsla.atomic import atomic_path, check_output
from edge_lsla.errors import UsageError
from edge_lsla.reading import read_json

FORMAT = "edge-lsla calibration report"
VERSION = 1


def check_report(path: str | os.PathLike[str]) -> None:
    """Refuse a place for a report before the work that it is about.

    Raises:
        UsageError: the path does not end in .html, cannot be written, or a .json of its name is there that no report
            wrote.
    """
    page = Path(path)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError("a report is an HTML file", page, "give a name that ends in .html")
    facts = page.with_suffix(".json")
    for file in (page, facts):
        check_output(file)
    if facts.exists():
        try:
            ours = read_json(facts, "report", UsageError).get("format") == FORMAT
        except (UsageError, AttributeError):
            ours = False
        if not ours:
            raise UsageError("the report's JSON would overwrite another file", facts, "choose another name or move it")


def write_report(data: ReportData, path: str | os.PathLike[str]) -> None:
    """Write `path`, an HTML file, and the same name with .json; each is whole or absent, and depends on `data` only.

    Raises:
        UsageError: see `check_report`.
        EdgeLslaError: the disk is full or fails.
        MissingComponentError: matplotlib is absent.
    """
    with pending_report(data, path):
        pass


@contextlib.contextmanager
def pending_report(data: ReportData, path: str | os.PathLike[str]) -> Iterator[None]:
    """Write a report aside, and put it in its place once what is done meanwhile is done; if that fails, nowhere.

    Raises:
        UsageError, EdgeLslaError, MissingComponentError: see `write_report`.
    """
    page = Path(path)
    check_report(page)
    html, facts = render(data), to_json(data)
    with atomic_path(page) as first, atomic_path(page.with_suffix(".json")) as second:
        for place, text in ((first, html), (second, facts)):
            # A file name that is no valid text is shown with escapes rather than lost.
            place.write_text(text, encoding="utf-8", errors="backslashreplace")
        yield


def to_json(data: ReportData) -> str:
    """Return a report as JSON; pictures are base64."""
    values = {"format": FORMAT, "version": VERSION, "report": to_plain(data)}
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def read_report(path: str | os.PathLike[str]) -> ReportData:
    """Read the JSON that `write_report` wrote.

    Raises:
        UsageError: the file is missing, corrupt, or of another format or version; the message names the field.
    """
    where = Path(path)
    fields = read_json(where, "report", UsageError)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT or fields.get("version") != VERSION:
        raise UsageError(f"not a calibration report of version {VERSION}", where, "write it again")
    return from_plain(ReportData, fields.get("report"))
