"""The library driven by the conformance harness, under sanitizers, for every version of TensorRT's headers at hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import native_builds
import pytest
from native_builds import HEADERS, compiler, headers, needs_compiler, needs_headers

pytestmark = [compiler, headers, needs_compiler, needs_headers]

# At least one parameter, so that a machine without headers reports a skip instead of no test.
VERSIONS = list(HEADERS) or ["none"]


def summary(output: str) -> tuple[int, int, int]:
    """Return (checks, failed, expectations) of a run."""
    found = re.search(r"^(?:PASSED|FAILED): (\d+) checks, (\d+) failed, (\d+) expectations$", output, re.MULTILINE)
    assert found, output
    return int(found[1]), int(found[2]), int(found[3])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fake_driver", [False, True], ids=["no driver", "fake driver"])
def test_the_library_passes_the_harness_under_sanitizers(version: str, fake_driver: bool) -> None:
    path = native_builds.sanitized(version)
    done = native_builds.run_harness(native_builds.harness_for(version), "check", path, fake_driver=fake_driver)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""  # the sanitizers' reports; the plugin's own messages are caught by the checks
    checks, failed, expectations = summary(done.stdout)
    assert failed == 0
    assert checks == 16
    assert expectations > 50000
    skipped = set(re.findall(r"^skipped (\S+)", done.stdout, re.MULTILINE))
    assert skipped == ({"without"} if fake_driver else {"attach", "launch"})


@pytest.mark.skipif(len(HEADERS) < 2, reason="one version of TensorRT's headers")
@pytest.mark.parametrize("reverse", [False, True], ids=["old library, new caller", "new library, old caller"])
def test_a_caller_built_with_other_headers_can_drive_the_library(reverse: bool) -> None:
    # What happens in the field: the plugin is built once, and loaded by whatever TensorRT is there.
    library, caller = (list(HEADERS)[index] for index in ((-1, 0) if reverse else (0, -1)))
    done = native_builds.run_harness(
        native_builds.sanitized(caller), "check", native_builds.sanitized(library), fake_driver=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_library_that_breaks_the_contract_fails_the_harness() -> None:
    # The fake driver exports no creators: the harness must say so, and must not pass by having nothing to check.
    path = native_builds.sanitized(VERSIONS[0])
    done = native_builds.run_harness(
        path, "check", path.parent / native_builds.library.FAKE_DRIVER_DIR / "libcuda.so.1"
    )
    assert done.returncode == 1
    assert "does not export setLoggerFinder" in done.stderr


def test_the_run_mode_says_that_there_is_no_gpu(tmp_path: Path) -> None:
    path = native_builds.sanitized(VERSIONS[0])
    (tmp_path / "x.bin").write_bytes(bytes(2 * 14 * 14 * 96))
    (tmp_path / "case.txt").write_text(
        "operator LslaAttention  # a comment\nfield num_heads int32 3\nfield window int32 14\n"
        "input x fp16 1,14,14,96 x.bin\noutput y fp16 1,14,14,96 y.bin\ngraph yes\n"
    )
    done = native_builds.run_harness(path, "run", path, tmp_path / "case.txt")
    assert done.returncode == 1
    assert done.stderr.startswith("edge-lsla harness: no NVIDIA driver: ")
    assert not (tmp_path / "y.bin").exists()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("input q fp17 1 x.bin", "unknown type fp17"),
        ("input q fp16 1,-2 x.bin", '"-2" is not a number'),
        ("input q fp16 1,,2 x.bin", '"" is not a number'),
        ("input q fp16 1,1,1,1,1,1,1,1,1 x.bin", "too many dimensions"),
        ("input q fp16 4", "the file's name is missing"),
        ("samples 0", "from 1 to"),
        ("samples 3 4", "more than the statement takes"),
        ("poison 256", "from 0 to 255"),
        ("graph maybe", "yes or no"),
        ("field window int32", "incomplete"),
        ("inputs x", "unknown statement"),
    ],
)
def test_the_run_mode_refuses_a_case_with_its_line(tmp_path: Path, statement: str, message: str) -> None:
    path = native_builds.sanitized(VERSIONS[0])
    case = tmp_path / "case.txt"
    case.write_text(f"operator LslaAttention\n\n{statement}\n")
    done = native_builds.run_harness(path, "run", path, case)
    assert done.returncode == 1
    assert f"{case}, line 3: " in done.stderr
    assert message in done.stderr


def test_a_recording_build_writes_down_the_fields_it_gets(tmp_path: Path) -> None:
    include = next(iter(HEADERS.values()))
    recording = native_builds.build("recording", include, record_fields=True)
    record = tmp_path / "fields.jsonl"
    harness = native_builds.sanitized(VERSIONS[0])
    done = native_builds.run_harness(harness, "check", recording, EDGE_LSLA_RECORD_FIELDS=str(record))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert {line["operator"] for line in lines} == {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}
    assert {line["phase"] for line in lines} == {0, 1}
    fields = [field for line in lines for field in line["fields"]]
    # Types are PluginFieldType's numbers: FLOAT32 1, FLOAT64 2, INT32 5, CHAR 6, INT64 10.
    assert {"name": "num_heads", "type": 5, "length": 1, "value": [3]} in fields
    assert {"name": "num_heads", "type": 10, "length": 1, "value": [1024]} in fields
    assert {"name": "plugin_version", "type": 6, "length": 1, "value": "1"} in fields
    assert {"name": "plugin_namespace", "type": 6, "length": 0, "value": ""} in fields
    epsilon = [field for field in fields if field["name"] == "epsilon" and field["type"] == 1 and field["length"] == 1]
    assert any(abs(field["value"][0] - 1e-5) < 1e-12 for field in epsilon if field["value"])
    assert any(field["value"] is None for field in fields)  # without data
    assert any(line["fields"] == [] for line in lines)
    silent = native_builds.run_harness(harness, "check", recording, EDGE_LSLA_RECORD_FIELDS="")
    assert silent.returncode == 1  # a name that cannot be written is reported, and the checks see the message
