"""The service in a process of its own, on a synthetic camera, with a bundle of a tiny network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from field_parts import FIELD_CONFIG

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "slots"))


@dataclass
class Outcome:
    """How a command ended; `json` is the last line of its standard output."""

    code: int
    json: dict[str, Any]
    err: str


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny network."""
    from slot_parts import write

    return write(tmp_path_factory.mktemp("bundle") / "first.lsla", "first")


@pytest.fixture
def command(process: Callable[..., subprocess.Popen[str]]) -> Callable[..., Outcome]:
    """Run a verb with `--json` to its end."""

    def run(*arguments: object) -> Outcome:
        started = process(*arguments, "--json")
        out, err = started.communicate(timeout=120)
        assert "Traceback" not in err
        return Outcome(started.returncode, json.loads(out.strip().splitlines()[-1]), err)

    return run


@pytest.fixture
def configured(tmp_path: Path, bundle: Path) -> Callable[..., Path]:
    """Write a configuration with one synthetic camera."""

    def write(frames: int | None = None, more: str = "", regions: str = "full") -> Path:
        count = "" if frames is None else f"frames = {frames}"
        path = tmp_path / "field.toml"
        path.write_text(
            FIELD_CONFIG.format(data=tmp_path / "data", bundle=bundle, frames=count, more=more, regions=regions)
        )
        return path

    return write
