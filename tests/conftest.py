"""Tiny real models, shared by the tests that run the whole chain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# The kernels run in Triton's interpreter here. Triton reads this when it is first imported, which PyTorch may do for
# any test; a subprocess that compiles kernels clears it.
os.environ["TRITON_INTERPRET"] = "1"

# Started in the background by a shell, this process ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

LABELS = ("ant", "bee", "lady beetle")


def draw(index: int, seed: int, side: int = 48) -> Image.Image:
    """Draw a picture whose class shows in its colour."""
    rng = np.random.default_rng([index, seed])
    pixels = rng.integers(0, 90, (side, side, 3))
    pixels[:, :, index] += 150
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three colours, a folder per class below train, val and test."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "classes.txt").write_text("".join(f"{label}\n" for label in LABELS))
    for split, each in (("train", 16), ("val", 4), ("test", 4)):
        for index, label in enumerate(LABELS):
            folder = root / split / label.replace(" ", "_")
            folder.mkdir(parents=True)
            for number in range(each):
                draw(index, number + {"train": 0, "val": 100, "test": 200}[split]).save(folder / f"{number}.jpg")
    return root


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny ViT-LSLA with lively random tables and scales, so that an error in any term shows."""
    import torch

    from edge_lsla.model.checkpoint import save_checkpoint
    from edge_lsla.model.config import VitLslaConfig
    from edge_lsla.model.vit_lsla import LslaAttention, VitLsla
    from edge_lsla.preprocessing import Preprocessing

    torch.manual_seed(0)
    config = VitLslaConfig("tiny", len(LABELS), 32, widths=(32, 64), depths=(1, 1), windows=(4, 2))
    model = VitLsla(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LslaAttention):
                for table in (module.scale_weight, module.inner_bias, module.outer_bias):
                    table.normal_(std=0.2)
        model.head.weight.normal_(std=0.5)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(path, model.state_dict(), config, LABELS, Preprocessing(32))
    return path


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a verb in a process of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[1] / "cli.py"), *(str(a) for a in arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        ))  # fmt: skip
        return started[-1]

    yield start
    for one in started:
        one.kill()
        if not (one.stdout is None or one.stdout.closed):
            one.communicate()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell with which TensorRT headers and runtimes tests passed, and how many tests lacked a part of the machine."""
    passed = terminalreporter.stats.get("passed", [])
    noted = {value for report in passed for key, value in report.user_properties if key == "exercised"}
    if noted:
        terminalreporter.write_line(f"the plugin was exercised with: {', '.join(sorted(noted))}")
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.write_line(f"{skipped} tests were SKIPPED: the lines above say what this machine lacks")


@pytest.fixture(scope="module")
def counting(checkpoint: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in INT8 with counters, and in FP32."""
    from typer.testing import CliRunner

    import cli

    path = tmp_path_factory.mktemp("counting") / "tiny.lsla"
    arguments = ["build-engine", checkpoint, "-o", path, "--precision", "int8,fp32", "--data", pictures, "--counters"]
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return path
