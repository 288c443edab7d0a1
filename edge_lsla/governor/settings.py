"""When to watch less."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_lsla.errors import UsageError

TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True)
class GovernorSettings:
    """How fast to watch, by temperature, power and time of day. The smallest of all rates counts.

    Attributes:
        rate: the most frames a second of a camera when nothing limits it; None takes what it gives.
        warm_c, hot_c, critical_c: degrees Celsius of the hottest sensor from which on `warm_rate` counts, `hot_rate`,
            and at last nothing is watched.
        hysteresis_c: so many degrees cooler must it be for a limit to end.
        warm_rate, hot_rate: frames a second.
        mode_rates: frames a second by the name of a Jetson's power mode (`nvpmodel -q`), such as {"7W": 2.0}.
        battery_low_percent: below it, while it is not charged, `battery_low_rate` counts.
        battery_empty_percent: below it nothing is watched.
        battery_hysteresis_percent: so many percent more must there be for a limit to end.
        battery_low_rate: frames a second.
        battery_hours: how long a full battery must last; the share of the time in which something is watched follows
            from it. None sets no budget.
        battery_wh: its capacity; None takes what the battery says.
        watching_watts: what the device takes while it watches; None measures it where a Jetson does.
        resting_watts: what it takes otherwise.
        watch_seconds, every_seconds: watch so long of every so long, whatever the budget; None watches all the time.
            With a budget alone, `every_seconds` is 600.
        watch_from, watch_until: local times between which to watch, such as "20:00" and "06:00"; None: day and night.
        read_seconds: how old what the sensors said may be.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    rate: float | None = None
    warm_c: float = 75.0
    hot_c: float = 85.0
    critical_c: float = 95.0
    hysteresis_c: float = 5.0
    warm_rate: float = 5.0
    hot_rate: float = 1.0
    mode_rates: Mapping[str, float] = field(default_factory=dict)
    battery_low_percent: float = 30.0
    battery_empty_percent: float = 10.0
    battery_hysteresis_percent: float = 5.0
    battery_low_rate: float = 1.0
    battery_hours: float | None = None
    battery_wh: float | None = None
    watching_watts: float | None = None
    resting_watts: float = 0.0
    watch_seconds: float | None = None
    every_seconds: float | None = None
    watch_from: str | None = None
    watch_until: str | None = None
    read_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not -50 < self.warm_c < self.hot_c < self.critical_c < 150:
            raise UsageError("warm, hot and critical must rise, in degrees Celsius", "warm_c", "correct them")
        if not 0 <= self.battery_empty_percent < self.battery_low_percent <= 100:
            raise UsageError("empty is below low, in percent", "battery_low_percent", "correct them")
        for name in ("hysteresis_c", "battery_hysteresis_percent", "resting_watts"):
            if not 0 <= getattr(self, name) <= 100:
                raise UsageError("it is from 0 to 100", name, "correct it")
        rates = {f"mode_rates.{mode}": rate for mode, rate in self.mode_rates.items()}
        for name, rate in {"rate": self.rate, "warm_rate": self.warm_rate, "hot_rate": self.hot_rate,
                           "battery_low_rate": self.battery_low_rate, **rates}.items():  # fmt: skip
            if rate is not None and not 0 < rate <= 10_000:
                raise UsageError("a frame rate is above 0 and at most 10000 a second", name, "correct it")
        for name in ("battery_hours", "battery_wh", "watching_watts", "read_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1e6:
                raise UsageError("it is above 0", name, "correct it")
        if self.watching_watts is not None and self.watching_watts <= self.resting_watts:
            raise UsageError("resting takes less than watching", "resting_watts", "correct it")
        if self.watch_seconds is not None and self.every_seconds is None:
            raise UsageError("watching a part of the time needs both", "every_seconds", "give it too")
        if self.every_seconds is not None and not 10 <= self.every_seconds <= 86400:
            raise UsageError("a cycle takes 10 seconds to a day", "every_seconds", "correct it")
        if self.watch_seconds is not None and not 1 <= self.watch_seconds <= (self.every_seconds or 0):
            raise UsageError("a part of the cycle is 1 second to all of it", "watch_seconds", "correct it")
        if (self.watch_from is None) != (self.watch_until is None):
            raise UsageError("watching at some hours needs both", "watch_from, watch_until", "give both or none")
        for name in ("watch_from", "watch_until"):
            value = getattr(self, name)
            if value is not None and not TIME.fullmatch(value):
                raise UsageError(f"not a time of day: {value!r}", name, 'write it like "06:30"')
        if self.watch_from is not None and self.watch_from == self.watch_until:
            raise UsageError("watching begins and ends at the same time", "watch_from", "correct it, or leave both out")
