from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.errors import UsageError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "max"),
        ("percentile", 50),
        ("percentile", 100.1),
        ("percentile", float("nan")),
        ("percentile", "99"),
        ("batch_size", 0),
        ("batch_size", True),
        ("batch_size", 2.0),
        ("bins", 1000),
        ("bins", 128),
        ("group", 0),
        ("step", 0),
        ("step", 1.5),
        ("symmetric", 1),
    ],
)
def test_calibration_settings_name_the_wrong_field(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        CalibrationSettings(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("backend", "cuda"), ("weight_bits", 4), ("keep_float", "head"), ("keep_float", [1]), ("attention", "int4")],
)
def test_qdq_settings_name_the_wrong_field(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        QdqSettings(**{"backend": "tensorrt", field: value})


def test_int8_attention_is_tensorrts() -> None:
    assert QdqSettings("tensorrt", attention="int8").attention == "int8"
    with pytest.raises(UsageError, match="onnxruntime has no int8 attention: attention; leave it float"):
        QdqSettings("onnxruntime", attention="int8")


def test_package_and_settings_load_neither_onnx_nor_onnxruntime() -> None:
    code = "import sys, calibration, calibration.settings; sys.exit(bool({'onnx', 'onnxruntime'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
