"""The page: head, headline, and the sections that have something to show."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from xml.etree.ElementTree import Element

from calibration.report import answers, choices, layers, plots
from calibration.report.data import ReportData
from calibration.report.elements import tag, to_html
from calibration.report.wording import TIMES, number, percent, span, title

STYLE = Path(__file__).with_name("report.css")

SECTIONS = (
    answers.accuracy,
    answers.classes,
    answers.flips,
    layers.sensitivity,
    layers.histograms,
    layers.curves,
    choices.search,
    choices.costs,
    choices.making,
)
INTRODUCTION = (
    "A network is a long chain of multiplications. In FP32 every number takes four bytes and has about seven digits. "
    "In INT8 it takes one byte: each value is rounded to one of 256 even steps. That is smaller and often faster, but "
    "the rounding changes the results a little. Calibration shows real pictures to the network and chooses, layer by "
    "layer, the range that those 256 steps cover. This page shows what that cost, and where. (The drawing has far "
    "fewer steps, so that they can be seen.)"
)


def render(data: ReportData) -> str:
    """Return a report as one HTML document without scripts; style, pictures and drawings are inside it."""
    found = [part for make in SECTIONS if (part := make(data)) is not None]
    links = [tag("a", part[0].text, href=f"#{part.get('id')}") for part in found]
    main = tag(
        "main",
        *_headline(data),
        _tiles(data),
        _warnings(data),
        tag("nav", *links, aria_label="sections") if links else None,
        tag(
            "section",
            tag("h2", "What INT8 is"),
            tag("div", tag("p", INTRODUCTION), tag("div", plots.rounding()), class_="beside"),
        ),
        *found,
    )
    return to_html(tag("html", _head(data), tag("body", main), lang="en"))


def _head(data: ReportData) -> Element:
    style = STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # Nothing is loaded but pictures inside the page, no script runs, and no style but this one.
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    sheet = Element("style")
    sheet.text = style
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"Calibration report: {data.model}"),
        sheet,
    )


def _headline(data: ReportData) -> list[Element]:
    first, *others = data.verdict.sentences
    if data.verdict.forced:
        mark = tag("span", "forced past the gate", class_="mark bad")
    elif data.verdict.shipped is None:
        mark = tag("span", "nothing ships", class_="mark bad")
    else:
        mark = tag("span", f"{title(data.verdict.shipped)} ships", class_="mark good")
    over = tag("p", f"Calibration report of {data.model}", class_="over")
    return [over, tag("h1", first), tag("p", mark), *(tag("p", sentence) for sentence in others)]


def _tiles(data: ReportData) -> Element | None:
    """Show the four numbers of the form that ships beside the reference."""
    form, reference = data.shipped, data.reference
    if form is None or reference is None or form is reference:
        return None
    name, other = title(form.name), title(reference.name)
    tiles: list[tuple[str, str]] = []
    if form.top1 is not None:
        tiles.append((percent(form.top1), f"right answers in {name} ({other}: {percent(reference.top1)})"))
    if form.drop is not None:
        lost = f"points lost (95 %: {span(form.drop_interval)})" if form.drop_interval else "points lost"
        tiles.append((number(form.drop, 2), lost))
    if form.size and reference.size:
        tiles.append((f"{number(100 * form.size / reference.size, 0)} %", f"of the size of {other}"))
    if form.latency_ms and reference.latency_ms:
        tiles.append((f"{number(reference.latency_ms / form.latency_ms, 2)}{TIMES}", f"as fast as {other}"))
    return tag("div", *(tag("div", tag("b", value), tag("span", text)) for value, text in tiles), class_="tiles")


def _warnings(data: ReportData) -> Element | None:
    if not data.making.warnings:
        return None
    items = [tag("li", text) for text in data.making.warnings]
    return tag("section", tag("h2", "Read with care"), tag("ul", *items), class_="warnings", id="warnings")
