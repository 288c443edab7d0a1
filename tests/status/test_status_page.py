"""The page in a real browser: what it does by itself, with a service that is well, gone, or asks for a token."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from page_browser import FITS, PROGRAM, READY, WINDOWS, PageBrowser
from status_parts import TOKEN, FieldView, fetch, served

from edge_lsla.errors import EdgeLslaError

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
]


def test_all_well_is_said(browser: PageBrowser) -> None:
    with served(FieldView(problems=False)) as port:
        browser.show(f"http://127.0.0.1:{port}/")
        assert browser.evaluate("document.querySelector('#state').textContent") == "all well"
        assert browser.evaluate("document.querySelector('#problems').hidden && document.querySelector('#lost').hidden")
        assert browser.evaluate("document.querySelectorAll('#live .mark.good').length") == 2


def test_drift_needs_attention_and_is_no_failure(browser: PageBrowser) -> None:
    view = FieldView(problems=False)
    well = view.health
    drift = {"noted": ["block 3"], "sentence": "drift: 2 of 9 tensors leave their ranges"}
    view.health = lambda: {**well(), "drift": drift}  # type: ignore[method-assign]
    with served(view) as port:
        browser.show(f"http://127.0.0.1:{port}/")
        assert browser.evaluate("document.querySelector('#problems').textContent").count(drift["sentence"]) == 1
        assert browser.evaluate("document.querySelector('#state').textContent") == "1 problem"
        assert fetch(port, "/healthz").status == 200
        drift["noted"] = []
        browser.until("document.querySelector('#problems').hidden")


def test_another_span_of_time_is_shown_at_once(browser: PageBrowser, field: tuple[FieldView, str]) -> None:
    browser.show(field[1])
    bars = "document.querySelectorAll('.chart .touch').length"
    assert browser.evaluate(bars) in (24, 25)
    keys = browser.evaluate("document.querySelector('.keys').textContent")
    tile = browser.evaluate("document.querySelector('#tiles b').textContent")
    browser.evaluate("document.querySelectorAll('.choice button')[2].click()")
    browser.until(f"{bars} === 31 || {bars} === 30")
    assert browser.evaluate("document.querySelector('.keys').textContent") != keys
    assert browser.evaluate("document.querySelector('#tiles b').textContent") == tile  # still of 24 hours
    pressed = "[...document.querySelectorAll('.choice button')].map(one => one.getAttribute('aria-pressed'))"
    assert browser.evaluate(pressed) == ["false", "false", "true"]


def test_pictures_are_asked_for_only_while_they_are_seen(browser: PageBrowser, field: tuple[FieldView, str]) -> None:
    view, address = field
    asked = lambda: sum(one.startswith("picture") for one in view.asked)  # noqa: E731

    def more() -> None:
        before, end = asked(), time.monotonic() + 30
        while asked() < before + 4:
            assert time.monotonic() < end
            browser.evaluate("new Promise((done) => setTimeout(done, 50))")

    def at_rest() -> None:
        browser.evaluate("new Promise((done) => setTimeout(done, 600))")  # what is under way comes to its end
        before = asked()
        browser.evaluate("new Promise((done) => setTimeout(done, 1000))")  # time for four pictures
        assert asked() == before

    browser.show(address, "phone")
    browser.evaluate("document.querySelector('#live').scrollIntoView()")
    more()
    browser.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    at_rest()
    browser.evaluate("document.querySelector('#live').scrollIntoView()")
    more()
    hide = "Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }});"
    told = "document.dispatchEvent(new Event('visibilitychange'))"
    browser.evaluate(hide.format("true") + told)
    at_rest()
    browser.evaluate(hide.format("false") + told)
    more()


def test_a_service_that_is_gone_is_said_and_found_again(browser: PageBrowser) -> None:
    view = FieldView()
    with served(view) as port:
        browser.show(f"http://127.0.0.1:{port}/")
    browser.until("document.querySelector('#state')?.textContent === 'not reachable'")
    said = browser.evaluate("document.querySelector('#lost').textContent")
    assert said.startswith("The service cannot be reached. Its last answer came at ")
    assert said.endswith("What stands below is from before.")
    assert browser.evaluate("!document.querySelector('#lost').hidden && document.querySelector('#problems').hidden")
    with served(view, port=port):
        browser.until("document.querySelector('#state')?.textContent === '3 problems'")
        assert browser.evaluate("document.querySelector('#lost').hidden && !document.body.matches('.stale')")


def test_a_service_that_cannot_answer_says_why(browser: PageBrowser) -> None:
    class Closed(FieldView):
        def health(self) -> dict[str, object]:
            raise EdgeLslaError("the store is closed", "<b>events.sqlite</b>")

        recent = counts = lambda self, amount: self.health()  # type: ignore[assignment]

    with served(Closed()) as port:
        browser.visit(f"http://127.0.0.1:{port}/")
        browser.until("document.querySelector('#state')?.textContent === 'not reachable'")
        said = browser.evaluate("document.querySelector('#lost').textContent")
        assert "The service cannot say how it is: the store is closed: <b>events.sqlite</b>." in said


def test_signing_in(browser: PageBrowser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAP_TOKEN", TOKEN)
    with served(FieldView(), host="0.0.0.0", token_env="TRAP_TOKEN") as port:
        browser.visit(f"http://127.0.0.1:{port}/", *WINDOWS["phone"])
        browser.until("document.title.startsWith('Sign in')")
        assert browser.evaluate(FITS)
        assert browser.complaints() == []
        browser.screenshot(tmp_path / "sign-in.png")
        enter = "document.querySelector('#token').value = '{}'; document.querySelector('form').requestSubmit()"
        browser.evaluate(enter.format("not-the-token-of-the-orchard"))
        browser.until("document.querySelector('[role=alert]')?.textContent === 'That is not the token.'")
        browser.evaluate(enter.format(TOKEN))
        browser.until("location.pathname === '/' && " + READY)
        assert browser.evaluate("document.cookie") == ""
        assert TOKEN not in "".join(browser.fetched())
