"""Comparing how long things take, fairly."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def times_ms(runs: Mapping[str, Callable[[], object]], rounds: int = 100, warm_up: int = 10) -> dict[str, list[float]]:
    """Return each run's times, milliseconds, measured in turn so that all of them meet the same load.

    Args:
        runs: name to a function that returns when its work is done.
        rounds: how often each is measured.
        warm_up: how often each is run before that.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(warm_up + rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if round_ >= warm_up:
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def medians_ms(runs: Mapping[str, Callable[[], object]], rounds: int = 100, warm_up: int = 10) -> dict[str, float]:
    """Return each run's median time, milliseconds; see `times_ms`."""
    return {name: statistics.median(values) for name, values in times_ms(runs, rounds, warm_up).items()}


def processor_name() -> str:
    """Return what this machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
