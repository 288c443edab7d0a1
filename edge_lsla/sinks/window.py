"""A preview window through OpenCV; where its errors are translated."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from edge_lsla.errors import EdgeLslaError, MissingComponentError
from edge_lsla.sinks.annotate import annotated
from edge_lsla.sinks.observed import Observed

LARGEST = (1280, 720)  # pixels of the window on opening; it can be resized
QUIT_KEYS = frozenset({ord("q"), ord("Q"), 27})
PROBE_SECONDS = 15
# Qt ends the whole process when it cannot reach the display, so that is tried in another one first.
PROBE = "import cv2; cv2.namedWindow('edge-lsla', cv2.WINDOW_NORMAL); cv2.destroyAllWindows()"


class Window:
    """Shows observations as they come; `q`, Esc or closing the window sets the stop event.

    All calls come from one thread, best the main one.

    Args:
        title: of the window.
        stop: set when the user closes the window.

    Raises:
        MissingComponentError: there is no display, or no OpenCV that can show windows (on entering).
    """

    def __init__(self, title: str, stop: threading.Event | None = None) -> None:
        self.title = title
        self.stop = stop or threading.Event()
        self._cv2: Any = None
        self._open = False

    @staticmethod
    def available() -> tuple[bool, str]:
        """Say whether a window can be shown, and why not; the answer is kept for the process."""
        return _available(os.environ.get("DISPLAY", ""), os.environ.get("WAYLAND_DISPLAY", ""))

    def __enter__(self) -> Window:
        able, reason = self.available()
        if not able:
            raise MissingComponentError(f"no preview window: {reason}", None, "save a video, or print lines instead")
        import cv2

        self._cv2 = cv2
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._open = False
            with contextlib.suppress(self._cv2.error):  # the user may have closed it
                self._cv2.destroyWindow(self.title)
                self._cv2.waitKey(1)

    def write(self, observation: Observed) -> None:
        """Show one frame; does nothing once the user has closed the window.

        Raises:
            EdgeLslaError: the display went away.
        """
        if self.stop.is_set():
            return
        pixels = annotated(observation)
        with _window_errors(self.title):
            if not self._open:
                self._create(pixels.shape[1], pixels.shape[0])
            elif self._cv2.getWindowProperty(self.title, self._cv2.WND_PROP_VISIBLE) < 1:
                self.stop.set()
                return
            self._cv2.imshow(self.title, np.ascontiguousarray(pixels[:, :, ::-1]))  # OpenCV wants blue first
            if self._cv2.waitKey(1) & 0xFF in QUIT_KEYS:
                self.stop.set()

    def _create(self, width: int, height: int) -> None:
        cv2 = self._cv2
        cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
        cv2.resizeWindow(self.title, round(width * scale), round(height * scale))
        self._open = True


@functools.lru_cache(maxsize=8)
def _available(display: str, wayland: str) -> tuple[bool, str]:
    if not display and not wayland:
        return False, "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    try:
        import cv2
    except ImportError:
        return False, "OpenCV is not installed; `pip install av opencv-python` brings it"
    framework = getattr(cv2, "currentUIFramework", lambda: "unknown")()
    if not framework:
        return False, "this OpenCV has no windows (opencv-python-headless); opencv-python has them"
    try:
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False, f"the display {display or wayland} does not answer"
    if probe.returncode != 0:
        return False, f"the display {display or wayland} cannot be reached"
    return True, f"{framework} on {display or wayland}"


@contextlib.contextmanager
def _window_errors(title: str) -> Iterator[None]:
    """Turn what OpenCV raises while showing into one sentence."""
    import cv2

    try:
        yield
    except cv2.error as error:
        reason = str(getattr(error, "err", "") or error).strip().splitlines()[-1]
        raise EdgeLslaError(f"the preview window failed ({reason})", title, "go on without it") from error
