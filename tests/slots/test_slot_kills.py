"""Killed at any step of an update, the slots name a whole model; nothing is put in place before it is on the disk."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_lsla.slots.settings import SlotSettings
from edge_lsla.slots.slots import Slots

HERE = Path(__file__).parent


def test_a_kill_at_every_step_leaves_a_model_to_answer_with(first: Path, second: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "kill_steps.py"), str(first), str(second), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    kills = [one for one in found if one["call"]]
    print(f"{len(kills)} kills, each left a model that opens")
    assert len(kills) > 50
    assert {one["call"] for one in kills} >= {"open", "fsync", "replace"}
    assert {one["active"] for one in kills} == {"first", "second"}
    assert {one["state"] for one in kills} == {"steady", "trial"}
    assert {one["again"] for one in found} == {"second"}  # the next update works
    # The model that is switched to changes once, with the trial, and never to one that was not installed whole.
    for ending in ("promote", "roll_back"):
        names = [one["active"] for one in kills if one["ending"] == ending]
        changes = sum(a != b for a, b in itertools.pairwise(names))
        assert changes == (1 if ending == "promote" else 2)
    ends = {one["ending"]: one for one in found if not one["call"]}
    assert (ends["promote"]["active"], ends["promote"]["state"]) == ("second", "steady")
    assert (ends["roll_back"]["active"], ends["roll_back"]["history"]) == ("first", "installed")


def test_what_is_put_in_place_is_on_the_disk_before(
    first: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut loses what was not flushed: a file goes before its rename, and the rename before what follows."""
    slots = Slots(tmp_path / "models", SlotSettings(spare_disk_mb=0))
    slots.install(first)
    steps: list[tuple[str, str]] = []

    def note(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            where = arguments[0]
            path = Path(f"/proc/self/fd/{where}").readlink() if isinstance(where, int) else Path(where)
            steps.append((name, path.name))
            if name == "replace":
                steps.append(("put", str(arguments[1])))
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace"):
        note(name)
    digest = slots.install(second).held.digest
    slots.begin_trial(digest)
    slots.roll_back("it is bad", digest)
    monkeypatch.undo()
    assert [what for name, what in steps if name == "put"] == ["b.lsla", "state.json", "state.json", "state.json"]
    flushed: set[str] = set()
    waiting = False
    for name, what in steps:
        if name == "replace":
            assert what in flushed, "renamed before it was flushed"
            assert not waiting, "another rename before the folder was flushed"
            waiting = True
        elif name == "fsync":
            flushed.add(what)
            waiting = waiting and what != "models"
    assert not waiting
