"""Paces that follow from what the sensors say, over time."""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import Any

import pytest

from edge_lsla.errors import UsageError
from edge_lsla.governor.governor import Governor, GovernorSettings, Pace
from edge_lsla.governor.sensors import Readings

NOON = time.mktime((2025, 6, 15, 12, 0, 0, 0, 0, -1))


class Given:
    """Sensors that say what a test gives them."""

    def __init__(self, **readings: Any) -> None:
        self.readings = Readings(**readings)
        self.closed = False

    def give(self, **readings: Any) -> None:
        self.readings = dataclasses.replace(self.readings, **readings)

    def read(self) -> Readings:
        return self.readings

    def close(self) -> None:
        self.closed = True


def governor(sensors: Given, told: list[str] | None = None, **settings: Any) -> Governor:
    # Sensors are read at each decision here.
    return Governor(GovernorSettings(**{"read_seconds": 1e-9, **settings}), sensors, (told or []).append)


def test_without_sensors_nothing_limits_and_it_is_said_once() -> None:
    told: list[str] = []
    sensors = Given()
    watch = Governor(GovernorSettings(read_seconds=1e-9), sensors, told.append)
    assert [watch.decide(NOON + second) for second in range(3)] == [Pace(None, "")] * 3
    assert told == ["the temperature is not known: no limit follows from heat"]
    sensors.give(temperature_c=90.0)
    assert watch.decide(NOON).rate == 1.0
    sensors.give(temperature_c=None)
    assert watch.decide(NOON) == Pace(None, "")
    assert told[1:] == ["the temperature is known again", "the temperature is not known: no limit follows from heat"]
    watch.close()
    assert sensors.closed


def test_heat_limits_at_once_and_lets_go_late() -> None:
    sensors = Given(temperature_c=60.0)
    watch = governor(sensors, rate=20.0)
    paces = []
    for celsius in (60, 74.9, 75, 71, 74, 70.1, 70, 74, 86, 81, 80, 76, 70, 96, 91, 90, 60):
        sensors.give(temperature_c=float(celsius))
        paces.append(watch.decide(NOON).rate)
    assert paces == [20, 20, 5, 5, 5, 5, 20, 20, 1, 1, 5, 5, 20, 0, 0, 1, 20]


def test_it_says_why() -> None:
    sensors = Given(temperature_c=96.0)
    assert governor(sensors).decide(NOON) == Pace(0.0, "too hot to watch: 96 °C")


def test_a_temperature_that_wavers_makes_no_rate_flap() -> None:
    sensors = Given()
    watch = governor(sensors)
    rates = []
    for second in range(200):
        sensors.give(temperature_c=75.0 + (second % 5 - 2))
        rates.append(watch.decide(NOON + second).rate)
    assert sum(a != b for a, b in itertools.pairwise(rates)) == 1


def test_the_battery_limits_and_then_pauses() -> None:
    sensors = Given(battery_percent=50.0, charging=False)
    watch = governor(sensors)
    paces = []
    for percent in (50, 31, 30, 33, 35, 29, 10, 14, 15, 40):
        sensors.give(battery_percent=float(percent))
        paces.append(watch.decide(NOON).rate)
    assert paces == [None, None, 1, 1, None, 1, 0, 0, 1, None]
    sensors.give(battery_percent=20.0, charging=True)
    assert watch.decide(NOON).rate is None  # low, and charged
    sensors.give(battery_percent=5.0)
    assert watch.decide(NOON) == Pace(0.0, "the battery is empty: 5 %")


def test_the_power_mode_limits_by_its_name() -> None:
    sensors = Given(power_mode="7W", temperature_c=80.0)
    watch = governor(sensors, mode_rates={"7W": 2.0, "15W": 10.0})
    assert watch.decide(NOON) == Pace(2.0, "power mode 7W")
    sensors.give(power_mode="15W")
    assert watch.decide(NOON) == Pace(5.0, "warm: 80 °C")  # the smaller of both
    sensors.give(power_mode="MAXN", temperature_c=20.0)
    assert watch.decide(NOON) == Pace(None, "")


