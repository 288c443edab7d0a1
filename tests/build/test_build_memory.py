"""The forecast against what is free, and progress as one growing number."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from build_parts import SM86

from edge_lsla.build.tensorrt.memory import (
    DEFAULT_WORKSPACE_BYTES,
    MIB,
    check_memory,
    forecast_bytes,
    free_bytes,
    peak_bytes,
    shares_memory,
    workspace_bytes,
)
from edge_lsla.build.tensorrt.progress import TOTAL, PhaseProgress
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.errors import EdgeLslaError

TENSORRT = BuildSettings("tensorrt")


def test_the_forecast_grows_with_the_model_and_the_profiles() -> None:
    assert forecast_bytes(SM86, 10 * MIB) - forecast_bytes(SM86, 0) == 30 * MIB
    assert forecast_bytes(replace(SM86, profiles=((1, 1, 1), (4, 4, 4))), 0) > forecast_bytes(SM86, 0)
    assert forecast_bytes(TENSORRT, 0) > forecast_bytes(SM86, 0)


def test_too_little_is_refused_in_a_sentence() -> None:
    with pytest.raises(
        EdgeLslaError, match=r"about 670 MB are needed: 300 MB are free; close other programs"
    ) as caught:
        check_memory(SM86, 10 * MIB, 300 * MIB, shared=False)
    assert caught.value.exit_code == 1


def test_tight_memory_is_a_warning_and_enough_is_none() -> None:
    assert check_memory(SM86, 10 * MIB, 740 * MIB, shared=False) == (
        "memory will be tight: the build may take 670 MB of 740 MB that are free; close other programs"
    )
    assert check_memory(SM86, 10 * MIB, 2000 * MIB, shared=False) is None


def test_the_workspace_counts_where_cpu_and_gpu_share_memory() -> None:
    assert workspace_bytes(SM86) is None
    assert workspace_bytes(TENSORRT) == DEFAULT_WORKSPACE_BYTES
    free = 2700 * MIB
    assert check_memory(TENSORRT, 10 * MIB, free, shared=False) is None
    warning = check_memory(TENSORRT, 10 * MIB, free, shared=True)
    assert warning is not None
    assert "2554 MB of 2700 MB" in warning
    assert "lower --workspace" in warning
    assert check_memory(replace(TENSORRT, workspace_bytes=64 * MIB), 10 * MIB, free, shared=True) is None


def test_what_is_free_is_read_from_the_system_or_the_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n")
    assert free_bytes(tmp_path, tmp_path / "none") == 4000000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_bytes(tmp_path, tmp_path) == 4000000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    assert free_bytes(tmp_path, tmp_path) == 999000
    assert 0 < free_bytes() < 2**50


def test_a_jetson_is_recognised_by_its_device_tree(tmp_path: Path) -> None:
    tree = tmp_path / "compatible"
    assert not shares_memory(tree)
    tree.write_bytes(b"nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0")
    assert shares_memory(tree)


def test_the_peak_of_a_process_is_read_and_of_none_is_zero() -> None:
    assert peak_bytes("self") > 10 * MIB
    assert peak_bytes(os.getpid()) > 10 * MIB
    assert peak_bytes(2**30) == 0


def run_phases(progress: PhaseProgress, timings: int) -> None:
    """The phases of TensorRT, as 1.7 of the RTX builder names and nests them."""
    progress.start("Building engine", None, 6)
    progress.start("Cloning network graph", "Building engine", 300)
    for step in range(300):
        progress.advance("Cloning network graph", step)
    progress.finish("Cloning network graph")
    for step in range(4):
        progress.advance("Building engine", step)
    progress.start("Building engine from subgraph", "Building engine", 1)
    progress.start("Computing profile costs", "Building engine from subgraph", 5)
    progress.start("Timing tactics", "Computing profile costs", 3)
    progress.start("Timing graph nodes", "Timing tactics", timings)
    for step in range(timings):
        progress.advance("Timing graph nodes", step)
    for name in ("Timing graph nodes", "Timing tactics", "Computing profile costs", "Building engine from subgraph"):
        progress.finish(name)
    for step in range(4, 6):
        progress.advance("Building engine", step)
    progress.finish("Building engine")


def test_progress_only_grows_and_most_of_it_is_the_timing() -> None:
    told: list[tuple[int, int, str]] = []
    run_phases(PhaseProgress(lambda *a: told.append(a)), 100)
    done = [entry[0] for entry in told]
    assert done == sorted(set(done))
    assert done[-1] == TOTAL
    assert {entry[1] for entry in told} == {TOTAL}
    timing = [entry[0] for entry in told if entry[2] == "Timing graph nodes"]
    assert timing[-1] - timing[0] > 0.7 * TOTAL
    assert timing[0] < 0.1 * TOTAL


def test_unknown_phases_and_repeated_ones_do_no_harm() -> None:
    told: list[int] = []
    progress = PhaseProgress(lambda done, total, phase: told.append(done))
    progress.advance("never started", 3)
    progress.finish("never started")
    run_phases(progress, 3)
    run_phases(progress, 3)
    assert told == sorted(set(told))


def test_the_clock_counts_where_phases_tell_nothing() -> None:
    told: list[int] = []
    progress = PhaseProgress(lambda done, total, phase: told.append(done), expected_seconds=0.5)
    with progress.ticking():
        run_phases(progress, 3)
        import time

        time.sleep(0.6)
    # After 0.5 s of an expected 0.5 s: 1 - 1/e of it, and a later tick more.
    assert told == sorted(set(told))
    assert 500 < told[-1] < TOTAL
