"""Kills a process at every step of an update that touches the disk, and says what each left. Run by test_slot_kills.

Usage: kill_steps.py FIRST SECOND FOLDER. One child a step: it installs SECOND beside FIRST, begins its trial, and
promotes or rolls it back; before its n-th call that changes a file it is killed with SIGKILL. Prints a JSON list.
For each kill the name of the call, and how the next process found the slots.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_lsla.slots.settings import SlotSettings
from edge_lsla.slots.slots import Slots

SETTINGS = SlotSettings(spare_disk_mb=0)
CALLS = ("open", "fsync", "replace", "unlink", "mkdir")


def update(slots: Slots, second: Path, ending: str) -> None:
    digest = slots.install(second).held.digest
    slots.begin_shadow(digest)
    slots.begin_trial(digest)
    slots.start()
    if ending == "promote":
        slots.promote(digest, "it is good")
    else:
        slots.roll_back("it is bad", digest)
    slots.install(second)  # over the slot that was left, or nothing, being active


def killed_at(step: int, work: Callable[[], None], pipe: int) -> None:
    """Run `work` and end this process, without any of Python's clean-up, at its `step`-th call."""
    seen = 0

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            if name == "open" and not arguments[1] & os.O_CREAT:  # it reads
                return real(*arguments, **options)
            seen += 1
            if seen == step:
                os.write(pipe, name.encode())
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))
    work()


def main(first: Path, second: Path, folder: Path) -> None:
    prepared = folder / "prepared"
    Slots(prepared, SETTINGS).install(first)
    found = []
    for ending in ("promote", "roll_back"):
        step, call = 0, "x"
        while call:
            step += 1
            place = folder / f"{ending}-{step}"
            shutil.copytree(prepared, place)
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                killed_at(step, lambda: update(Slots(place, SETTINGS), second, ending), writer)  # noqa: B023
                os._exit(0)
            os.close(writer)
            call = os.read(reader, 100).decode()
            os.close(reader)
            status = os.waitpid(child, 0)[1]
            assert (os.WTERMSIG(status) if call else status) == (signal.SIGKILL if call else 0), (call, status)
            found.append({"ending": ending, "step": step, "call": call, **look(Slots(place, SETTINGS), second)})
            shutil.rmtree(place)
    print(json.dumps(found))


def look(slots: Slots, second: Path) -> dict[str, Any]:
    """Return what the next process makes of the slots: the model that it opens, and whether an update works again."""
    state = slots.start()
    assert state.active is not None
    slots.verified(state.active)
    others = [held for held in (state.candidate, state.previous) if held is not None]
    for held in others:
        slots.verified(held)
    if state.state == "trial":
        slots.roll_back("tried out", state.active.digest)
    again = slots.install(second).held
    slots.verified(again)
    return {"active": state.active.name, "state": state.state, "others": len(others), "again": again.name,
            "history": state.history[-1].what}  # fmt: skip


if __name__ == "__main__":
    main(*(Path(one) for one in sys.argv[1:]))