def watched(watch: Governor, seconds: int, begin: float = NOON) -> int:
    return sum(watch.decide(begin + second).rate != 0 for second in range(seconds))


def test_a_part_of_the_time() -> None:
    watch = governor(Given(), watch_seconds=20.0, every_seconds=100.0)
    assert watched(watch, 1000) == 200
    rates = [watch.decide(NOON + second).rate for second in range(1000)]
    assert sum(a != b for a, b in itertools.pairwise(rates)) in (19, 20)  # in one piece a cycle
    resting = [watch.decide(NOON + second).reason for second in range(100) if rates[second] == 0]
    assert set(resting) == {"resting: watching 20 s of every 100 s, as configured"}


def test_a_battery_budget_gives_the_part_of_the_time() -> None:
    # 96 Wh for 48 hours are 2 W: with 1 W at rest and 5 W when watching, a quarter of the time.
    budget = {"battery_hours": 48.0, "battery_wh": 96.0, "watching_watts": 5.0, "resting_watts": 1.0}
    watch = governor(Given(), **budget)
    assert watched(watch, 6000) == 1500
    reasons = {watch.decide(NOON + second).reason for second in range(600)}
    assert reasons == {"", "resting: watching 150 s of every 600 s, to spend 48 Wh a day"}
    assert watched(governor(Given(), **{**budget, "battery_wh": 1000.0}), 600) == 600  # more than enough
    assert watched(governor(Given(), **{**budget, "battery_wh": 10.0}), 600) == 0  # it would not last resting
    from_battery = governor(Given(battery_wh=96.0), **{**budget, "battery_wh": None})
    assert watched(from_battery, 6000) == 1500


def test_the_measured_power_counts_where_none_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    sensors = Given(power_w=None)
    watch = governor(sensors, battery_hours=50.0, battery_wh=100.0, resting_watts=0.0)
    assert watched(watch, 600) == 600  # nothing is known: no limit
    sensors.give(power_w=4.0)
    clock[0] += 60
    assert watched(watch, 600) == 300  # 2 W of 4 W
    sensors.give(power_w=8.0)
    clock[0] += 1
    assert 297 <= watched(watch, 600) <= 300  # a mean over ten minutes


@pytest.mark.parametrize(
    ("begin", "end", "hours"),
    [("06:00", "18:00", range(6, 18)), ("20:00", "05:00", [*range(20, 24), *range(5)]), ("00:00", "12:00", range(12))],
)
def test_hours_of_the_day(begin: str, end: str, hours: Any) -> None:
    watch = governor(Given(), watch_from=begin, watch_until=end)
    midnight = time.mktime((2025, 6, 15, 0, 0, 0, 0, 0, -1))
    found = [hour for hour in range(24) if watch.decide(midnight + hour * 3600 + 60).rate != 0]
    assert found == sorted(hours)
    assert watch.decide(midnight + (min(set(range(24)) - set(hours))) * 3600 + 60).reason == f"resting until {begin}"


@pytest.mark.parametrize(
    "settings",
    [{"warm_c": 90.0}, {"battery_low_percent": 5.0}, {"rate": 0.0}, {"mode_rates": {"7W": -1.0}},
     {"watch_seconds": 5.0}, {"watch_seconds": 50.0, "every_seconds": 20.0}, {"every_seconds": 1.0},
     {"watch_from": "06:00"},
     {"watch_from": "6:00", "watch_until": "18:00"}, {"watch_from": "06:00", "watch_until": "06:00"},
     {"watching_watts": 1.0, "resting_watts": 2.0}, {"battery_hours": 0.0}, {"hysteresis_c": -1.0}],
    ids=str,
)  # fmt: skip
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings)).split("_")[0]):
        GovernorSettings(**settings)
