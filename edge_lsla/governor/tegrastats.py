"""A Jetson's `tegrastats`: its lines, and a thread that reads them.

Source of the format: "tegrastats Utility" of the Jetson Linux Developer Guide; it differs between devices and releases,
so only what is looked for is read of a line: NAME@38.5C temperatures, and NAME 5263mW/5263mW power (now/mean).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

COLDEST_C, HOTTEST_C = -60.0, 200.0
# The board's own regulator says 50 or 100 degrees for ever on some modules; a radio's heat is its own.
NOT_OF_THE_CHIP = re.compile(r"pmic|iwlwifi", re.IGNORECASE)
TOTALS = ("VDD_IN", "POM_5V_IN", "VIN")  # what the whole module takes, where a rail says so
LONGEST_LINE = 10_000

_TEMPERATURE = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)@(-?[0-9]+(?:\.[0-9]+)?)C")
# In milliwatts; Jetson Nano and Xavier leave the unit out.
_POWER = re.compile(r"\b((?:VDD|VDDQ|VIN|POM)[A-Z0-9_]*) ([0-9]+)(?:mW)?/[0-9]+")


@dataclass(frozen=True)
class Line:
    """What a line says.

    Attributes:
        temperatures_c: degrees Celsius by sensor.
        power_w: what the module takes: its input's rail, or the sum of all rails; None where the line has no rail.
    """

    temperatures_c: Mapping[str, float]
    power_w: float | None


def parse(line: str) -> Line:
    """Read a line of tegrastats; whatever it lacks is left out."""
    line = line[:LONGEST_LINE]
    readings = ((name, float(value)) for name, value in _TEMPERATURE.findall(line))
    rails = {name: int(value) / 1000 for name, value in _POWER.findall(line)}
    total = next((rails[name] for name in TOTALS if name in rails), sum(rails.values()) if rails else None)
    return Line({name: value for name, value in readings if COLDEST_C < value < HOTTEST_C}, total)


def hottest(zones: Mapping[str, float]) -> float | None:
    """Return the highest of some temperatures that says how hot the chip is; None without one."""
    return max((value for name, value in zones.items() if not NOT_OF_THE_CHIP.match(name)), default=None)


class Tegrastats:
    """A running tegrastats; `close` ends it.

    Args:
        command: what prints the lines.
        interval_seconds: how often it does; what is older than three of them is not given out.
    """

    def __init__(self, command: list[str], interval_seconds: float) -> None:
        self._interval = interval_seconds
        self._latest: tuple[float, Line] | None = None
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            errors="replace",
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, name="tegrastats", daemon=True)
        self._thread.start()

    @classmethod
    def start(
        cls, program: str = "tegrastats", interval_seconds: float = 5.0, tell: Callable[[str], None] | None = None
    ) -> Tegrastats | None:
        """Start it where it is installed; a device that is no Jetson has none."""
        path = shutil.which(program)
        if path is None:
            return None
        try:
            return cls([path, "--interval", str(round(interval_seconds * 1000))], interval_seconds)
        except OSError as error:
            if tell is not None:
                tell(f"tegrastats cannot be run ({error.strerror}); power is not measured")
            return None

    @property
    def latest(self) -> Line | None:
        """The last line, if it is fresh."""
        latest = self._latest
        if latest is None or time.monotonic() - latest[0] > 3 * self._interval:
            return None
        return latest[1]

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            while line := lines.readline(LONGEST_LINE):
                self._latest = time.monotonic(), parse(line)

    def close(self) -> None:
        """End the program and the thread."""
        self._process.terminate()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(1)
        self._thread.join(1)
