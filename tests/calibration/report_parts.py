"""A made-up report that fills every section, and the hostile names that a data set may bring."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from calibration.report.data import (
    ClassChange,
    Curve,
    CurvePoint,
    Flip,
    Form,
    LayerDamage,
    LayerHistogram,
    Making,
    ReportData,
    SearchStep,
    Verdict,
)
from calibration.report.pictures import thumbnail

SCRIPT = "<script>window.hacked = 1</script>"
HOSTILE = (
    SCRIPT,
    '"><img src=x onerror="window.hacked = 1">',
    "</style></title></svg><script>window.hacked = 1</script>",
    "$\\frac{a}$ & ' \x00\x1b[2J \ud800 \u202egpj.exe \ufffe",
    "javascript:window.hacked=1//" + "x" * 300,
    "图片 🐞 " + "漢" * 60,
)


def full_report(names: tuple[str, ...] = ("ant", "bee", "lady beetle", "beetle")) -> ReportData:
    """Return a report with something in every section; `names` serve as labels, layers and file names alike."""
    rng = np.random.default_rng(0)
    layers = [f"{names[index % len(names)]} {index}" for index in range(30)]

    def name(index: int) -> str:
        return names[index % len(names)]

    flips = tuple(
        Flip(
            f"folder/{name(index)}_{index}.jpg",
            truth=name(index),
            before=name(index if index % 3 else index + 1),
            before_p=float(rng.uniform(0.2, 0.9)),
            after=name(index + 2 if index % 2 else index),
            after_p=float(rng.uniform(0.2, 0.9)),
            picture=thumbnail(rng.integers(0, 256, (48, 48, 3)).astype(np.uint8)) if index != 1 else None,
        )
        for index in range(30)
    )
    values = rng.standard_normal(20_000)
    counts, _ = np.histogram(values, 2048, (-8, 8))
    histograms = tuple(
        LayerHistogram.of(layer, f"{layer} in", counts, -8.0, 8.0, (-3.0, 1.5 + index / 10))
        for index, layer in enumerate(layers[:20])
    )
    curves = tuple(
        Curve(form, tuple(CurvePoint(layer, 40 - index - 5 * place) for index, layer in enumerate(layers)))
        for place, form in enumerate(("int8", "mixed"))
    )
    return ReportData(
        model=name(0),
        verdict=Verdict((f"INT8 ships, says {name(0)}.", f"A second sentence, {name(1)}."), "int8", budget=0.5),
        forms=(
            Form("fp32", 79.3, (75.2, 82.9), size=4_587_182, latency_ms=2.13, int8_share=0.0),
            Form("int8", 79.1, (75.0, 82.7), 0.24, (-0.5, 1.0), 98.6, 1_270_306, 1.98, 1.0),
            Form(name(2), 79.4, (75.3, 83.0), -0.1, (-0.6, 0.4), 99.1, 1_364_348, 1.88, 0.9),
        ),
        measured_on=f"420 pictures of {name(0)}",
        timed_on=f"one thread of {name(1)}",
        classes=tuple(ClassChange(name(index) + str(index), 20, 15 + index, 30) for index in range(12)),
        flips=flips,
        damages=tuple(
            LayerDamage(layer, ("int8", "fp16", "fp32")[index % 3], 18.0 + index, index % 4)
            for index, layer in enumerate(layers)
        ),
        damage_images=105,
        histograms=histograms,
        curves=curves,
        search=(
            SearchStep(1.0, 1.2, False, (0.1, 2.3), f"all in int8, {name(0)}"),
            SearchStep(0.9, 0.6, False),
            SearchStep(0.8, 0.3, True, (-0.2, 0.8)),
            SearchStep(0.85, 0.4, True, (-0.2, 0.9)),
        ),
        making=Making(
            facts=(("method", "entropy"), ("pictures", f"512 of {name(0)}")),
            digests=(("model", "ab" * 32), (name(1), "cd" * 32)),
            versions=(("matplotlib", "3"),),
            warnings=(f"Few pictures for the budget: {name(2)}.",),
        ),
    )


def without(field: str) -> ReportData:
    """Return the full report with one field empty."""
    empty: dict[str, Any] = {field: Making() if field == "making" else ()}
    return dataclasses.replace(full_report(), **empty)


def exact_point() -> CurvePoint:
    """Return a point where nothing differs."""
    return CurvePoint("exact", math.inf)
