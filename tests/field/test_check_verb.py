"""`run --check` as a user meets it: what it says first, what later, and what it cannot look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_mistakes_of_the_file_come_before_what_it_names(command: Any, configured: Callable[..., Path]) -> None:
    path = configured(more='colour = "red"\n')
    path.write_text(path.read_text().replace('source = "synthetic"', 'source = "/dev/video97"'))
    outcome = command("run", path, "--check")
    assert outcome.code == 2
    assert (
        "colour: no such key; correct this first: the files and models that it names are looked at afterwards"
        in (outcome.json["error"])
    )
    assert "afterwards" not in command("run", path).json["error"]
    path.write_text(path.read_text().replace('colour = "red"', ""))
    assert "no such camera: /dev/video97" in command("run", path, "--check").json["error"]


def test_a_credential_of_another_machines_unit_is_not_checked(command: Any, configured: Callable[..., Path]) -> None:
    secret = "/run/credentials/edge-lsla-of-nowhere.service/mqtt-password"
    path = configured(more=f'[mqtt]\nhost = "b"\nusername = "u"\npassword_file = "{secret}"\n')
    outcome = command("run", path, "--check")
    assert outcome.code == 0
    (line,) = outcome.json["not_checked"]
    assert line.startswith(f"not checked: {secret} is handed over by systemd")
    assert "mqtt: b port 8883" in " ".join(outcome.json["checks"])
    missing = configured(more='[mqtt]\nhost = "b"\nusername = "u"\npassword_file = "/run/of-mine"\n')
    assert command("run", missing, "--check").code == 2
