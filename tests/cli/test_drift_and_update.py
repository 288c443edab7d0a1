"""In the field: drift is told, frames are kept, and INT8 is made anew from them behind the gate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image, ImageOps

from edge_lsla import load
from edge_lsla.bundle import open_bundle
from edge_lsla.errors import UsageError
from edge_lsla.preprocessing import to_tensor


@pytest.fixture(scope="module")
def field(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of another place, with other colours and more contrast than those of the data set."""
    folder = tmp_path_factory.mktemp("field")
    for number, path in enumerate(sorted((pictures / "train").rglob("*.jpg"))):
        with Image.open(path) as picture:
            ImageOps.autocontrast(ImageOps.invert(picture), cutoff=20).save(folder / f"{number:04d}.jpg", quality=95)
    return folder


def images(folder: Path, model) -> np.ndarray:
    return np.stack([to_tensor(path, model.preprocessing) for path in sorted(folder.rglob("*.jpg"))])


def test_counters_change_no_number(command, bundle: Path, counting: Path) -> None:
    with load(bundle) as plain, load(counting) as model:
        assert plain.artifact.precision == model.artifact.precision == "int8"
        inputs = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
        assert plain.logits(inputs).tobytes() == model.logits(inputs).tobytes()
        assert model.manifest.golden.entries == plain.manifest.golden.entries
        assert model.manifest.precisions == plain.manifest.precisions
    assert command("selftest", counting).code == 0
    assert command("inspect", counting).code == 0


def test_the_baseline_is_what_the_calibration_pictures_give(counting: Path, pictures: Path) -> None:
    with load(counting) as model:
        shares = model.saturation(images(pictures / "train", model))
        recorded = model.manifest.calibration["saturation"]
        assert set(recorded) == set(shares)
        assert {"stem.conv1", "stages.0.0.expand", "head"} <= set(shares)
        for name, share in shares.items():
            assert recorded[name] == pytest.approx(share, abs=1e-6)  # it is rounded to that
        assert not any(drift.noted for drift in model.drift(images(pictures / "train", model)))


def test_drift_of_other_pictures_is_told(command, counting: Path, field: Path, pictures: Path) -> None:
    strange = command("infer", "dir", field, "-e", counting, "--drift", 5, "--batch", 3, "--json")
    assert strange.code == 0, strange.err
    drift = strange.json["drift"]
    assert (drift["pictures"], drift["every"]) == (10, 5)  # of 48, the first, the sixth, …
    assert "stages.0.0.expand" in drift["noted"]
    worst = drift["worst"][0]
    assert worst["ratio"] == pytest.approx(worst["share"] / max(worst["baseline"], 1e-4), rel=1e-3)
    assert f"values left the range of {worst['name']} " in strange.err
    assert "times as often as when it was calibrated" in strange.err
    with load(counting) as model:
        every_fifth = model.drift(images(field, model)[::5])
        assert [one.name for one in every_fifth if one.noted] == drift["noted"]
        assert every_fifth[0].share == pytest.approx(worst["share"], abs=1e-6)
    known = command("infer", "dir", pictures / "train", "-e", counting, "--drift", 1, "--json")
    assert (known.json["drift"]["noted"], known.json["drift"]["pictures"]) == ([], 48)
    assert "drift: none in 48 pictures" in known.err
    assert "drift" not in command("infer", "dir", field, "-e", counting, "--json").json


