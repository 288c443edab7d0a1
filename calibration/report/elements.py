"""HTML as a tree: every text and attribute is escaped when the tree is written, so none can be forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

from calibration.report.wording import ABSENT, MINUS, NBSP, plain

NARROW, WIDE = 370.0, 900.0  # natural widths of drawings, in CSS pixels: a phone, and the whole page
NUMBER = f"{ABSENT}|[+{MINUS}]?[0-9][0-9.,]*({NBSP}[%A-Za-z]+| to {MINUS}?[0-9.,]+)?"

Child = Element | str | None


def tag(kind: str, /, *children: Child, **attributes: str | None) -> Element:
    """Make an element; None is left out, `class_` means class and `data_label` data-label."""
    element = Element(kind)
    for key, value in attributes.items():
        if value is not None:
            element.set(key.rstrip("_").replace("_", "-"), plain(value))
    for child in children:
        add(element, child)
    return element


def add(element: Element, child: Child) -> None:
    """Append an element or a text; None is left out."""
    if isinstance(child, Element):
        element.append(child)
    elif child is not None and len(element):
        element[-1].tail = (element[-1].tail or "") + plain(child)
    elif child is not None:
        element.text = (element.text or "") + plain(child)


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], caption: str, class_: str | None = None) -> Element:
    """Make a table; the first cell of a row is its heading, and every cell knows the heading of its column.

    A column is one of numbers if its first cell is: then it is set to the right, and never broken beside long names.
    """
    lines = [tuple(row) for row in rows]
    kinds = [None if _is_number(cell) else "words" for cell in lines[0]]
    headings = (tag("th", text, scope="col", class_=kind) for text, kind in zip(head, kinds))
    body = tag("tbody")
    for line in lines:
        cells = (
            tag("td", cell, data_label=text, class_="number" if _is_number(cell) else kind)
            for text, cell, kind in zip(head[1:], line[1:], kinds[1:])
        )
        body.append(tag("tr", tag("th", line[0], scope="row"), *cells))
    return tag("table", tag("caption", caption), tag("thead", tag("tr", *headings)), body, class_=class_)


def _is_number(cell: Child) -> bool:
    return isinstance(cell, str) and re.fullmatch(NUMBER, cell) is not None


def section(name: str, heading: str, text: str, *children: Child) -> Element:
    """Make a section with a heading and an explanation."""
    return tag("section", tag("h2", heading), tag("p", text), *children, id=name)


def folded(heading: str, *children: Child) -> Element:
    """Make a part that is closed until it is asked for."""
    return tag("details", tag("summary", heading), *children)


def either_width(drawing: Callable[[float], Element]) -> tuple[Element, Element]:
    """Make a drawing twice; the style sheet shows the one that suits the screen, so that its text stays readable."""
    return tag("div", drawing(WIDE), class_="wide"), tag("div", drawing(NARROW), class_="narrow")


def to_html(root: Element) -> str:
    """Return the document of an <html> element."""
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"
