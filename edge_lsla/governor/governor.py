"""From what the sensors say to how fast to watch, without flapping."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge_lsla.governor.sensors import Readings, device_sensors
from edge_lsla.governor.settings import GovernorSettings

__all__ = ["Governor", "GovernorSettings", "Pace", "Sensors"]

CYCLE_SECONDS = 600.0  # of watching and resting, where only a budget is given
SHORTEST_WATCH_SECONDS = 5.0  # opening a camera takes as long
MEAN_SECONDS = 600.0  # over which the measured power is averaged


@dataclass(frozen=True)
class Pace:
    """How fast to watch.

    Attributes:
        rate: the most frames a second of each camera; None: as many as come; 0: none, the sources are closed.
        reason: one sentence; "" where nothing limits.
    """

    rate: float | None
    reason: str = ""


class Sensors(Protocol):
    """What `DeviceSensors` does."""

    def read(self) -> Readings:
        """Return what is known now."""

    def close(self) -> None:
        """Give back what they hold."""


class _Level:
    """A limit that begins at once, and ends only once the value is a margin away from where it began.

    Args:
        thresholds: where each level begins, rising.
        margin: how far below its beginning a level ends.
    """

    def __init__(self, thresholds: tuple[float, ...], margin: float) -> None:
        self._thresholds, self._margin = thresholds, margin
        self._level = 0

    def of(self, value: float | None) -> int:
        """Return the level, 0 for none; a value that is not known has none."""
        if value is None:
            self._level = 0
            return 0
        reached = sum(value >= threshold for threshold in self._thresholds)
        kept = sum(value > threshold - self._margin for threshold in self._thresholds)
        self._level = max(reached, min(self._level, kept))
        return self._level


class Governor:
    """Decides; call `decide` about once a second, from one thread.

    Args:
        settings: the limits.
        sensors: what to read; None takes this device's.
        tell: called with a sentence whenever a sensor is missing, or back again.
    """

    def __init__(
        self,
        settings: GovernorSettings,
        sensors: Sensors | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._settings, self._tell = settings, tell or (lambda sentence: None)
        self._sensors = device_sensors(self._tell) if sensors is None else sensors
        self._heat = _Level((settings.warm_c, settings.hot_c, settings.critical_c), settings.hysteresis_c)
        # Emptiness rises while the charge falls.
        self._empty = _Level(
            (100 - settings.battery_low_percent, 100 - settings.battery_empty_percent),
            settings.battery_hysteresis_percent,
        )
        self._known: dict[str, bool] = {}
        self._read_at = float("-inf")
        self._watching_since: float | None = None
        self._watching_watts = settings.watching_watts
        self.readings = Readings()

    def decide(self, now: float) -> Pace:
        """Return how fast to watch.

        Args:
            now: seconds since the epoch.
        """
        # Not by `now`, which may jump.
        if time.monotonic() - self._read_at >= self._settings.read_seconds or self._read_at < 0:
            self._look()
        limits = [*self._by_heat(), *self._by_battery(), *self._by_mode(), *self._by_time(now)]
        normal = Pace(self._settings.rate, "")
        pace = min([*limits, normal], key=lambda one: float("inf") if one.rate is None else one.rate)
        self._watching_since = None if pace.rate == 0 else self._watching_since or time.monotonic()
        return pace

    def close(self) -> None:
        """Give the sensors back."""
        self._sensors.close()

    def _look(self) -> None:
        now, before = time.monotonic(), self._read_at
        self.readings = found = self._sensors.read()
        self._read_at = now
        self._note("temperature", found.temperature_c is not None, "no limit follows from heat")
        if self._settings.battery_hours is not None and self._settings.battery_wh is None:
            self._note("battery's capacity", found.battery_wh is not None, "no budget follows from it")
        if self._settings.mode_rates:
            self._note("power mode", found.power_mode is not None, "no limit follows from it")
        if self._known.get("battery", found.battery_percent is not None):  # most devices have none, and never had
            self._note("battery", found.battery_percent is not None, "no limit follows from its charge")
        # What it takes while a camera is just being opened or closed is neither.
        settled = self._watching_since is not None and now - self._watching_since > SHORTEST_WATCH_SECONDS
        if self._settings.watching_watts is None and found.power_w is not None and settled:
            weight = min(1.0, (now - before) / MEAN_SECONDS)
            old = self._watching_watts
            self._watching_watts = found.power_w if old is None else old + weight * (found.power_w - old)

    def _note(self, sensor: str, found: bool, follows: str) -> None:
        if self._known.get(sensor, True) != found:
            self._tell(f"the {sensor} is known again" if found else f"the {sensor} is not known: {follows}")
        self._known[sensor] = found

    def _by_heat(self) -> list[Pace]:
        level, celsius = self._heat.of(self.readings.temperature_c), self.readings.temperature_c
        if level == 0:
            return []
        word = ("warm", "hot", "too hot to watch")[level - 1]
        return [Pace((self._settings.warm_rate, self._settings.hot_rate, 0.0)[level - 1], f"{word}: {celsius:.0f} °C")]

    def _by_battery(self) -> list[Pace]:
        percent = self.readings.battery_percent
        level = self._empty.of(None if percent is None else 100 - percent)
        if level == 2:
            return [Pace(0.0, f"the battery is empty: {percent:.0f} %")]
        if level == 1 and not self.readings.charging:
            return [Pace(self._settings.battery_low_rate, f"the battery is low: {percent:.0f} %")]
        return []

    def _by_mode(self) -> list[Pace]:
        mode = self.readings.power_mode
        rate = None if mode is None else self._settings.mode_rates.get(mode)
        return [] if rate is None else [Pace(rate, f"power mode {mode}")]

    def _by_time(self, now: float) -> list[Pace]:
        settings, limits = self._settings, []
        if settings.watch_from is not None and settings.watch_until is not None:
            clock = time.strftime("%H:%M", time.localtime(now))
            begin, end = settings.watch_from, settings.watch_until
            inside = begin <= clock < end if begin < end else clock >= begin or clock < end
            if not inside:
                limits.append(Pace(0.0, f"resting until {begin}"))
        cycle = settings.every_seconds or CYCLE_SECONDS
        share, why = self._share(cycle)
        watch = max(share * cycle, SHORTEST_WATCH_SECONDS) if 0 < share < 1 else share * cycle
        if now % cycle >= watch:
            limits.append(Pace(0.0, f"resting: watching {watch:.0f} s of every {cycle:.0f} s, {why}"))
        return limits

    def _share(self, cycle: float) -> tuple[float, str]:
        """Return the part of the time to watch in, and why."""
        settings = self._settings
        share, why = 1.0, ""
        if settings.watch_seconds is not None:
            share, why = settings.watch_seconds / cycle, "as configured"
        capacity, watts = settings.battery_wh or self.readings.battery_wh, self._watching_watts
        if settings.battery_hours is None or capacity is None or watts is None or watts <= settings.resting_watts:
            return share, why
        allowed = capacity / settings.battery_hours
        affordable = min(1.0, max(0.0, (allowed - settings.resting_watts) / (watts - settings.resting_watts)))
        if affordable < share:
            return affordable, f"to spend {24 * allowed:.0f} Wh a day"
        return share, why
