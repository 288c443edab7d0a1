"""Which layers INT8 hurts: each alone, and all from the first to each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from calibration.evaluations import Evaluations, Outcome

Progress = Callable[[int, int, str], None]  # done, of, what


@dataclass(frozen=True)
class Damage:
    """What INT8 in one layer does to the logits of the search pictures.

    Attributes:
        layer: its name.
        snr_db: signal-to-noise ratio of the logits, dB; infinite where nothing changed.
        logit_change: mean |change of logits| over mean |logits|.
        flips: pictures whose named class changed. images: of how many.
        drop: points of top-1 lost (of agreement with float, without labels). expected_drop: see `evaluations`.
        noise: power of the change over the power of the logits. Of layers whose errors have nothing to do with each
            other it adds up, so that ranks and searches go by it.
    """

    layer: str
    snr_db: float
    logit_change: float
    flips: int
    images: int
    drop: float
    expected_drop: float
    noise: float

    @classmethod
    def of(cls, layer: str, outcome: Outcome) -> Damage:
        """Name a layer for an outcome."""
        return cls(
            layer, outcome.snr_db, outcome.change, outcome.flips, outcome.images, outcome.drop, outcome.expected_drop,
            outcome.noise,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values; no signal-to-noise ratio where nothing changed."""
        return {
            "layer": self.layer,
            "snr_db": round(self.snr_db, 2) if self.noise else None,
            "logit_change": round(self.logit_change, 6),
            "flips": self.flips,
            "images": self.images,
            "drop": round(self.drop, 3),
            "expected_drop": round(self.expected_drop, 4),
        }


def rank_layers(evaluations: Evaluations, progress: Progress | None = None) -> tuple[Damage, ...]:
    """Run the search pictures once for each layer with only that layer in INT8; the most harmful layer comes first.

    Results are remembered by `evaluations`, and so an interrupted ranking goes on where it stopped. Equal layers keep
    their order in the graph.
    """
    found = [
        Damage.of(layer, _measure(evaluations, (layer,), index, layer, progress))
        for index, layer in enumerate(evaluations.names)
    ]
    return tuple(sorted(found, key=lambda damage: -damage.noise))


def error_curve(evaluations: Evaluations, progress: Progress | None = None) -> tuple[Damage, ...]:
    """Measure the first layer in INT8, the first two, and so on to all, in graph order: how the error builds up.

    `layer` of each entry is the last one switched. It costs as many runs as `rank_layers`.
    """
    names = evaluations.names
    return tuple(
        Damage.of(layer, _measure(evaluations, names[: index + 1], index, f"up to {layer}", progress))
        for index, layer in enumerate(names)
    )


def _measure(
    evaluations: Evaluations, int8: tuple[str, ...], index: int, what: str, progress: Progress | None
) -> Outcome:
    outcome = evaluations.measure(int8)
    if progress is not None:
        progress(index + 1, len(evaluations.names), what)
    return outcome
