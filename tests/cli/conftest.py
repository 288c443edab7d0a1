"""Running verbs as a user does, in this process, and in a process of their own where signals or memory matter."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


@dataclass
class Outcome:
    """How a command ended; `json` is the last line of its standard output where `--json` was given."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out.strip().splitlines()[-1])  # type: ignore[no-any-return]


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run a verb in this process: `command("inspect", path, "--json")`."""
    import cli

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: object) -> Outcome:
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model in INT8 and FP32, built by the real verb."""
    import cli

    path = tmp_path_factory.mktemp("bundle") / "tiny.lsla"
    arguments = ["build-engine", checkpoint, "-o", path, "--precision", "int8,fp32", "--data", pictures]
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return path
