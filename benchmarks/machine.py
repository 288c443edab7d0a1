"""What a figure was measured on, and where it is kept."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from edge_lsla.timing import processor_name

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, Any]:
    """Return the processor, the cores that may be used, and the versions that matter."""
    import onnxruntime
    import torch

    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def keep(name: str, figures: dict[str, Any]) -> None:
    """Print the figures and write them to results/NAME.json, with the machine they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    for key, value in figures.items():
        print(f"{name}: {key} = {value}")
    record = {"machine": describe(), **figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
