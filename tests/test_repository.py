"""A clone must hold what the working folder holds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_source_file_is_ignored_by_git() -> None:
    listed = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", "*.py", "*.md", "*.json"]
    ignored = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    ours = ("edge_lsla/", "calibration/", "plugins/", "tests/", "benchmarks/", "docs/", "demo/")
    assert [name for name in ignored if name.startswith(ours)] == []
