"""`run` with cameras whose sources are in files: one that is wrong keeps no other from watching, and is read again."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from field_parts import Start, end, get, health, wait_for, wait_until

# Not the pauses of the field, so that the file is soon read again.
CAMERA = """
[[cameras]]
name = "secret"
source_file = "{file}"
[cameras.opening]
size = [160, 120]
rate = 30
[cameras.supervision]
longest_pause_seconds = 0.5
"""


def camera(port: str, name: str) -> dict[str, Any]:
    return next(one for one in health(port)["cameras"] if one["name"] == name)


@pytest.mark.parametrize("alone", [False, True], ids=["beside another", "alone"])
def test_a_camera_whose_file_is_wrong_watches_once_it_is_right(
    process: Start, configured: Callable[..., Path], tmp_path: Path, alone: bool
) -> None:
    file = tmp_path / "source"
    file.write_text("rtsp//admin:hunter2@camera/1\n")
    path = configured(more=CAMERA.format(file=file))
    if alone:
        path.write_text(re.sub(r'(?s)\[\[cameras\]\]\nname = "trap-1".*(?=\[status\])', "", path.read_text()))
    service = process("run", path)
    port = wait_for(service, r"http://127\.0\.0\.1:([0-9]+)/")[1]
    wait_until(lambda: camera(port, "secret")["last_error"])
    assert camera(port, "secret")["last_error"].startswith("the file does not name a source that can be opened: ")
    assert any(one.startswith("camera secret does not watch, ") for one in health(port)["problems"])
    assert [one["name"] for one in health(port)["cameras"]] == (["secret"] if alone else ["trap-1", "secret"])
    if not alone:
        wait_until(lambda: camera(port, "trap-1")["watching"])
    assert b"hunter2" not in get(port, "/api/health")[1]
    file.unlink()
    wait_until(lambda: "No such file" in (camera(port, "secret")["last_error"] or ""))
    file.write_text("synthetic\n")
    wait_until(lambda: camera(port, "secret")["watching"])
    wait_until(lambda: get(port, "/live/secret.jpg")[0] == 200)
    assert camera(port, "secret")["gaps"] == 1
    code, _, error = end(service, signal.SIGTERM)
    assert code == 0
    assert error.count("camera secret does not watch: the file does not name a source") == 1
    assert "hunter2" not in error


def test_check_says_it(command: Any, configured: Callable[..., Path], tmp_path: Path) -> None:
    outcome = command("run", configured(more=CAMERA.format(file=tmp_path / "absent")), "--check")
    assert outcome.code == 2
    assert (
        f"camera secret: cannot read the camera's source: {tmp_path / 'absent'}; No such file" in outcome.json["error"]
    )
