"""What the device says of its temperature, power and battery: plain files of Linux, and tegrastats on a Jetson.

Sources: Documentation/ABI/testing/sysfs-class-thermal and sysfs-class-power of the Linux kernel; the power mode is
what nvpmodel keeps in /var/lib/nvpmodel/status, named by /etc/nvpmodel.conf.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.governor.tegrastats import Tegrastats, hottest

COLDEST_C, HOTTEST_C = -60.0, 200.0  # beyond is no reading: a sensor that is off says -256 degrees
LARGEST_FILE = 65_536
_MODE = re.compile(r"pmode:0*([0-9]+)")


@dataclass(frozen=True)
class Readings:
    """What is known now; None is what no sensor says.

    Attributes:
        temperature_c: of the hottest part, degrees Celsius.
        battery_percent: charge of the emptiest battery.
        charging: whether it is charged, or full.
        battery_wh: what all batteries hold when full.
        power_mode: a Jetson's, such as "15W".
        power_w: what the device takes.
    """

    temperature_c: float | None = None
    battery_percent: float | None = None
    charging: bool | None = None
    battery_wh: float | None = None
    power_mode: str | None = None
    power_w: float | None = None


class DeviceSensors:
    """Reads them; a file that is missing, empty or nonsense is a sensor that says nothing.

    Args:
        root: of the file system.
        tegrastats: a running reader; None leaves it out.
    """

    def __init__(self, root: Path = Path("/"), tegrastats: Tegrastats | None = None) -> None:
        self._root = root
        self._tegrastats = tegrastats

    def read(self) -> Readings:
        """Return what all of them say now."""
        percent, charging, capacity = self._battery()
        line = None if self._tegrastats is None else self._tegrastats.latest
        zones = {} if line is None else dict(line.temperatures_c)
        zones |= self._zones()
        return Readings(
            hottest(zones), percent, charging, capacity, self._power_mode(), None if line is None else line.power_w
        )

    def close(self) -> None:
        """End the reader of tegrastats."""
        if self._tegrastats is not None:
            self._tegrastats.close()

    def _zones(self) -> dict[str, float]:
        found = {}
        for zone in sorted((self._root / "sys/class/thermal").glob("thermal_zone*")):
            value = _number(zone / "temp")  # millidegrees
            if value is not None and COLDEST_C < value / 1000 < HOTTEST_C:
                found[_text(zone / "type") or zone.name] = value / 1000
        return found

    def _battery(self) -> tuple[float | None, bool | None, float | None]:
        percents, states, capacities = [], [], []
        for supply in sorted((self._root / "sys/class/power_supply").glob("*")):
            # A mouse's or a keyboard's battery has the scope "Device".
            if _text(supply / "type") != "Battery" or _text(supply / "scope") == "Device":
                continue
            percent = _number(supply / "capacity")
            if percent is not None and 0 <= percent <= 100:
                percents.append(percent)
                states.append(_text(supply / "status") in ("Charging", "Full"))
            if (energy := _number(supply / "energy_full")) is not None:  # microwatt-hours
                capacities.append(energy / 1e6)
            elif (charge := _number(supply / "charge_full")) is not None:  # microampere-hours
                volts = _number(supply / "voltage_min_design") or _number(supply / "voltage_now")
                capacities += [charge / 1e6 * volts / 1e6] if volts else []
        if not percents:
            return None, None, None
        return min(percents), all(states), sum(capacities) or None

    def _power_mode(self) -> str | None:
        mode = _MODE.search(_text(self._root / "var/lib/nvpmodel/status") or "")
        if mode is None:
            return None
        models = _text(self._root / "etc/nvpmodel.conf") or ""
        name = re.search(rf"POWER_MODEL\s+ID={mode[1]}\s+NAME=(\S+)", models)
        return mode[1] if name is None else name[1]


def _text(path: Path) -> str | None:
    """Return a small file's text; a sensor that is off may fail to be read."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE).decode("utf-8", "replace").strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None


def device_sensors(tell: Callable[[str], None] | None = None) -> DeviceSensors:
    """Return this device's sensors, with tegrastats where it is installed.

    Args:
        tell: called with a sentence where tegrastats is there and cannot be run.
    """
    return DeviceSensors(tegrastats=Tegrastats.start(tell=tell))
