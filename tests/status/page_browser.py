"""The status page in headless Chromium, which reaches nothing but loopback."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from chromium import ARGUMENTS, SECONDS, Chromium, find_chromium

PROGRAM = find_chromium()
WINDOWS = {"phone": (360, 800), "desktop": (1280, 900)}
FITS = "document.documentElement.scrollWidth <= innerWidth"
LOOPBACK_ONLY = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # the last of its kind is what counts
# The chart is drawn, and the answers are shown.
READY = """
(document.querySelector('.chart svg') || document.querySelector('.chart .empty')) !== null
    && document.querySelectorAll('#recent article').length > 0
    && document.querySelectorAll('#health table').length > 0"""
LOOK_AT_ALL = """
new Promise(async (done) => {
    for (let y = 0; y < document.documentElement.scrollHeight; y += 300) {
        scrollTo(0, y);
        await new Promise((next) => setTimeout(next, 30));
    }
    scrollTo(0, 0);
    setTimeout(done, 300);
})"""


class PageBrowser(Chromium):
    """Chromium that opens addresses, waits for what a page does by itself, and knows what went wrong in it."""

    def __init__(self, program: str, profile: Path) -> None:
        with patch("chromium.ARGUMENTS", (*ARGUMENTS, LOOPBACK_ONLY)):
            super().__init__(program, profile)

    def visit(self, address: str, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Open an address in a window of so many CSS pixels, and wait until it is loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.media(scheme=scheme)
        self.call("Page.navigate", url="about:blank")  # the page before this one asks no more
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not self.named("Page.loadEventFired"):
            self.events.append(self._next())

    def show(self, address: str, window: str = "desktop", scheme: str = "light") -> None:
        """Open the status page, and wait until the service's answers stand on it."""
        self.visit(address, *WINDOWS[window], scheme)
        self.until(READY)
        self.until("document.querySelector('#tiles b')?.textContent !== '\\u2013'")

    def until(self, expression: str, seconds: float = SECONDS) -> Any:
        """Wait until something is so in the page, and return it."""
        end = time.monotonic() + seconds
        while not (found := self.evaluate(expression)):
            assert time.monotonic() < end, f"it did not come true: {expression}\n{self.complaints()}\n{self.text()}"
            time.sleep(0.05)
        return found

    def text(self) -> str:
        """Return what stands on the page."""
        return str(self.evaluate("document.body.innerText"))

    def fetched(self) -> list[str]:
        """Return the addresses that the page asked for, those of pictures inside it aside."""
        asked = [event["request"]["url"] for event in self.named("Network.requestWillBeSent")]
        return [address for address in asked if not address.startswith(("data:", "blob:"))]

    def complaints(self) -> list[Any]:
        """Return whatever the browser had to say against the page."""
        names = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded")
        return [event for name in names for event in self.named(name)]
