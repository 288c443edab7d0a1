"""The method of calibration chosen by itself, as a user meets it: files, passports, reports and words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calibration.ranges_file import Ranges
from calibration.settings import METHODS
from edge_lsla.bundle import open_bundle


@pytest.fixture(scope="module")
def fused(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import cli

    folder = tmp_path_factory.mktemp("fused")
    plain, path = folder / "m.onnx", folder / "f.onnx"
    for arguments in (["export", checkpoint, "-o", plain], ["fuse", plain, "-o", path]):
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
    return path


def test_the_default_chooses_and_says_so(command, fused: Path, pictures: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    result = command("calibrate", fused, "--data", pictures, "-o", first, "--json")
    assert result.code == 0, result.err
    method, chosen = result.json["method"], result.json["chosen"]
    assert tuple(chosen["sqnr_db"]) == METHODS
    assert (chosen["backend"], chosen["images"], chosen["corrected_db"]) == ("onnxruntime", 48, None)
    assert chosen["sqnr_db"][method] >= max(chosen["sqnr_db"].values()) - 0.1
    line = next(line for line in result.err.splitlines() if line.startswith("onnxruntime: "))
    assert line.startswith(f"onnxruntime: ranges by {method}; minmax {chosen['sqnr_db']['minmax']:.1f}, moving ")
    assert line.endswith(" dB on 48 calibration pictures")

    beside = json.loads(Path(result.json["ranges"]).read_text())
    assert (beside["method"], beside["chosen"]) == (method, chosen)
    assert command("calibrate", fused, "--data", pictures, "--method", "auto", "-o", second).code == 0
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".ranges.json").read_bytes() == second.with_suffix(".ranges.json").read_bytes()

    # The file is as good as measuring: it is verified against model and pictures, and gives the same graph.
    again = command("calibrate", fused, "--data", pictures, "--ranges", result.json["ranges"], "-o", second, "--json")
    assert (again.code, again.json["method"], again.json["chosen"]) == (0, method, chosen)
    assert first.read_bytes() == second.read_bytes()
    assert "chosen for" not in again.err
    other = command("calibrate", fused, "--ranges", result.json["ranges"], "--backend", "tensorrt", "-o", second)
    assert (other.code, f"by {method}, were chosen for onnxruntime" in other.out) == (0, True)


def test_a_fixed_method_is_taken_as_it_is(command, fused: Path, pictures: Path, tmp_path: Path) -> None:
    for backend, symmetric in (("onnxruntime", False), ("tensorrt", True)):
        output = tmp_path / f"{backend}.onnx"
        result = command("calibrate", fused, "--data", pictures, "--backend", backend, "--method", "mse", "-o", output,
                         "--json")  # fmt: skip
        assert (result.code, result.json["method"], result.json["chosen"]) == (0, "mse", None)
        assert "ranges by" not in result.err
        ranges = Ranges.load(result.json["ranges"])
        assert (ranges.parameters["symmetric"], ranges.chosen) == (symmetric, None)
    assert '"chosen"' not in Path(result.json["ranges"]).read_text()


def test_biases_are_corrected_for_tensorrt_where_that_helps(
    command, fused: Path, pictures: Path, tmp_path: Path
) -> None:
    output, again = tmp_path / "a.onnx", tmp_path / "b.onnx"
    result = command("calibrate", fused, "--data", pictures, "--backend", "tensorrt", "-o", output, "--json")
    assert result.code == 0, result.err
    corrected = result.json["chosen"]["corrected_db"]
    options = ("--ranges", result.json["ranges"], "--backend", "tensorrt")
    from_file = command("calibrate", fused, *options, "-o", again)
    assert from_file.code == 0
    helped = b"_bias_corrected" in output.read_bytes()
    assert helped == (corrected is not None)
    assert helped == ("with corrected biases" in result.err)
    assert ("--correct-biases" in from_file.out) == helped  # ranges alone do not tell the whole
    assert (again.read_bytes() == output.read_bytes()) != helped


def test_each_backend_of_a_bundle_gets_its_own(command, fused: Path, pictures: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "x.lsla"
    options = (
        "--precision",
        "int8",
        "--backend",
        "onnxruntime,tensorrt",
        "--attention",
        "function",
        "--data",
        pictures,
    )
    result = command("build-engine", fused, *options, "-o", bundle, "--json")
    assert result.code == 0, result.err
    assert result.err.count("calibrated on ") == 1  # measured once
    with open_bundle(bundle) as opened:
        passport = opened.manifest.calibration
    assert passport == result.json["calibration"]
    assert set(passport["chosen"]) == {"onnxruntime", "tensorrt"}
    for backend, chosen in passport["chosen"].items():
        assert f"\n{backend}: ranges by {chosen['method']}; minmax " in result.err
        assert chosen["method"] in passport["method"].split(", ")
        tried = chosen["sqnr_db"]
        assert tried[chosen["method"]] >= max(tried.values()) - 0.1
        assert chosen["images"] == passport["images"] == 48
    assert passport["chosen"]["onnxruntime"]["sqnr_db"] != passport["chosen"]["tensorrt"]["sqnr_db"]

    fixed = command("build-engine", fused, *options, "--method", "percentile", "-o", bundle, "--json")
    assert fixed.json["calibration"] == {"method": "percentile", "images": 48}
    wrong = command("build-engine", fused, *options, "--method", "best", "-o", bundle)
    assert (wrong.code, "unknown method 'best': method; use one of auto, minmax" in wrong.err) == (2, True)


def test_the_report_says_what_was_tried(command, fused: Path, pictures: Path, tmp_path: Path) -> None:
    bundle, page = tmp_path / "x.lsla", tmp_path / "x.html"
    options = ("--precision", "int8", "--backend", "onnxruntime", "--data", pictures, "--max-drop", 100)
    result = command("build-engine", fused, *options, "--report", page, "-o", bundle, "--json")
    assert result.code == 0, result.err
    chosen = result.json["calibration"]["chosen"]["onnxruntime"]
    assert chosen["images"] == 48  # those of train: no picture of val or test is tried on
    shown = page.read_text(encoding="utf-8")
    assert "ranges chosen by" in shown
    assert f"minmax {chosen['sqnr_db']['minmax']:.1f}, moving" in shown
