"""Scenes of walking insects with their truth, and what `Finding` makes of them; `tests/pipeline` uses them too."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.events import Box
from edge_lsla.pipeline.finding import Finding, FindingSettings, Found
from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.individuals import Track
from edge_lsla.pipeline.regions import share_inside
from edge_lsla.pipeline.scene import Scene, SceneSettings, Truth, Walker, crossing, cut_out
from edge_lsla.predictions import Prediction

SAMPLES = Path(__file__).parents[1] / "demo" / "samples"
Way = tuple[tuple[float, float, float], ...]
Answers = Sequence[tuple[Prediction, ...]]
Classify = Callable[[list[NDArray[np.uint8]], Sequence[Box], Sequence[Truth]], Answers]


@dataclass(frozen=True)
class Case:
    """A scene and how it is filmed.

    Attributes:
        name: what it shows.
        walkers: who walks.
        seconds: how long.
        rate: frames a second.
        scene: see `SceneSettings`.
        settings: see `FindingSettings`.
        expected: individuals to be counted; None counts the walkers.
    """

    name: str
    walkers: tuple[Walker, ...]
    seconds: float
    rate: float = 15.0
    scene: SceneSettings = field(default_factory=SceneSettings)
    settings: FindingSettings = field(default_factory=lambda: FindingSettings(min_confidence=0.5))
    expected: int | None = None

    @property
    def truth(self) -> int:
        return len(self.walkers) if self.expected is None else self.expected


@dataclass
class Outcome:
    """How a case went: each arrival with the walker that it showed, or None."""

    arrived: list[tuple[Track, int | None]] = field(default_factory=list)
    left: list[Track] = field(default_factory=list)
    live: list[Track] = field(default_factory=list)
    regions: int = 0
    frames: int = 0
    full_frame_changes: int = 0
    labels_right: int = 0
    overhead_ms: list[float] = field(default_factory=list)

    @property
    def twice(self) -> int:
        """Individuals counted again."""
        seen = Counter(number for _, number in self.arrived if number is not None)
        return sum(times - 1 for times in seen.values())

    @property
    def false(self) -> int:
        """Individuals counted where there was none."""
        return sum(number is None for _, number in self.arrived)

    def to_dict(self, case: Case) -> dict[str, Any]:
        return {
            "truth": case.truth,
            "counted": len(self.arrived),
            "twice": self.twice,
            "false": self.false,
            "named_right": self.labels_right,
            "full_frame_changes": self.full_frame_changes,
            "regions_per_frame": round(self.regions / max(1, self.frames), 2),
            "overhead_ms_p50": round(float(np.percentile(self.overhead_ms, 50)), 2),
            "overhead_ms_p99": round(float(np.percentile(self.overhead_ms, 99)), 2),
        }


def oracle(crops: list[NDArray[np.uint8]], boxes: Sequence[Box], truth: Sequence[Truth]) -> Answers:
    """Name what a region shows from the truth, so that a count says something of finding and tracking alone."""
    answers = []
    for box in boxes:
        best = shown(box, truth)
        answers.append((Prediction(0, best.label, 0.9) if best else Prediction(0, "nothing", 0.2),))
    return answers


def shown(box: Box, truth: Sequence[Truth]) -> Truth | None:
    """Return which walker a box shows best; None where it shows none."""
    share = [min(1.0, share_inside(one.box, box)) * share_inside(box, one.box) for one in truth]
    best = int(np.argmax(share)) if share else 0
    return truth[best] if share and share[best] > 0.05 else None


def play(case: Case, classify: Classify = oracle) -> Outcome:
    """Show a case to `Finding`, frame by frame."""
    scene, finding, outcome = Scene(case.walkers, case.scene), Finding("test", case.settings), Outcome()
    numbers: dict[str, int | None] = {}
    for sequence in range(round(case.seconds * case.rate)):
        seconds = sequence / case.rate
        frame = Frame(scene.draw(seconds), 1e9 + seconds, sequence, "test", live=True, captured=5e4 + seconds)
        begin = time.perf_counter()
        boxes = finding.regions(frame)
        crops = finding.crops(frame, boxes)
        middle = time.perf_counter()
        predictions = classify(crops, boxes, scene.truth(seconds, least=0.0)) if boxes else ()
        after = time.perf_counter()
        found: Found = finding.conclude(frame, boxes, predictions)
        finding.learn(frame)
        outcome.overhead_ms.append(1000 * (time.perf_counter() - after + middle - begin))
        outcome.regions += len(boxes)
        outcome.frames += 1
        for track in found.arrived:
            match = shown(track.box, scene.truth(seconds, least=0.0))
            numbers[track.id] = match.number if match else None
            outcome.arrived.append((track, numbers[track.id]))
        outcome.left += found.left
    outcome.live = list(finding.finish())
    outcome.full_frame_changes = finding.full_frame_changes
    final = [*outcome.left, *outcome.live]
    names = {number: one.label for number, one in enumerate(case.walkers)}
    outcome.labels_right = sum(names.get(numbers[t.id]) == t.label for t in final if numbers[t.id] is not None)  # type: ignore[arg-type]
    return outcome


def walker(name: str, way: Way, side: int = 56) -> Walker:
    """Return an insect of the samples, such as "lady_beetle_1", on its way."""
    return Walker(cut_out(SAMPLES / f"{name}.jpg"), name.rpartition("_")[0].replace("_", " "), side, way)


def line(start: float, end: float, y: float, to_y: float | None = None) -> Way:
    """Cross the frame from left to right."""
    return ((start, -40.0, y), (end, 680.0, y if to_y is None else to_y))


def easy_cases() -> list[Case]:
    """Return the scenes in which everybody must be counted once."""
    sits = ((2.0, -40.0, 240.0), (5.0, 300.0, 240.0), (65.0, 300.0, 240.0), (68.0, 680.0, 200.0))
    lands = ((2.0, 320.0, 240.0), (22.0, 320.0, 240.0), (25.0, 700.0, 240.0))
    walks = line(2.0, 7.0, 200.0)
    two = (walker("lady_beetle_1", line(2, 8, 200)), walker("bee_1", line(3, 8, 330)))
    cross = (
        walker("spider_2", ((2.0, -40.0, 100.0), (8.0, 680.0, 380.0))),
        walker("bee_1", ((2.0, 680.0, 110.0), (8.0, -40.0, 370.0))),
    )
    beside = (walker("lady_beetle_1", line(2, 8, 220)), walker("beetle_1", line(2.1, 8.1, 285)))
    back = ((2.0, -40.0, 240.0), (4.0, 200.0, 240.0), (6.0, -40.0, 240.0))
    again = (walker("fly_1", back), walker("fly_1", tuple((t + 8, x, y) for t, x, y in back)))
    there = (walker("lady_beetle_1", ((0.0, 200.0, 240.0), (6.0, 200.0, 240.0), (10.0, 700.0, 240.0))),)
    names = ("ant_2", "fly_1", "beetle_1", "spider_1")
    small = tuple(walker(name, line(2 + i, 9 + i, 100 + 80 * i), 20) for i, name in enumerate(names))
    return [
        Case("one crosses", (walker("lady_beetle_1", walks),), 10),
        Case("two cross", two, 11),
        Case("crossing paths", cross, 11),
        Case("side by side", beside, 11),
        Case("comes in, turns and leaves, twice", again, 17),
        Case("sits for a minute", (walker("butterfly_1", sits),), 71, rate=10),
        Case("lands, sits, walks off", (walker("spider_2", lands),), 28, rate=10),
        Case("is there at the start and leaves", there, 20),
        Case("nobody", (), 20, expected=0),
        Case("nobody, the camera trembles", (), 12, scene=SceneSettings(shake_px=1.5), expected=0),
        Case("one crosses, the camera trembles", two, 11, scene=SceneSettings(shake_px=1.5)),
        Case("the light is switched", two, 14, scene=SceneSettings(light=((0, 1), (9.5, 1), (9.6, 0.45)))),
        Case("a cloud passes", two, 20, scene=SceneSettings(light=((0, 1), (4, 1), (7, 0.7), (14, 0.7), (16, 1)))),
        Case("much noise", two, 11, scene=SceneSettings(noise=10.0)),
        Case("5 frames a second", two, 11, rate=5),
        Case("small ones, 20 px", small, 16),
    ]  # fmt: skip


def crowds(number: int = 5) -> list[Case]:
    """Return scenes of insects that come and go as they like, and cover each other now and then."""
    pictures = sorted(SAMPLES.glob("*.jpg"))
    few = [Case("8 in 20 s", crossing(pictures, 8, (640, 480), 20, seed), 24) for seed in range(number)]
    many = [Case("24 in 40 s", crossing(pictures, 24, (640, 480), 40, seed), 44) for seed in range(number)]
    return few + many
