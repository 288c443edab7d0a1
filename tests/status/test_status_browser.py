"""The page in a real browser that reaches only loopback: whole, readable, and nothing but text is inserted."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_browser import FITS, LOOK_AT_ALL, PROGRAM, WINDOWS, PageBrowser
from PIL import Image
from status_parts import HOSTILE, FieldView, served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
]
PICTURES = "[...document.images].filter(one => !one.hidden).map(one => one.complete ? one.naturalWidth : 0)"
UNFOLD = "document.querySelector('details').open = true; document.querySelector('.more').click()"
LEAST_TEXT = 11  # CSS pixels


@pytest.mark.parametrize(("window", "scheme"), [("phone", "dark"), ("desktop", "light"), ("desktop", "dark")])
def test_the_page_is_whole_and_fits(
    browser: PageBrowser, field: tuple[FieldView, str], window: str, scheme: str, tmp_path: Path
) -> None:
    view, address = field
    browser.show(address, window, scheme)
    assert browser.evaluate(FITS)
    browser.evaluate(UNFOLD)
    browser.evaluate(LOOK_AT_ALL)
    browser.until(f"(({PICTURES}).length === 26) && Math.min(...{PICTURES}) > 0")  # two cameras, 24 individuals
    assert browser.evaluate(FITS)
    smallest = (
        "Math.min(...[...document.querySelectorAll('main *')].map(one => parseFloat(getComputedStyle(one).fontSize)))"
    )
    assert browser.evaluate(smallest) >= LEAST_TEXT
    text = browser.text()
    for part in (*view.health()["problems"], "3 problems", "trap-1", "Camera lost: the stream ended", "ant",
                 "A new model was refused", "pests-2026-06 (manifest 77aa77aa77aa, fp16)",
                 "pests-2026-05 (file f11ef11ef11e, artifact 9f2c41d07a9f, int8)", "orchard-3: insects, counted",
                 "field-mqtt", "connection refused", "61.5 °C", "9f2c41d07a9f2c41", "f11ef11ef11ef11e", "6.4 GB",
                 "at most 15 frames/s (warm: 61.5 °C)", "12 days", "18.91", "312 MB", "synchronised",
                 "int8", "other labels", "256 pictures of 90,210 crops drawn, at most 256"):  # fmt: skip
        assert part in text
    assert "timed out" not in text  # an error that is over
    assert browser.evaluate("document.title") == "orchard-3 · edge-lsla"
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.width == WINDOWS[window][0]
        ground = shot.convert("RGB").getpixel((2, 2))
        assert sum(ground) > 3 * 230 if scheme == "light" else sum(ground) < 3 * 40
        assert len(shot.convert("RGB").resize((64, 512)).getcolors(1 << 16) or ()) > 500  # it is not blank
    assert browser.complaints() == []
    assert {one for one in browser.fetched() if not one.startswith(address)} == set()
    assert browser.evaluate("document.querySelectorAll('script').length") == 1


@pytest.mark.parametrize("window", list(WINDOWS))
def test_hostile_names_are_shown_as_text(browser: PageBrowser, window: str) -> None:
    with served(FieldView(HOSTILE)) as port:
        browser.show(f"http://127.0.0.1:{port}/", window)
        browser.evaluate(UNFOLD)
        browser.evaluate(LOOK_AT_ALL)
        browser.until(f"({PICTURES}).length > 10 && Math.min(...{PICTURES}) > 0")
        text = browser.evaluate("document.body.textContent")
        for name in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[4], HOSTILE[5], HOSTILE[6]):
            assert name in text
        assert browser.evaluate(
            "window.hacked === undefined && !document.querySelector('main script, [onload], [onerror]')"
        )
        assert (
            browser.evaluate("document.querySelectorAll('#counts .key').length") == 8
        )  # "__proto__" is a label like others
        assert browser.evaluate(FITS)
        assert browser.complaints() == []


def test_even_our_own_script_cannot_insert_html(browser: PageBrowser, field: tuple[FieldView, str]) -> None:
    """The policy of the page would stop what slipped in, and these tests would notice."""
    browser.show(field[1])
    insert = "(() => { try { document.body.innerHTML = '<b>x</b>' } catch (error) { return error.name } })()"
    assert browser.evaluate(insert) == "TypeError"
    load = "const s = document.createElement('img'); s.src = 'http://example.com/x.png'; document.body.append(s)"
    browser.evaluate(load)
    browser.until("true")
    browser.evaluate("new Promise((done) => setTimeout(done, 200))")
    assert len(browser.complaints()) >= 2
