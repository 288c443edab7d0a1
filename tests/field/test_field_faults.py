"""What the field does to the service: a full and a read-only disk, a clock that jumps, a damaged store. Really done."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from field_parts import Start, end, health, rows, wait_for, wait_until

DAY = 86400
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
DATA_MB = 16
SMALL = "[records]\nkeep_free_mb = 0\n[slots]\nspare_disk_mb = 0\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB where the service's data lie."""
    folder = tmp_path / "data"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DATA_MB}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here: it needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk to its last block."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return path


def problem(port: str, text: str) -> bool:
    return any(text in one for one in health(port)["problems"])


def arrivals(data: Path) -> int:
    return int(rows(data, "SELECT count(*) FROM events WHERE kind = 'arrived'")[0][0])


def test_a_full_disk_loses_nothing(process: Start, configured: Callable[..., Path], small_disk: Path) -> None:
    service = process("run", configured(more=SMALL, regions="motion"))
    port = wait_for(service, r"http://127\.0\.0\.1:([0-9]+)/")[1]
    wait_until(lambda: health(port)["events"] > 0)
    filler = fill(small_disk)
    wait_until(lambda: problem(port, "are kept in memory") or problem(port, "without crops"))
    wait_until(lambda: problem(port, "are kept in memory"))
    waiting = health(port)["queues"]["events"]
    assert waiting > 0
    assert health(port)["cameras"][0]["watching"]
    filler.unlink()
    wait_until(lambda: health(port)["queues"]["events"] == 0)
    wait_until(lambda: not problem(port, "are kept in memory"))
    recorded = health(port)["events"]
    assert recorded >= waiting
    code, _, error = end(service, signal.SIGTERM)
    assert (code, "Traceback" in error) == (0, False)
    assert "are recorded again" in error
    tracks = rows(small_disk, "SELECT track, count(*) FROM events WHERE kind = 'arrived' GROUP BY track")
    assert len(tracks) >= recorded // 2
    assert all(count == 1 for _, count in tracks)
    assert rows(small_disk, "PRAGMA integrity_check") == [("ok",)]


def test_a_read_only_disk_is_said(process: Start, configured: Callable[..., Path], small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    service = process("run", configured(more=SMALL, regions="motion"))
    _, error = service.communicate(timeout=60)
    assert service.returncode in (1, 2)
    assert "Traceback" not in error
    assert "cannot be written" in error
    assert str(small_disk) in error


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed: apt install libfaketime")
@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps(process: Start, configured: Callable[..., Path], tmp_path: Path, days: int) -> None:
    data, offset = tmp_path / "data", tmp_path / "offset"
    offset.write_text("+0")
    faked = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    service = process(
        "run", configured(regions="motion"), env={**os.environ, **faked, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    )
    port = wait_for(service, r"http://127\.0\.0\.1:([0-9]+)/")[1]
    wait_until(lambda: health(port)["events"] > 0)
    before = health(port)["events"]
    offset.write_text(f"{days * DAY:+d}")
    wait_until(lambda: health(port)["clock"] == "jumped")
    assert problem(port, f"the clock jumped by {days * DAY:+d} s")
    wait_until(lambda: health(port)["events"] > before + 2)
    assert health(port)["cameras"][0]["gaps"] == 0
    assert health(port)["restarts"] == 0
    assert end(service, signal.SIGTERM)[0] == 0
    (began, ended, seconds, clock) = rows(data, "SELECT began, ended, seconds, clock FROM effort")[-1]
    assert clock == "jumped"
    assert 0 <= seconds < 120
    assert abs(ended - began) < 120
    durations = rows(data, "SELECT json_extract(body, '$.details.seconds') FROM events WHERE kind = 'left'")
    assert durations
    assert all(0 <= seconds < 120 for (seconds,) in durations)


def test_a_damaged_store_is_moved_aside(process: Start, configured: Callable[..., Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    service = process("run", configured(regions="motion"))
    port = wait_for(service, r"http://127\.0\.0\.1:([0-9]+)/")[1]
    wait_until(lambda: health(port)["events"] > 4)
    assert end(service, signal.SIGTERM)[0] == 0
    before = arrivals(data)
    with (data / "events.db").open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(3000))
    service = process("run", configured(regions="motion"))
    port = wait_for(service, r"http://127\.0\.0\.1:([0-9]+)/")[1]
    wait_until(lambda: problem(port, "moved aside") or problem(port, "corrupt"))
    begin = time.monotonic()
    wait_until(lambda: health(port)["events"] > 0)
    assert time.monotonic() - begin < 60
    assert end(service, signal.SIGTERM)[0] == 0
    assert list(data.glob("events.corrupt-*"))
    assert rows(data, "PRAGMA integrity_check") == [("ok",)]
    assert arrivals(data) > 0
    assert before > 0
