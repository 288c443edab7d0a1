"""Reports as files: HTML for people, and JSON beside it for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from calibration.report.data import ReportData
from calibration.report.fields import from_plain, to_plain
from calibration.report.page import render
from edge_lsla.atomic import check_output, write_text
from edge_lsla.errors import UsageError
from edge_lsla.reading import read_json

FORMAT = "edge-lsla calibration report"
VERSION = 1


def write_report(data: ReportData, path: str | os.PathLike[str]) -> None:
    """Write `path`, an HTML file, and the same name with .json; each is whole or absent, and depends on `data` only.

    Raises:
        UsageError: the path does not end in .html, or cannot be written.
        EdgeLslaError: the disk is full or fails.
        MissingComponentError: matplotlib is absent.
    """
    page = Path(path)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError("a report is an HTML file", page, "give a name that ends in .html")
    check_output(page)
    html = render(data)
    write_text(page.with_suffix(".json"), to_json(data))
    write_text(page, html)


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
