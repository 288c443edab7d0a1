"""The cheapest precision for each layer within an accuracy budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calibration.costs import Costs
from calibration.evaluations import Evaluations, Outcome
from calibration.sensitivity import Damage, Progress, rank_layers
from edge_lsla.errors import UsageError

SLACK = 1e-9  # points: sums of floats must not refuse what is exactly on the budget


@dataclass(frozen=True)
class SearchSettings:
    """What is searched for.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    max_drop: float = field(metadata={"help": "points of top-1 that may be lost against float"})
    fallback: str = field(default="fp32", metadata={"help": "what layers without INT8 run in: fp32, or fp16 on GPUs"})
    reserve: float = field(default=0.5, metadata={"help": "part of the budget that the expected drop must leave free"})

    def __post_init__(self) -> None:
        for name, most in (("max_drop", 100), ("reserve", 1)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= most:
                raise UsageError(f"{value!r} is not a number from 0 to {most}", name, "correct it")
        if self.fallback not in ("fp16", "fp32"):
            raise UsageError(f"unknown precision {self.fallback!r}", "fallback", "use fp32 or fp16")

    @property
    def expected(self) -> float:
        """The largest expected drop that is accepted, points."""
        return self.max_drop * (1 - self.reserve)

    def accept(self, outcome: Outcome) -> bool:
        """Say whether an outcome is within the budget."""
        return outcome.drop <= self.max_drop + SLACK and outcome.expected_drop <= self.expected + SLACK


@dataclass(frozen=True)
class Step:
    """One assignment that was tried.

    Attributes:
        tried: in words. int8: how many layers it has in INT8. accepted: whether it is within the budget.
        drop, expected_drop: points; see `evaluations.Outcome`.
    """

    tried: str
    int8: int
    drop: float
    expected_drop: float
    accepted: bool


@dataclass(frozen=True)
class Found:
    """What `search` found.

    Attributes:
        assignment: precision of each layer, in graph order.
        outcome: what it does on the search pictures.
        ranking: every layer's damage alone, the most harmful first.
        cost, cost_float, cost_int8: of the assignment, of no layer in INT8, of all, in the unit of `unit`.
        share_int8: which part of the multiply-adds is done in INT8, 0..1.
        steps: the assignments tried, in order.
        source: where the costs come from, in words.
        notes: sentences on what stays in float. warnings: sentences on what is not sure.
        refusal: why no layer could be put in INT8, as a sentence; None where some could.
    """

    assignment: dict[str, str]
    outcome: Outcome
    ranking: tuple[Damage, ...]
    cost: float
    cost_float: float
    cost_int8: float
    unit: str
    share_int8: float
    steps: tuple[Step, ...]
    source: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def int8(self) -> tuple[str, ...]:
        """Names of the layers in INT8, in graph order."""
        return tuple(layer for layer, precision in self.assignment.items() if precision == "int8")

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the other layers: what `QdqSettings.keep_float` takes."""
        return tuple(layer for layer, precision in self.assignment.items() if precision != "int8")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {
            "assignment": self.assignment,
            "images": self.outcome.images,
            "drop": round(self.outcome.drop, 3),
            "expected_drop": round(self.outcome.expected_drop, 4),
            "flips": self.outcome.flips,
            "cost": {"unit": self.unit, "found": self.cost, "float": self.cost_float, "int8": self.cost_int8},
            "share_int8": round(self.share_int8, 4),
            "ranking": [damage.to_dict() for damage in self.ranking],
            "steps": [vars(step) for step in self.steps],
            "notes": [*self.warnings, *self.notes],
            "refusal": self.refusal,
        }


def search(
    evaluations: Evaluations,
    costs: Costs,
    settings: SearchSettings,
    progress: Progress | None = None,
    floats: Mapping[str, str] | None = None,
    start: tuple[str, ...] = (),
) -> Found:
    """Put as many layers in INT8, the most profitable first, as the budget allows on the search pictures.

    Layers are ordered by damage (noise of the logits) for each unit of cost that INT8 saves; those where it saves
    nothing stay in float. All of them are tried first, then the longest beginning of that order within the budget is
    found by bisection, and then each layer that is left is tried in addition, in turn. An assignment is within the
    budget only if the drop counted on the search pictures does not exceed it, and the drop expected
    (`evaluations.expected_drop`, which is finer than one picture) leaves the reserve free: of many assignments the
    search finds one that is lucky on these pictures, and the gate judges on others.

    The same inputs give the same result; a larger budget gives a beginning at least as long, and with the layers of a
    smaller budget as `start` a result that holds all of those. An interrupted search goes on where it stopped, for
    `evaluations` remembers. Float stands for the fallback: fp16 is taken to lose nothing.

    Args:
        evaluations: of the search pictures.
        costs: of each of its layers, at least; see `costs`.
        settings: budget and fallback.
        progress: told (done, of, what); how many tries are left is an upper bound.
        floats: layers whose float precision is not the fallback, such as those that fp16 would overflow in.
        start: layers to begin with; left out where they are not within the budget.

    Raises:
        UsageError: a layer has no cost in a precision that it may get.
    """
    work = _Search(evaluations, costs, settings, dict(floats or {}), progress)
    return work.run(start)


class _Search:
    def __init__(
        self,
        evaluations: Evaluations,
        costs: Costs,
        settings: SearchSettings,
        floats: dict[str, str],
        progress: Progress | None,
    ) -> None:
        self.evaluations, self.costs, self.settings, self.progress = evaluations, costs, settings, progress
        self.floats = {name: floats.get(name, settings.fallback) for name in evaluations.names}
        for name, precision in self.floats.items():
            if name not in costs.layers or not {precision, "int8"} <= set(costs.layers[name].of):
                raise UsageError(
                    f"layer has no cost in int8 and {precision}", name, "profile it, or let it be estimated"
                )
        self.steps: list[Step] = []
        self.done, self.most = 0, 0

    def run(self, start: tuple[str, ...]) -> Found:
        names = self.evaluations.names
        self.most = len(names) * 2 + math.ceil(math.log2(len(names) + 1)) + 2
        ranking = rank_layers(self.evaluations, lambda done, of, what: self.tell(what))
        saving = {name: self.costs.layers[name].saving(self.floats[name]) for name in names}
        worth = [damage for damage in reversed(ranking) if saving[damage.layer] > 0]
        order = [damage.layer for damage in sorted(worth, key=lambda damage: damage.noise / saving[damage.layer])]
        chosen = [name for name in start if name in order]
        if chosen and not self.within(chosen, f"{len(chosen)} layers to begin with"):
            chosen = []
        chosen = self.refine(*self.longest(chosen, [name for name in order if name not in chosen]))
        self.most = self.done + 1
        self.tell("done")
        return self.report(set(chosen), ranking, tuple(name for name in names if saving[name] <= 0))

    def longest(self, chosen: list[str], order: list[str]) -> tuple[list[str], list[str]]:
        """Return the longest beginning of an order that is within the budget, and the layers behind the next one."""
        low, high = 0, len(order) + 1  # a beginning of `low` is within, one of `high` is not or does not exist
        middle = len(order)  # everything is tried first
        while high - low > 1:
            if self.within([*chosen, *order[:middle]], f"the {middle} most profitable layers"):
                low = middle
            else:
                high = middle
            middle = (low + high) // 2
        return [*chosen, *order[:low]], order[low + 1 :]

    def refine(self, chosen: list[str], left: list[str]) -> list[str]:
        """Try each layer that is left in addition, in turn."""
        for name in left:
            if self.within([*chosen, name], f"{name} in addition"):
                chosen = [*chosen, name]
        return chosen

    def within(self, layers: list[str], tried: str) -> bool:
        outcome = self.evaluations.measure(layers)
        accepted = self.settings.accept(outcome)
        self.steps.append(Step(tried, len(layers), outcome.drop, outcome.expected_drop, accepted))
        self.tell(tried)
        return accepted

    def tell(self, what: str) -> None:
        self.done = min(self.done + 1, self.most)
        if self.progress is not None:
            self.progress(self.done, self.most, what)

    def report(self, int8: set[str], ranking: tuple[Damage, ...], idle: tuple[str, ...]) -> Found:
        assignment = {name: "int8" if name in int8 else floating for name, floating in self.floats.items()}
        notes, warnings = [], []
        one, budget, images = 100 / self.evaluations.images, self.settings.max_drop, self.evaluations.images
        if one > budget:
            warnings.append(
                f"one of {images} search pictures is {one:.2f} points, more than the budget of {budget:g}: "
                "no net loss of a picture was allowed, and the expected drop decided"
            )
        if idle:
            notes.append(f"INT8 saves nothing in {_listed(idle)} ({self.costs.source})")
        harmful = [d for d in ranking if d.layer not in int8 and d.layer not in idle]
        if harmful:
            shown = [f"{d.layer} ({d.snr_db:.1f} dB)" for d in harmful]
            notes.append(f"kept in float for the budget of {budget:g} points: {_listed(shown)}")
        refusal = None
        if not int8 and harmful:
            mildest = min(harmful, key=lambda damage: max(damage.drop, damage.expected_drop))
            refusal = (
                f"no layer can run in INT8 within {budget:g} points of top-1: even {mildest.layer} alone loses "
                f"{mildest.drop:.2f} on {images} search pictures, and {mildest.expected_drop:.2f} are to be expected, "
                f"where {self.settings.expected:g} are allowed; all stays in {self.settings.fallback}"
            )
        elif not int8:
            refusal = f"INT8 saves nothing in any layer ({self.costs.source}); all stays in {self.settings.fallback}"
        return Found(
            assignment=assignment,
            outcome=self.evaluations.measure(int8),
            ranking=ranking,
            cost=self.costs.total(assignment),
            cost_float=self.costs.total(self.floats),
            cost_int8=self.costs.total(dict.fromkeys(assignment, "int8")),
            unit=self.costs.unit,
            source=self.costs.source,
            share_int8=self.costs.share_int8(assignment),
            steps=tuple(self.steps),
            notes=tuple(notes),
            warnings=tuple(warnings),
            refusal=refusal,
        )


def _listed(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
