"""Counting individuals in scenes whose truth is known, named by an oracle and by the demo model; and what it costs.

Needs no data but `demo/`. The oracle's figures say how good finding and following are, the model's how good all of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.finding_scenes import Answers, Case, Classify, Outcome, crowds, easy_cases, oracle, play
from benchmarks.machine import keep
from edge_lsla.data.backgrounds import BACKGROUND_KINDS, background
from edge_lsla.events import Box
from edge_lsla.pipeline.scene import Truth
from edge_lsla.predictions import Prediction
from edge_lsla.runner.model import Model, load

DEMO = Path(__file__).parents[1] / "demo"
MODEL_CONFIDENCE = 0.5  # below it the demo model's names are unknown here
EMPTY = 60  # backgrounds without an insect, for the share that is refused


def count(cases: Sequence[Case], classify: Classify) -> tuple[list[Outcome], dict[str, dict[str, Any]]]:
    outcomes = [play(case, classify) for case in cases]
    return outcomes, {case.name: outcome.to_dict(case) for case, outcome in zip(cases, outcomes)}


def summed(cases: Sequence[Case], classify: Classify) -> dict[str, dict[str, Any]]:
    """Return the sums over cases of one name, which differ by chance."""
    sums: dict[str, dict[str, Any]] = {}
    for case in cases:
        outcome = play(case, classify)
        row = sums.setdefault(case.name, dict.fromkeys(("scenes", "truth", "counted", "twice", "false", "errors"), 0))
        facts = outcome.to_dict(case)
        for name in ("truth", "counted", "twice", "false"):
            row[name] += facts[name]
        row["scenes"] += 1
        row["errors"] += abs(facts["counted"] - facts["truth"])
    for row in sums.values():
        row["counting_error_percent"] = round(100 * row.pop("errors") / max(1, row["truth"]), 1)
    return sums


def by_model(model: Model) -> Classify:
    def classify(crops: list[NDArray[np.uint8]], boxes: Sequence[Box], truth: Sequence[Truth]) -> Answers:
        return model(list(crops), 3)

    return classify


def refused_share(model: Model) -> float:
    """Return the share of drawn backgrounds without an insect that the model calls unknown."""
    rng = np.random.default_rng(0)
    empty = [np.clip(background(BACKGROUND_KINDS[i % 3], rng, 160), 0, 255).astype(np.uint8) for i in range(EMPTY)]
    sure: list[Prediction] = [answer[0] for answer in model(list(empty), 1)]
    return sum(one.probability < MODEL_CONFIDENCE for one in sure) / EMPTY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=5, help="random scenes of each kind")
    arguments = parser.parse_args()
    import cv2

    cv2.setNumThreads(1)
    easy, crowded = easy_cases(), crowds(arguments.scenes)
    outcomes, rows = count(easy, oracle)
    costs = np.concatenate([one.overhead_ms for one in outcomes])
    quiet = np.concatenate([one.overhead_ms for case, one in zip(easy, outcomes) if not case.walkers])
    figures: dict[str, Any] = {
        "easy": rows,
        "easy_wrong": [case.name for case in easy if rows[case.name]["counted"] != case.truth],
        "crowds": summed(crowded, oracle),
        "overhead_640x480_one_thread_ms": {
            "nothing_moves_p50": round(float(np.percentile(quiet, 50)), 2),
            "p50": round(float(np.percentile(costs, 50)), 2),
            "p99": round(float(np.percentile(costs, 99)), 2),
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        bundle = f"{folder}/demo.lsla"
        command = ["build-engine", str(DEMO / "vit_lsla_demo.safetensors"), "-o", bundle, "--precision", "int8"]
        command += ["--data", str(DEMO / "calibration"), "--method", "minmax"]
        subprocess.run([sys.executable, "cli.py", *command], check=True, stdout=subprocess.DEVNULL)
        with load(bundle) as model:
            settings = [
                dataclasses.replace(case, settings=dataclasses.replace(case.settings, min_confidence=MODEL_CONFIDENCE))
                for case in easy
            ]
            _, named = count(settings, by_model(model))
            figures["demo_model_easy"] = {
                name: {key: row[key] for key in ("truth", "counted", "named_right")} for name, row in named.items()
            }
            figures["demo_model_crowds"] = summed(crowded, by_model(model))
            figures["demo_model_refuses_empty_backgrounds"] = round(refused_share(model), 3)
    keep("finding", figures)


if __name__ == "__main__":
    main()
