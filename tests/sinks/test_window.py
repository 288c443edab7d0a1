import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_lsla.errors import MissingComponentError
from edge_lsla.sinks import window
from edge_lsla.sinks.window import Window


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    window._available.cache_clear()
    yield
    window._available.cache_clear()


def has_windows() -> bool:
    cv2 = pytest.importorskip("cv2")
    return bool(getattr(cv2, "currentUIFramework", lambda: "")())


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if not has_windows():
        pytest.skip("this OpenCV has no windows (opencv-python-headless)")
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24"], pass_fds=[write], stderr=subprocess.DEVNULL
    )
    os.close(write)
    with os.fdopen(read) as pipe:
        name = ":" + pipe.readline().strip()
    monkeypatch.setenv("DISPLAY", name)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    yield name
    server.terminate()
    server.wait(10)


def test_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    able, reason = Window.available()
    assert not able
    assert "no display" in reason
    with pytest.raises(MissingComponentError, match="no display"), Window("x"):
        pass


def test_no_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.setitem(sys.modules, "cv2", None)
    able, reason = Window.available()
    assert not able
    assert "pip install av opencv-python" in reason


def test_a_display_that_is_gone_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    able, reason = Window.available()
    assert not able
    assert "cannot be reached" in reason if has_windows() else "no windows" in reason


def test_a_window_shows_frames_and_closes_on_q(display: str, tmp_path: Path) -> None:
    """In a process of its own: Qt keeps the display it first met."""
    script = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from observations import observation
from edge_lsla.sinks.window import Window
assert Window.available()[0], Window.available()
stop = threading.Event()
begin = time.monotonic()
with Window("beetles", stop) as shown:
    number = 0
    while not stop.is_set() and time.monotonic() - begin < 15:
        shown.write(observation(number % 60, size=(640, 480)))
        number += 1
        if number == 20:
            print("shown", flush=True)
        time.sleep(0.02)
    shown.write(observation(0))  # after closing: nothing happens
print("stopped" if stop.is_set() else "not stopped", number)
"""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "shown"
    if shutil.which("xdotool") is None:
        process.kill()
        process.communicate()
        pytest.skip("no xdotool to press a key")
    threading.Event().wait(0.3)
    begin = time.monotonic()
    while process.poll() is None and time.monotonic() - begin < 10:
        subprocess.run(["xdotool", "search", "--name", "beetles", "windowfocus", "key", "q"], check=False)
        time.sleep(0.3)
    out, _ = process.communicate(timeout=20)
    assert out.startswith("stopped")
    assert process.returncode == 0