def test_a_camera_counts_and_fills_a_reservoir(command, counting: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    options = ("--no-window", "--size", "64x48", "--rate", 200, "--reservoir", folder, "--reservoir-size", 12)
    for run in (1, 2):
        shot = command("infer", "camera", "synthetic", "-e", counting, "--max-frames", 20, *options, "--drift", 4,
                       "--json")  # fmt: skip
        assert shot.code == 0, shot.err
        assert shot.json["drift"]["pictures"] == 5
        assert json.loads((folder / "reservoir.json").read_text())["seen"] == 20 * run
        assert len(list(folder.glob("*.jpg"))) == 12
    other = command(
        "infer", "camera", "synthetic", "-e", counting, "--max-frames", 1, "--no-window", "--reservoir", folder
    )
    assert other.code == 0, other.err  # larger, by default: counted anew with the pictures that are there
    assert json.loads((folder / "reservoir.json").read_text())["seen"] == 13
    assert len(list(folder.glob("*.jpg"))) == 13


def test_what_cannot_count_says_so(command, bundle: Path, counting: Path, field: Path, checkpoint: Path,
                                   pictures: Path, tmp_path: Path) -> None:  # fmt: skip
    for engine, precision in ((bundle, "int8"), (counting, "fp32")):
        refused = command("infer", "dir", field, "-e", engine, "--precision", precision, "--drift", 1)
        assert (refused.code, "counts no saturation" in refused.err, "--counters" in refused.err) == (2, True, True)
        with load(engine, precision=precision) as model, pytest.raises(UsageError, match="counts no saturation"):
            model.drift(images(field, model)[:1])
    options = ("--data", pictures, "--counters", "-o", tmp_path / "x.lsla")
    for more in (("--precision", "fp32"), ("--precision", "int8", "--backend", "tensorrt")):
        refused = command("build-engine", checkpoint, *options, *more)
        assert (refused.code, "only INT8 of onnxruntime counts saturation" in refused.err) == (2, True)


def test_int8_is_made_anew_for_the_field(command, counting: Path, field: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.lsla"
    done = command("calibrate", counting, "--update", "--data", field, "--max-drop", 100, "-o", new, "--json")
    assert done.code == 0, done.err
    gate = done.json["gate"]
    assert gate["right"] >= gate["right_before"]
    assert (gate["form"], gate["max_drop"]) == ("int8", 100)
    assert done.json["images"] + gate["gate_images"] == 48  # those that judge are not calibrated on
    page = Path(done.json["report"])
    assert (page, page.is_file(), page.with_suffix(".json").is_file()) == (tmp_path / "new.report.html", True, True)
    assert command("selftest", new).code == command("selftest", new, "--precision", "fp32").code == 0
    with load(counting) as before, load(new) as after:
        inputs = images(field, after)
        assert [one.name for one in before.drift(inputs) if one.noted]
        assert not [one.name for one in after.drift(inputs) if one.noted]
        assert before.logits(inputs).tobytes() != after.logits(inputs).tobytes()
        old, manifest = before.manifest, after.manifest
        assert manifest.calibration["images"] == done.json["images"]
        assert manifest.digests["calibration"] != old.digests["calibration"]
        assert (manifest.labels, manifest.model, manifest.digests["onnx"]) == (
            old.labels,
            old.model,
            old.digests["onnx"],
        )
        assert manifest.fidelity["gate"]["onnxruntime"]["right"] == gate["right"]
    with open_bundle(counting) as one, open_bundle(new) as other:
        same = [bundle.read(bundle.artifact("onnxruntime", "fp32")) for bundle in (one, other)]
        assert same[0] == same[1]


def test_a_worse_int8_is_refused_and_nothing_is_written(command, counting: Path, pictures: Path,
                                                        tmp_path: Path) -> None:  # fmt: skip
    dark = tmp_path / "dark"
    dark.mkdir()
    for number, path in enumerate(sorted((pictures / "train").rglob("*.jpg"))):
        with Image.open(path) as picture:  # by night: these ranges cut off nearly all of a picture by day
            picture.point(lambda value: value // 4).save(dark / f"{number}.png")
    new = tmp_path / "new.lsla"
    options = ("--update", "--data", dark, "--evaluate", pictures, "-o", new)
    refused = command("calibrate", counting, *options)
    assert (refused.code, "the gate refuses the new INT8" in refused.err) == (4, True), refused.err
    assert "--force" not in refused.err
    refused = command("calibrate", counting, *options, "--max-drop", 100, "--json")
    assert (refused.code, "worse than the one before" in refused.json["error"]) == (4, True)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "cache", dark] or sorted(tmp_path.iterdir()) == [dark]


def test_bundles_that_cannot_be_updated(command, checkpoint: Path, pictures: Path, counting: Path, field: Path,
                                        tmp_path: Path) -> None:  # fmt: skip
    new = tmp_path / "new.lsla"
    for precision, missing in (("int8", "no float32 graph"), ("fp32", "no INT8 of onnxruntime")):
        one = tmp_path / f"{precision}.lsla"
        command("build-engine", checkpoint, "-o", one, "--precision", precision, "--data", pictures)
        refused = command("calibrate", one, "--update", "--data", field, "-o", new)
        assert (refused.code, missing in refused.err, "--precision int8,fp32" in refused.err) == (4, True, True)
    both = tmp_path / "both.lsla"
    command("build-engine", checkpoint, "-o", both, "--precision", "int8,fp32", "--data", pictures,
            "--backend", "onnxruntime,tensorrt", "--attention", "function")  # fmt: skip
    refused = command("calibrate", both, "--update", "--data", field, "-o", new)
    assert (refused.code, "INT8 of tensorrt, which would keep its old ranges" in refused.err) == (4, True)
    for wrong, code, words in (
        ((counting, "--update", "-o", new), 2, "--data"),
        ((counting, "--update", "--data", field, "-o", tmp_path / "new.onnx"), 2, "ends in .lsla"),
        ((counting, "--update", "--data", field, "-o", new, "--backend", "tensorrt"), 2, "--backend"),
        ((counting, "--update", "--data", field, "-o", new, "--report", tmp_path / "r.txt"), 2, "HTML"),
        ((tmp_path / "m.onnx", "--update", "--data", field, "-o", new), 2, "only a bundle is updated"),
        ((tmp_path / "m.onnx", "--max-drop", 1, "--data", field, "-o", tmp_path / "q.onnx"), 2, "--max-drop"),
        ((counting, "--update", "--data", next(field.glob("*.jpg")), "-o", new), 2, "--evaluate"),
    ):
        refused = command("calibrate", *wrong)
        assert (refused.code, words in refused.err) == (code, True), (wrong, refused.err)
    assert not new.exists()


def test_counters_can_be_dropped_for_tools_that_expect_one_output(bundle: Path, counting: Path) -> None:
    from calibration.counters import counted_names, drop_counters

    with open_bundle(bundle) as one, open_bundle(counting) as other:
        graphs = [onnx.load_from_string(b.read(b.artifact("onnxruntime", "int8"))) for b in (one, other)]
    assert counted_names(graphs[1])
    assert drop_counters(graphs[1]).SerializeToString(deterministic=True) == graphs[0].SerializeToString(
        deterministic=True
    )
