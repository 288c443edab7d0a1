"""Ctrl-C while the program is still being imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("started", "imported"), [("cli.py", "numpy"), ("-medge_lsla", "rich")])
def test_ctrl_c_during_an_import_ends_quietly(started: str, imported: str, tmp_path: Path) -> None:
    (tmp_path / f"{imported}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, started, "--help"], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
