"""Sections about the build: the search, size and speed, how it was made; each is None where its data is absent."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from calibration.report import plots
from calibration.report.data import ReportData
from calibration.report.elements import Child, either_width, folded, section, table, tag
from calibration.report.wording import (
    ABSENT,
    count,
    number,
    percent,
    span,
)


def search(data: ReportData) -> Element | None:
    """Show the way of the search."""
    if not data.search:
        return None
    kept = sum(step.accepted for step in data.search)
    rows = [
        (
            str(place + 1),
            step.change or ABSENT,
            percent(100 * step.int8_share, 1),
            number(step.drop, 2),
            span(step.interval),
            "kept" if step.accepted else "rejected",
        )
        for place, step in enumerate(data.search)
    ]
    heads = ("step", "tried", "in INT8", "points lost", "95 % interval", "then")
    return section(
        "search",
        "How the mix was found",
        "The search looks for as much INT8 as the budget allows. Each dot is one mix of precisions that was measured: "
        f"further right is cheaper, higher up loses more. {count(len(data.search), 'mix', 'mixes')} "
        f"tried, {kept} kept. These losses were measured on other pictures than the verdict.",
        *either_width(lambda width: plots.search(data.search, data.verdict.budget, width)),
        folded("All steps in numbers", table(heads, rows, "in order", "cards")),
    )


def costs(data: ReportData) -> Element | None:
    """Show sizes and latencies."""
    sized = [form for form in data.forms if form.size is not None]
    timed = [form for form in data.forms if form.latency_ms is not None]
    if not sized and not timed:
        return None
    where = f" Times are those of {data.timed_on}; on another device they differ." if data.timed_on else ""
    return section(
        "costs",
        "Size and speed",
        f"What the loss buys: shorter bars are better.{where}",
        tag(
            "div",
            tag("div", tag("h3", "Size of the file"), plots.sizes(sized)) if sized else None,
            tag("div", tag("h3", "Time for one batch"), plots.latencies(timed)) if timed else None,
            class_="beside",
        ),
    )


def making(data: ReportData) -> Element | None:
    """Say how the build was made."""
    made = data.making
    if not (made.facts or made.digests or made.versions):
        return None
    parts: list[Child] = [tag("h2", "How it was made")]
    for caption, rows, class_ in (
        ("Calibration", made.facts, None),
        ("Digests: which files and data this report is about (SHA-256)", made.digests, "digest"),
        ("Versions", made.versions, None),
    ):
        if rows:
            body = [tag("tr", tag("th", name, scope="row"), tag("td", value, class_=class_)) for name, value in rows]
            parts.append(tag("table", tag("caption", caption), tag("tbody", *body), class_="facts"))
    return tag("section", *parts, id="making")
