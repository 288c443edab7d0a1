"""Verdicts: what ships, and the sentences that say why."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from calibration.gate import GateSettings, judge
from calibration.paired import Paired, difference
from edge_lsla.errors import UsageError


def losing(pictures: int, of: int = 4000) -> Paired:
    second = np.ones(of, bool)
    second[:pictures] = False
    return difference(np.ones(of, bool), second)


HALF = GateSettings(0.5)


def test_int8_ships_within_budget_and_faster() -> None:
    found = judge({"int8": losing(2)}, {"int8": 1.0, "fp16": 1.5, "fp32": 2.0}, HALF)
    assert (found.passed, found.form, found.forced, found.warnings) == (True, "int8", False, ())
    assert "within the budget of 0.5, and faster: 1.00 ms against 1.50 ms of fp16" in found.reasons[0]
    assert found.reasons[-1] == "int8 ships"


def test_int8_beyond_the_budget_does_not_ship() -> None:
    found = judge({"int8": losing(40)}, {"int8": 1.0, "fp16": 1.5, "fp32": 2.0}, HALF)
    assert (found.passed, found.form) == (False, "fp16")
    assert "loses 1.00 points of top-1 on 4000 pictures" in found.reasons[0]
    assert "more than the budget of 0.5" in found.reasons[0]
    assert found.reasons[-1] == "fp16 ships, the fastest form without INT8"


def test_mixed_rescues() -> None:
    latencies = {"int8": 1.0, "mixed": 1.2, "fp32": 2.0}
    found = judge({"int8": losing(400), "mixed": losing(4)}, latencies, HALF)
    assert (found.passed, found.form) == (True, "mixed")
    assert "more than the budget" in found.reasons[0]
    both = judge({"int8": losing(4), "mixed": losing(0)}, latencies, HALF)
    assert both.form == "int8"  # the faster of two that pass
    close = {"int8": 1.0, "mixed": 1.01, "fp32": 2.0}  # nearer than timing can tell: the one that loses less
    assert judge({"int8": losing(4), "mixed": losing(0)}, close, HALF).form == "mixed"
    assert judge({"int8": losing(4), "mixed": losing(4)}, close, HALF).form == "int8"


@pytest.mark.parametrize("ms", [1.5, 1.49, 3.0])  # 1.49: not faster by the 2 % that timing can tell
def test_slower_int8_does_not_ship(ms: float) -> None:
    found = judge({"int8": losing(0)}, {"int8": ms, "fp32": 2.0, "fp16": 1.5}, HALF)
    assert (found.passed, found.form) == (False, "fp16")
    assert f"it is not faster: {ms:.2f} ms against 1.50 ms of fp16" in found.reasons[0]


def test_wide_interval_is_a_warning_or_with_sure_a_refusal() -> None:
    drops, latencies = {"int8": losing(0, 280)}, {"int8": 1.0, "fp32": 2.0}
    found = judge(drops, latencies, HALF)
    assert found.passed
    assert "about 560 like these would do" in found.warnings[0]
    strict = judge(drops, latencies, GateSettings(0.5, sure=True))
    assert (strict.passed, strict.form, strict.warnings) == (False, "fp32", ())
    assert "not surely within 0.5" in strict.reasons[0]
    assert "about 560 like these would do" in strict.reasons[0]
    assert judge({"int8": losing(0)}, latencies, GateSettings(0.5, sure=True)).passed


def test_budget_below_one_picture_is_said() -> None:
    found = judge({"int8": losing(1, 280)}, {"int8": 1.0, "fp32": 2.0}, GateSettings(0.2))
    assert not found.passed
    assert "where one picture is 0.36" in found.reasons[0]


def test_gain_and_a_budget_of_nothing() -> None:
    better = difference(np.zeros(100, bool), np.ones(100, bool))
    found = judge({"int8": better}, {"int8": 1.0, "fp32": 2.0}, GateSettings(0))
    assert found.passed
    assert "gains 100.00 points" in found.reasons[0]
    assert not judge({"int8": losing(0)}, {"int8": 1.0, "fp32": 2.0}, GateSettings(0, sure=True)).passed
    unsure = judge({"int8": losing(0)}, {"int8": 1.0, "fp32": 2.0}, GateSettings(0))
    assert "a budget of 0 cannot be proven" in unsure.warnings[0]


def test_without_latency_in_the_verdict_slower_int8_is_warned_of() -> None:
    settings = GateSettings(0.5, need_latency=False)
    slower = judge({"int8": losing(0)}, {"int8": 3.0, "fp32": 2.0}, settings)
    assert (slower.form, slower.warnings) == ("int8", ("int8 is not faster: 3.00 ms against 2.00 ms of fp32",))
    assert judge({"int8": losing(0)}, {"int8": 1.0, "fp32": 2.0}, settings).warnings == ()


@pytest.mark.parametrize("latencies", [{"int8": None, "fp32": 2.0}, {"int8": 1.0, "fp32": None}])
def test_unmeasured_latency(latencies: dict[str, float | None]) -> None:
    found = judge({"int8": losing(0)}, latencies, HALF)
    assert (found.passed, found.form) == (False, "fp32")
    assert "was not measured here" in found.reasons[0]
    trusting = judge({"int8": losing(0)}, latencies, GateSettings(0.5, need_latency=False))
    assert (trusting.passed, trusting.form) == (True, "int8")
    assert "compare on the device" in trusting.warnings[0]


def test_force_is_recorded() -> None:
    latencies = {"int8": 1.0, "fp32": 2.0}
    found = judge({"int8": losing(400)}, latencies, HALF, force="int8")
    assert (found.passed, found.form, found.forced) == (False, "int8", True)
    assert found.reasons[-1] == "forced: int8 ships instead"
    assert not judge({"int8": losing(0)}, latencies, HALF, force="int8").forced


def test_verdict_is_json_ready() -> None:
    latencies = {"int8": 1.0, "fp16": None, "fp32": 2.0}
    found: dict[str, Any] = json.loads(json.dumps(judge({"int8": losing(8)}, latencies, HALF).to_dict()))
    assert found["passed"] is True
    assert found["latencies_ms"] == latencies
    assert found["drops"]["int8"]["drop"] == 0.2
    assert found["max_drop"] == 0.5


@pytest.mark.parametrize(
    ("latencies", "force", "why"),
    [
        ({"fp32": 2.0}, None, "no latency entry: int8"),
        ({"int8": 1.0}, None, "no form without INT8"),
        ({"int8": 1.0, "fp32": 0.0}, None, "not a positive number of ms: fp32"),
        ({"int8": math.nan, "fp32": 2.0}, None, "not a positive number of ms: int8"),
        ({"int8": 1.0, "fp32": 2.0}, "fp8", "unknown form 'fp8'"),
    ],
)
def test_wrong_input_is_refused(latencies: dict[str, float | None], force: str | None, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        judge({"int8": losing(0)}, latencies, HALF, force)


@pytest.mark.parametrize("fields", [{"max_drop": -1}, {"max_drop": math.nan}, {"max_drop": 1, "faster_by": 2}])
def test_settings_name_the_field(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="max_drop" if len(fields) == 1 else "faster_by"):
        GateSettings(**fields)  # type: ignore[arg-type]
