"""A short replay of recorded writes, cut off by a power cut; `make field-power-cuts` runs the long one."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.power_cuts import record, replay
from benchmarks.recorded_writes import Operation
from benchmarks.torn_disk import Disk


def can_trace() -> bool:
    return shutil.which("strace") is not None and subprocess.run(["strace", "-o/dev/null", "true"]).returncode == 0


needs_strace = pytest.mark.skipif(not can_trace(), reason="strace is missing, or may not trace here")


@needs_strace
def test_no_promised_event_is_lost_and_the_store_opens(tmp_path: Path) -> None:
    operations = record(tmp_path, events=6)
    kinds = {operation.kind for operation in operations}
    assert kinds == {"create", "write", "resize", "sync", "rename", "remove", "folder", "said"}
    assert any(o.kind == "write" and o.path == "events.db" and o.offset for o in operations)  # a checkpoint
    assert any(o.kind == "remove" and o.path.startswith("crops/") for o in operations)  # retention
    assert any(o.target.startswith("events.corrupt-") for o in operations)  # salvage
    found = replay(operations, seeds=2, every=9)
    assert found.failures == []
    assert found.states > 200


@needs_strace
@pytest.mark.parametrize(
    ("how", "finding"),
    [
        ("log never synced", "lost: "),
        ("log not synced at commits", "lost: "),
        ("crops not synced", "crop lost or damaged"),
        ("names not synced", "crop lost or damaged"),
    ],
)
def test_the_replay_notices_a_missing_safeguard(tmp_path: Path, how: str, finding: str) -> None:
    found = replay(record(tmp_path, 3, how, phases=1), seeds=2, every=5, most_failures=10_000)
    assert any(finding in failure for failure in found.failures), found


def test_the_disk_keeps_what_was_synced_and_nothing_else() -> None:
    disk = Disk()
    for operation in (
        *(Operation("create", "a"), Operation("write", "a", b"old"), Operation("sync", "a"), Operation("sync", "")),
        *(
            Operation("write", "a", b"new"),
            Operation("create", "b"),
            Operation("write", "b", b"x"),
            Operation("sync", "b"),
        ),
        Operation("rename", "a", target="c"),
    ):
        disk.apply(operation)
    choice = random.Random(0)
    assert disk.after_cut("lost", "lost", choice) == {"a": b"old"}
    assert disk.after_cut("lost", "kept", choice) == {"b": b"x", "c": b"old"}
    assert disk.after_cut("kept", "kept", choice) == {"b": b"x", "c": b"new"}
    torn = {tuple(sorted(disk.after_cut("torn", "torn", random.Random(seed)).items())) for seed in range(200)}
    assert torn == {
        tuple(sorted([(name, content), *more]))
        for name in "ac"
        for content in (b"old", b"new")
        for more in ([], [("b", b"x")])
    }
    disk.apply(Operation("sync", ""))
    assert disk.after_cut("lost", "lost", choice) == {"b": b"x", "c": b"old"}


def test_a_file_that_grew_may_hold_anything_but_what_was_synced_stays() -> None:
    disk = Disk()
    synced, later = b"s" * 1000, b"n" * 2000
    for operation in (
        *(Operation("create", "a"), Operation("write", "a", synced), Operation("sync", "a"), Operation("sync", "")),
        *(Operation("write", "a", later, 1000), Operation("resize", "a", offset=2500)),
    ):
        disk.apply(operation)
    states = [disk.after_cut("torn", "kept", random.Random(seed))["a"] for seed in range(100)]
    assert all(state is not None and state[:1000] == synced for state in states)
    assert len(set(states)) > 20
    assert {len(state or b"") for state in states} >= {1000, 2500, 3000}
