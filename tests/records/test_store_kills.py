"""A few kills; `make field-kills` runs 200."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import dataclasses, json, sys
from pathlib import Path
from benchmarks.store_kills import kill_repeatedly
print(json.dumps(dataclasses.asdict(kill_repeatedly(Path(sys.argv[1]), int(sys.argv[2]), seed=7))))
"""


def test_no_kill_loses_or_repeats_an_event(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path, "20"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    found = json.loads(run.stdout)
    assert found["failures"] == []
    assert found["kills"] == 20
    assert 0 < found["said"] <= found["kept"]
