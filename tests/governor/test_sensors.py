"""Sensors as real files in a tree of their own, and a real program that prints a Jetson's lines."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest
import tegrastats_lines as lines

from edge_lsla.governor.sensors import DeviceSensors, Readings
from edge_lsla.governor.tegrastats import Tegrastats, hottest, parse

MODES = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=15W >\n"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def zone(root: Path, number: int, kind: str, text: str) -> None:
    put(root / f"sys/class/thermal/thermal_zone{number}/type", f"{kind}\n")
    put(root / f"sys/class/thermal/thermal_zone{number}/temp", text)


def battery(root: Path, name: str = "BAT0", **files: object) -> None:
    for key, value in {"type": "Battery", **files}.items():
        put(root / "sys/class/power_supply" / name / key, f"{value}\n")


def test_a_device_without_sensors_says_nothing(tmp_path: Path) -> None:
    assert DeviceSensors(tmp_path).read() == Readings()


def test_the_hottest_zone_counts_and_those_that_are_off_do_not(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", "52125\n")
    zone(tmp_path, 1, "gpu-thermal", "-256000\n")  # switched off
    zone(tmp_path, 2, "pmic-die", "100000\n")  # says so for ever
    zone(tmp_path, 3, "cv0-thermal", "")
    zone(tmp_path, 4, "tj-thermal", "53500\n")
    zone(tmp_path, 5, "soc-thermal", "hot")
    (tmp_path / "sys/class/thermal/thermal_zone6/temp").mkdir(parents=True)  # cannot be read
    assert DeviceSensors(tmp_path).read() == Readings(temperature_c=53.5)


def test_batteries(tmp_path: Path) -> None:
    battery(tmp_path, "BAT0", capacity=41, status="Discharging", energy_full=50_000_000)
    battery(tmp_path, "BAT1", capacity=80, status="Charging", charge_full=2_000_000, voltage_min_design=11_100_000)
    battery(tmp_path, "mouse", capacity=3, status="Discharging", scope="Device")
    put(tmp_path / "sys/class/power_supply/AC/type", "Mains\n")
    found = DeviceSensors(tmp_path).read()
    assert (found.battery_percent, found.charging) == (41, False)
    assert found.battery_wh == pytest.approx(50 + 22.2)
    battery(tmp_path, "BAT0", capacity=41, status="Full")
    assert DeviceSensors(tmp_path).read().charging


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("pmode:0002 fmode:fanNull\n", "15W"),
        ("pmode:0000", "MAXN"),
        ("pmode:0007", "7"),
        ("", None),
        ("nonsense", None),
    ],
)
def test_the_power_mode_of_a_jetson(tmp_path: Path, status: str, expected: str | None) -> None:
    put(tmp_path / "var/lib/nvpmodel/status", status)
    put(
        tmp_path / "etc/nvpmodel.conf",
        "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=15W >\n",
    )
    assert DeviceSensors(tmp_path).read().power_mode == expected


@pytest.mark.parametrize(
    ("line", "celsius", "watts", "count"),
    [
        (lines.ORIN_NANO, 45.968, 5.263, 6),
        (lines.AGX_ORIN, 44.562, 2.34 + 0.39 + 4.025 + 0.301, 7),
        (lines.NANO, 33.5, 2.545, 6),
        (lines.DRIVE, 41.0, None, 6),
        ("", None, None, 0),
        ("RAM 1/2MB VDD_IN mW @C tj@C cpu@x" * 5000, None, None, 0),
    ],
)
def test_lines_of_tegrastats(line: str, celsius: float | None, watts: float | None, count: int) -> None:
    found = parse(line)
    assert hottest(found.temperatures_c) == celsius
    assert found.power_w == (None if watts is None else pytest.approx(watts))
    assert len(found.temperatures_c) == count


def program(folder: Path, script: str) -> None:
    path = folder / "tegrastats"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_running_tegrastats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path, f'[ "$1 $2" = "--interval 5000" ] || exit 1\necho "{lines.ORIN_NANO}"\nexec sleep 60')
    zone(tmp_path, 0, "cpu-thermal", "41000\n")
    stats = Tegrastats.start()
    assert stats is not None
    sensors = DeviceSensors(tmp_path, stats)
    deadline = time.monotonic() + 10
    while stats.latest is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sensors.read() == Readings(temperature_c=45.968, power_w=5.263)
    sensors.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "tegrastats"]


def test_an_old_line_is_not_given_out(tmp_path: Path) -> None:
    program(tmp_path, f'echo "{lines.ORIN_NANO}"\nexec sleep 60')
    stats = Tegrastats([str(tmp_path / "tegrastats")], interval_seconds=0.2)
    deadline = time.monotonic() + 10
    while stats.latest is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    while stats.latest is not None:  # it prints nothing more
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stats.close()


def test_a_tegrastats_that_is_absent_or_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Tegrastats.start(tell=told.append) is None
    assert told == []
    (tmp_path / "tegrastats").write_bytes(b"\x7fELF of another processor")
    (tmp_path / "tegrastats").chmod(0o755)
    assert Tegrastats.start(tell=told.append) is None
    assert "tegrastats cannot be run" in told[0]
