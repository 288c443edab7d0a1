"""Matplotlib's SVG as part of a page: the page's colours and font, no style of its own, the same bytes every time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, fromstring

from calibration.report.wording import plain
from edge_lsla.errors import MissingComponentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a drawing paints with. The page turns each into a CSS variable of that name, which differs in the dark.
COLOURS = {
    "ink": "#000001",
    "muted": "#000002",
    "line": "#000003",
    "good": "#000004",
    "bad": "#000005",
    "int8": "#000006",
    "fp16": "#000007",
    "fp32": "#000008",
    "band": "#000009",
}
_VARIABLES = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
TEXT = 12.0  # size of text, in CSS pixels where a drawing has its natural width


def draw(name: str, width: float, height: float, description: str, paint: Callable[[Figure], None]) -> Element:
    """Draw a figure of `width` by `height` CSS pixels as an <svg> element that scales with the page.

    Args:
        name: unique in the page; identifiers inside the SVG are made from it.
        description: what a reader hears who cannot see it.
        paint: fills the figure, with `COLOURS`.

    Raises:
        MissingComponentError: matplotlib is absent.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingComponentError("matplotlib is missing", "matplotlib", "pip install matplotlib") from error
    written = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser has the letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        matplotlib.rcdefaults()  # not the user's own style
        matplotlib.rcParams.update(_style(name))
        # A point is 1/72 inch and the unit of the SVG, so that sizes here are CSS pixels.
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    found = _bare(fromstring(written.getvalue()))
    root = Element("svg", {"viewBox": found.get("viewBox", ""), "role": "img", "aria-label": plain(description)})
    root.set("class", "drawing")
    root.extend(found)
    return root


def _style(name: str) -> dict[str, object]:
    edges = dict.fromkeys(("axes.edgecolor", "grid.color"), COLOURS["line"])
    texts = dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), COLOURS["muted"])
    return {
        **edges,
        **texts,
        "svg.hashsalt": name,
        "svg.fonttype": "none",  # text stays text: it can be searched, read aloud, and is small
        "text.parse_math": False,  # a label may hold dollar signs
        "text.color": COLOURS["ink"],
        "font.size": TEXT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "grid.linewidth": 1.0,
        "legend.frameon": False,
    }


def _bare(element: Element) -> Element:
    """Copy an element without XML namespaces, unused identifiers, metadata and style attributes."""
    root = Element(_local(element.tag))
    copies = [(element, root)]
    for source, copy in copies:  # grows while it is read
        for key, value in _attributes(source):
            copy.set(key, value)
        copy.text = source.text if copy.tag in ("text", "tspan") else None
        for child in source:
            name = _local(child.tag)
            if name not in ("metadata", "style", "title"):
                copied = Element(name)
                copy.append(copied)
                copies.append((child, copied))
    used = {name for entry in root.iter() for value in entry.attrib.values() for name in re.findall("#([^)]+)", value)}
    for entry in root.iter():
        if entry.get("id") not in used:
            entry.attrib.pop("id", None)
    return root


def _attributes(element: Element) -> Iterator[tuple[str, str]]:
    for name, value in element.attrib.items():
        if name != "style":
            yield _local(name), " ".join(value.split())
    for part in element.get("style", "").split(";"):
        name, _, value = (text.strip() for text in part.partition(":"))
        size = re.search(r"([\d.]+)px", value)
        if name == "font" and size:  # matplotlib before 3.11 writes size and family in one
            yield "font-size", size[1]
        elif name and name not in ("font", "font-family"):
            yield name, _VARIABLES.get(value, value)


def _local(name: str) -> str:
    return name.rpartition("}")[2]
