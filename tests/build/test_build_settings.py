"""Settings check themselves and name the field."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.errors import UsageError

RTX = {"backend": "tensorrt-rtx", "targets": ("sm86",)}
TENSORRT = {"backend": "tensorrt"}


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"backend": "onnxruntime"}, "backend", "unknown backend 'onnxruntime'"),
        ({"backend": "tensorrt", "targets": ("sm87",)}, "--target", "only for the machine"),
        ({"backend": "tensorrt-rtx"}, "--target", "needs a target"),
        ({**RTX, "targets": "sm86"}, "--target", "not a list"),
        ({**RTX, "targets": ("8.6",)}, "--target", "'8.6' is not a target"),
        ({**RTX, "targets": ("sm86", "sm86")}, "--target", "twice"),
        ({**RTX, "profiles": ()}, "profiles", "not a list"),
        ({**RTX, "profiles": ((1, 2),)}, "profiles", "not three"),
        ({**RTX, "profiles": ((1, 4, 2),)}, "profiles", "1, 4, 2 is not in ascending order"),
        ({**RTX, "profiles": ((0, 1, 1),)}, "--batch", "0 is not a whole number"),
        ({**RTX, "profiles": ((1, 1, 1e9),)}, "--batch", "not a whole number"),
        ({**RTX, "profiles": ((True, 1, 1),)}, "--batch", "not a whole number"),
        ({**RTX, "workspace_bytes": 1000}, "--workspace", "a workspace of 1000 bytes is not from 1 to 16,777,216 MiB"),
        ({**RTX, "workspace_bytes": True}, "--workspace", "a workspace of True bytes"),
        (
            {**RTX, "workspace_bytes": 99_999_999 * 2**20},
            "--workspace",
            "a workspace of 99,999,999 MiB is not from 1 to 16,777,216 MiB",
        ),
        ({**RTX, "workspace_bytes": 10**400 * 2**20}, "--workspace", "000 MiB is not from 1 to"),
        ({**RTX, "optimisation_level": 6}, "--level", "from 0 to 5"),
        ({**RTX, "timing_cache": Path("c")}, "timing_cache", "it measures nothing"),
        ({**RTX, "plugin_library": Path("p.so")}, "plugin_library", "take no plugins"),
        ({**TENSORRT, "plugin_library": 3}, "plugin_library", "not a path"),
        ({**TENSORRT, "timing_cache": ""}, "timing_cache", "not a path"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(values: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        BuildSettings(**values)
    assert caught.value.where == field
    assert caught.value.exit_code == 2


def test_the_order_of_targets_does_not_matter() -> None:
    settings = BuildSettings("tensorrt-rtx", ("sm120", "sm86"), [[1, 2, 4], [8, 8, 8]])  # type: ignore[arg-type]
    assert settings.targets == ("sm86", "sm120")
    assert settings.profiles == ((1, 2, 4), (8, 8, 8))
    assert settings.largest_batch == 8
    assert settings == BuildSettings("tensorrt-rtx", ("sm86", "sm120"), ((1, 2, 4), (8, 8, 8)))


def test_paths_may_be_text() -> None:
    assert BuildSettings("tensorrt", timing_cache="c").timing_cache == Path("c")  # type: ignore[arg-type]


def test_the_caller_loads_neither_tensorrt_nor_onnx() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import edge_lsla.build.tensorrt.builder"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    loaded = {line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")}
    assert "edge_lsla.tensorrt.flavours" in loaded
    assert not loaded & {"tensorrt", "tensorrt_rtx", "onnx", "onnxruntime", "torch", "pycuda"}
