"""Precision chosen by a gate, as a user meets it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest

from calibration.costs import estimated_costs
from edge_lsla import precision_choice
from edge_lsla.bundle import open_bundle
from edge_lsla.surgery.onnx_file import read_onnx

sys.path.insert(0, str(Path(__file__).parents[1] / "calibration"))
from hard_model import make_hard

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The demo's pictures as a divided data set: what calibrates also searches, the held-out artist judges."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split, source in (("train", "calibration"), ("val", "calibration"), ("test", "heldout")):
        (folder / split).symlink_to(DEMO / source)
    (folder / "classes.txt").symlink_to(DEMO / "classes.txt")
    return folder


@pytest.fixture
def fused(command, tmp_path: Path) -> Path:
    exported, path = tmp_path / "m.onnx", tmp_path / "f.onnx"
    assert command("export", DEMO / "vit_lsla_demo.safetensors", "-o", exported).code == 0
    assert command("fuse", exported, "-o", path).code == 0
    return path


@pytest.mark.slow
def test_auto_ships_what_is_within_the_budget_and_says_why(command, data: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "x.lsla"
    options = (
        "--precision",
        "auto",
        "--backend",
        "onnxruntime",
        "--data",
        data,
        "--max-drop",
        2,
        "--search-images",
        42,
    )
    result = command("build-engine", DEMO / "vit_lsla_demo.safetensors", *options, "-o", bundle, "--json")
    assert result.code == 0, result.err
    gate = result.json["gate"]["onnxruntime"]
    assert set(gate["latencies_ms"]) >= {"fp32", "int8"}
    assert gate["drops"]["int8"]["drop"] <= 2
    assert gate["reasons"][-1].startswith(f"{gate['form']} ships")
    assert result.json["precision"] == ("fp32" if gate["form"] == "fp32" else "int8")
    page = Path(result.json["report"])
    assert (page, page.with_suffix(".json").exists()) == (tmp_path / "x.report.html", True)
    shown = json.loads(page.with_suffix(".json").read_text())["report"]
    assert [form["name"] for form in shown["forms"]][:2] == ["fp32", "int8"]
    assert shown["verdict"]["shipped"] == gate["form"]
    assert len(shown["histograms"]) == 9
    assert all(
        point["sqnr_db"] is None or point["sqnr_db"] > 5 for curve in shown["curves"] for point in curve["points"]
    )
    with open_bundle(bundle) as opened:
        assert opened.manifest.fidelity["gate"]["onnxruntime"]["form"] == gate["form"]
    assert command("selftest", bundle).code == 0


@pytest.mark.slow
def test_a_hard_model_is_refused_in_plain_int8_and_rescued(
    command, data: Path, fused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outlier channels behind a GELU cannot be moved into weights: only leaving layers in float helps."""
    # Latencies of layers measured while other tests run would make another search each time.
    monkeypatch.setattr(
        precision_choice, "_costs", lambda graphs, backend, image: estimated_costs(graphs.quantiser.graph, backend)
    )
    hard = tmp_path / "hard.onnx"
    onnx.save(make_hard(read_onnx(fused), place="gelu", factor=60), hard)
    # By minmax: another method cuts the outliers off, and plain INT8 loses far less.
    calibrated = ("--data", data, "--method", "minmax")
    plain = ("build-engine", hard, "--backend", "onnxruntime", *calibrated, "-o", tmp_path / "x.lsla")
    refused = command(*plain, "--precision", "int8", "--max-drop", 0.5)
    assert (refused.code, "the gate refuses INT8: int8 loses" in refused.err) == (4, True), refused.err
    assert "--precision auto" in refused.err
    assert not list(tmp_path.glob("x.*"))
    forced = command(*plain, "--precision", "int8", "--max-drop", 0.5, "--force", "--json")
    gate = forced.json["gate"]["onnxruntime"]
    assert (forced.code, gate["forced"], gate["form"]) == (0, True, "int8")
    rescued = command(*plain, "--precision", "auto", "--max-drop", 5, "--search-images", 70, "--json")
    gate = rescued.json["gate"]["onnxruntime"]
    assert rescued.code == 0
    assert gate["drops"]["int8"]["drop"] > 5
    assert gate["form"] in ("mixed", "fp32")  # fp32 where mixed is not faster on this machine, which it says
    assert gate["drops"]["mixed"]["drop"] < gate["drops"]["int8"]["drop"] - 5
    assert len(gate["search"]["ranking"]) == len(gate["search"]["assignment"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "auto"), "a gate judges on pictures"),
        (("--precision", "fp32", "--max-drop", 1, "--data", DEMO / "calibration"), "a gate judges INT8"),
        (("--precision", "auto", "--data", DEMO, "--report", "x.pdf"), "a report is an HTML file"),
        (("--precision", "auto", "--max-drop", -1, "--data", DEMO), "--max-drop"),
        (("--precision", "auto", "--data", DEMO / "calibration", "--sources", "("), "not a regular expression"),
    ],
)
def test_what_cannot_be_judged_is_refused(command, tmp_path: Path, options: tuple[object, ...], words: str) -> None:
    result = command("build-engine", DEMO / "vit_lsla_demo.safetensors", "-o", tmp_path / "x.lsla", *options)
    assert (result.code, words in result.err) == (2, True), result.err
    assert not list(tmp_path.glob("x.*"))


def test_options_that_mean_nothing_for_a_bundle_are_refused(command, bundle: Path, tmp_path: Path) -> None:
    result = command("build-engine", bundle, "--attention", "split", "-o", tmp_path / "x.lsla")
    assert (result.code, "--attention" in result.err) == (2, True)


def test_a_backend_that_knows_no_precision_asked_for_gets_float32(command, checkpoint: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "x.lsla"
    options = ("--backend", "tensorrt,onnxruntime", "--precision", "fp16", "--attention", "function")
    assert command("build-engine", checkpoint, *options, "-o", bundle).code == 0
    with open_bundle(bundle) as opened:
        assert [one.name for one in opened.manifest.artifacts] == ["tensorrt-fp16.onnx", "onnxruntime-fp32.onnx"]
