"""The verdict: whether a form with INT8 ships, or which form does instead, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calibration.paired import Paired
from edge_lsla.errors import UsageError


@dataclass(frozen=True)
class GateSettings:
    """What a form with INT8 must hold.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    max_drop: float = field(metadata={"help": "points of top-1 that may be lost against float"})
    sure: bool = field(default=False, metadata={"help": "the whole 95 % interval must be within the budget"})
    faster_by: float = field(default=0.02, metadata={"help": "part of the latency that INT8 must save to count"})
    need_latency: bool = field(default=True, metadata={"help": "refuse INT8 that is not measured to be faster"})

    def __post_init__(self) -> None:
        for name, most in (("max_drop", 100), ("faster_by", 1)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= most:
                raise UsageError(f"{value!r} is not a number from 0 to {most}", name, "correct it")


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: whether a form with INT8 is within the budget and faster.
        form: the form that ships.
        reasons: sentences, the decisive one last.
        warnings: sentences about what is not sure.
        forced: True where `form` ships although the gate refused it.
        max_drop: the budget, points.
        drops: what each form with INT8 loses. latencies: ms of each form, None where it was not measured.
    """

    passed: bool
    form: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    forced: bool
    max_drop: float
    drops: dict[str, Paired]
    latencies: dict[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values, for the bundle's passport."""
        return {
            "passed": self.passed,
            "form": self.form,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "forced": self.forced,
            "max_drop": self.max_drop,
            "drops": {form: paired.to_dict() for form, paired in self.drops.items()},
            "latencies_ms": {form: None if ms is None else round(ms, 4) for form, ms in self.latencies.items()},
        }


def judge(
    drops: Mapping[str, Paired],
    latencies: Mapping[str, float | None],
    settings: GateSettings,
    force: str | None = None,
) -> Verdict:
    """Decide which form ships on this device and backend.

    A form with INT8 ships if its drop on the gate pictures is within the budget (with `sure`, the whole interval) and
    it is faster than the fastest form without INT8 (without `need_latency`, a warning says where it is not); of several
    the fastest, and of those that are as fast, as far as timing can tell (`faster_by`), the one that loses least.
    Otherwise that form without INT8 ships.
    An interval that reaches beyond the budget is a warning that says how many pictures would settle it.

    Args:
        drops: for each form with INT8 ("int8", "mixed"), its difference from float on the gate pictures.
        latencies: for every form, those without INT8 too ("fp16", "fp32"), ms; None where it was not measured. Where no
            form without INT8 was, the first of them is taken.
        settings: budget and strictness.
        force: a form that ships whatever the gate says; recorded.

    Raises:
        UsageError: no form without INT8, a form with INT8 without a latency entry, an impossible latency, or an unknown
            form to force.
    """
    plain = {form: ms for form, ms in latencies.items() if form not in drops}
    _check(drops, latencies, plain, force)
    fallback = min(plain, key=lambda form: _or_infinite(plain[form]))  # of equals the first
    reasons: list[str] = []
    warnings: list[str] = []
    passed: list[str] = []
    for form, paired in drops.items():
        accurate, said = _accuracy(form, paired, settings, warnings)
        fast, also = _speed(form, latencies[form], fallback, plain[fallback], settings, warnings) if accurate else (
            False, "")  # fmt: skip
        reasons.append(f"{said}{also}")
        if accurate and fast:
            passed.append(form)
    form = _best(passed, latencies, drops, settings) if passed else fallback
    reasons.append(f"{form} ships" if passed else f"{fallback} ships, {_superlative(plain)}")
    forced = force is not None and force not in passed and force in drops
    if force is not None and force != form:
        reasons.append(f"forced: {force} ships instead")
    return Verdict(
        passed=bool(passed),
        form=force or form,
        reasons=tuple(reasons),
        warnings=tuple(warnings),
        forced=forced,
        max_drop=settings.max_drop,
        drops=dict(drops),
        latencies=dict(latencies),
    )


def _accuracy(form: str, paired: Paired, settings: GateSettings, warnings: list[str]) -> tuple[bool, str]:
    budget = settings.max_drop
    changed = f"loses {paired.drop:.2f}" if paired.drop >= 0 else f"gains {-paired.drop:.2f}"
    said = f"{form} {changed} points of top-1 on {paired.images} pictures ({paired.low:.2f} to {paired.high:.2f})"
    if paired.drop > budget:
        one = 100 / paired.images
        finest = f", where one picture is {one:.2f}" if one > budget else ""
        return False, f"{said}, more than the budget of {budget:g}{finest}"
    unsure = paired.too_few(budget) if budget > 0 else None
    if budget == 0 and paired.high > 0:
        unsure = f"the true drop may be as much as {paired.high:.2f} points, and a budget of 0 cannot be proven"
    if settings.sure and paired.high > budget:
        return False, f"{said}, which is not surely within {budget:g}: {unsure}"
    if unsure is not None:
        warnings.append(f"{form}: {unsure}")
    return True, f"{said}, within the budget of {budget:g}"


def _speed(
    form: str, mine: float | None, fallback: str, other: float | None, settings: GateSettings, warnings: list[str]
) -> tuple[bool, str]:
    if mine is None or other is None:
        missing = form if mine is None else fallback
        if settings.need_latency:
            return (
                False,
                f", but the latency of {missing} was not measured here, so that nobody knows whether it is faster",
            )
        warnings.append(f"{form}: the latency of {missing} was not measured; compare on the device")
        return True, ""
    figures = f"{mine:.2f} ms against {other:.2f} ms of {fallback}"
    if mine > other * (1 - settings.faster_by):
        if settings.need_latency:
            return False, f", but it is not faster: {figures}"
        warnings.append(f"{form} is not faster: {figures}")
        return True, ""
    return True, f", and faster: {figures}"


def _best(
    passed: list[str], latencies: Mapping[str, float | None], drops: Mapping[str, Paired], settings: GateSettings
) -> str:
    fastest = min(_or_infinite(latencies[form]) for form in passed)
    as_fast = [form for form in passed if _or_infinite(latencies[form]) * (1 - settings.faster_by) <= fastest]
    return min(as_fast, key=lambda form: drops[form].drop)  # of equals the first


def _superlative(plain: Mapping[str, float | None]) -> str:
    if all(ms is None for ms in plain.values()):
        return "a form without INT8"
    return "the fastest form without INT8"


def _or_infinite(ms: float | None) -> float:
    return math.inf if ms is None else ms


def _check(
    drops: Mapping[str, Paired],
    latencies: Mapping[str, float | None],
    plain: Mapping[str, float | None],
    force: str | None,
) -> None:
    missing = sorted(set(drops) - set(latencies))
    if missing:
        raise UsageError("form has no latency entry", missing[0], "give None where it was not measured")
    if not plain:
        raise UsageError("no form without INT8 to fall back on", "gate", "give the latency of fp32 or fp16")
    for form, ms in latencies.items():
        if ms is not None and not (math.isfinite(ms) and ms > 0):
            raise UsageError(f"latency {ms!r} is not a positive number of ms", form, "measure it again")
    if force is not None and force not in latencies:
        raise UsageError(f"unknown form {force!r}", "force", f"use one of {', '.join(latencies)}")
