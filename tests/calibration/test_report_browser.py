"""The report in a real browser without network: nothing is fetched or fails, it fits a phone and can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, find_chromium
from PIL import Image
from report_parts import HOSTILE, full_report

from calibration.report.write import write_report

PROGRAM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
]
DESKTOP, PHONE = 1280, 390
SMALLEST_TEXT = 8.5  # CSS pixels; below that, digits run together on a phone
OPEN_ALL = "document.querySelectorAll('details').forEach(part => { part.open = true })"
VISIBLE_TEXTS = """
[...document.querySelectorAll('svg text')].filter(text => text.getClientRects().length).map(text => {
    const box = text.getBoundingClientRect(), frame = text.ownerSVGElement.getBoundingClientRect();
    const scale = Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b);
    return {
        text: text.textContent,
        height: scale * parseFloat(getComputedStyle(text).fontSize),
        out: Math.max(frame.left - box.left, box.right - frame.right, frame.top - box.top, box.bottom - frame.bottom),
    };
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(str(PROGRAM), tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module", params=["plain", "hostile"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / f"{request.param}.html"
    write_report(full_report(HOSTILE) if request.param == "hostile" else full_report(), path)
    return path


def complaints(browser: Chromium) -> list[Any]:
    """Return whatever the browser had to say against the page."""
    names = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded")
    return [event for name in names for event in browser.named(name)]


def fetched(browser: Chromium) -> list[str]:
    """Return the addresses asked for that are not inside the page."""
    addresses = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
    return [address for address in addresses if not address.startswith("data:")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_is_whole_and_fits(browser: Chromium, report: Path, width: int, scheme: str, tmp_path: Path) -> None:
    browser.media(scheme=scheme)
    browser.open(report, width)
    assert complaints(browser) == []
    assert fetched(browser) == [report.as_uri()]
    widths = browser.evaluate("[...document.images].map(image => image.complete ? image.naturalWidth : 0)")
    assert len(widths) == 23  # of 24 flips, one has no picture
    assert min(widths) > 0
    assert browser.evaluate("window.hacked === undefined && document.scripts.length === 0")
    browser.evaluate(OPEN_ALL)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.width == width
        assert shot.height > 3000
        ground = shot.convert("RGB").getpixel((2, 2))
        assert sum(ground) > 3 * 230 if scheme == "light" else sum(ground) < 3 * 40
        assert len(shot.convert("RGB").resize((64, 512)).getcolors(1 << 16) or ()) > 500  # it is not blank


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_text_in_drawings_can_be_read_and_is_not_cut_off(browser: Chromium, report: Path, width: int) -> None:
    browser.media()
    browser.open(report, width)
    texts = browser.evaluate(VISIBLE_TEXTS)
    assert len(texts) > 100
    assert min(text["height"] for text in texts) >= SMALLEST_TEXT
    # A browser's own font is at most a little wider than the one that the layout was made for.
    assert [text for text in texts if text["out"] > 4] == []


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_only_the_drawings_for_this_width_are_shown(browser: Chromium, report: Path, width: int) -> None:
    browser.open(report, width)
    shown = browser.evaluate("[...document.querySelectorAll('svg')].filter(one => one.getClientRects().length).length")
    assert shown == 1 + 1 + 1 + 1 + 12 + 1 + 1 + 2


def test_drawings_follow_the_scheme(browser: Chromium, report: Path) -> None:
    inks = []
    for scheme in ("light", "dark"):
        browser.media(scheme=scheme)
        browser.open(report, DESKTOP)
        inks.append(browser.evaluate("getComputedStyle(document.querySelector('svg text')).fill"))
    assert len(set(inks)) == 2
    assert not any("var" in ink or ink == "rgb(0, 0, 0)" for ink in inks)


def test_printed_it_shows_what_is_folded(browser: Chromium, report: Path) -> None:
    browser.media("print")
    browser.open(report, 794)  # A4 at 96 dots an inch
    heights = browser.evaluate("[...document.querySelectorAll('details table')].map(one => one.offsetHeight)")
    assert len(heights) == 4
    assert min(heights) > 40
    assert browser.evaluate("document.documentElement.scrollWidth") <= 794
    browser.media()
    assert browser.pdf().startswith(b"%PDF")


def test_the_policy_would_stop_what_slipped_in(browser: Chromium, tmp_path: Path) -> None:
    """These tests can fail: the same checks notice a page that asks for more."""
    path = tmp_path / "report.html"
    write_report(full_report(), path)
    added = '<script>window.hacked = 1</script><img src="http://example.com/x.png"><p style="color: red">x</p></main>'
    path.write_text(path.read_text(encoding="utf-8").replace("</main>", added), encoding="utf-8")
    browser.open(path, DESKTOP)
    assert browser.evaluate("window.hacked === undefined")
    assert fetched(browser) == [path.as_uri(), "http://example.com/x.png"]
    assert [event.get("blockedReason") for event in browser.named("Network.loadingFailed")] == ["csp"]
    assert len(complaints(browser)) >= 3
    assert browser.evaluate("[...document.images].at(-1).naturalWidth") == 0


def test_a_page_without_the_policy_is_seen_to_ask_the_network(browser: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text('<!DOCTYPE html><title>x</title><img src="http://example.com/x.png">')
    browser.open(path, DESKTOP)
    assert "http://example.com/x.png" in fetched(browser)
    assert complaints(browser)
