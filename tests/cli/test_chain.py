"""Checkpoint in, bundle out, predictions: every verb of the main job on a tiny real model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edge_lsla import load
from edge_lsla.model.checkpoint import load_checkpoint
from edge_lsla.preprocessing import to_tensor


def test_each_step_by_its_own_verb(command, checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    plain, fused, quantised, bundle = (tmp_path / name for name in ("m.onnx", "f.onnx", "q.onnx", "x.lsla"))
    exported = command("export", checkpoint, "-o", plain, "--json")
    assert exported.code == 0, exported.err
    assert exported.json["max_abs_difference"] < 1e-4
    result = command("fuse", plain, "-o", fused, "--json")
    assert (result.code, result.json["fused"], result.json["refused"]) == (0, 2, [])
    result = command("calibrate", fused, "--data", pictures, "-o", quantised, "--json")
    assert (result.code, result.json["images"]) == (0, 48)
    again = command("calibrate", fused, "--ranges", result.json["ranges"], "-o", tmp_path / "again.onnx")
    assert again.code == 0
    assert (tmp_path / "again.onnx").read_bytes() == quantised.read_bytes()
    assert json.loads(Path(result.json["ranges"]).read_text())["method"] == result.json["method"]

    # The same numbers at every station, against PyTorch.
    loaded = load_checkpoint(checkpoint)
    images = np.stack(
        [to_tensor(p, loaded.description.preprocessing) for p in sorted((pictures / "test").rglob("*.jpg"))]
    )
    with torch.no_grad():
        expected = loaded.model(torch.from_numpy(images)).numpy()
    for path, tolerance in ((plain, 1e-5), (fused, 1e-5), (quantised, 0.3)):
        logits = onnxruntime.InferenceSession(str(path)).run(None, {"images": images})[0]
        assert np.abs(logits - expected).max() < tolerance * np.abs(expected).max(), path.name

    built = command("build-engine", fused, "-o", bundle, "--json")  # labels and preprocessing came along in the file
    assert (built.code, built.json["precision"], built.json["backend"]) == (0, "fp32", "onnxruntime")
    with load(bundle) as model:
        assert model.labels == loaded.description.labels
        assert np.abs(model.logits(images) - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_fused_file_holds_one_node_an_attention(command, checkpoint: Path, tmp_path: Path) -> None:
    command("export", checkpoint, "-o", tmp_path / "m.onnx")
    command("fuse", tmp_path / "m.onnx", "-o", tmp_path / "f.onnx")
    graph = onnx.load(tmp_path / "f.onnx")
    onnx.checker.check_model(graph)
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("LslaAttention") == 2
    assert "Softmax" not in kinds
    twice = command("fuse", tmp_path / "f.onnx", "-o", tmp_path / "g.onnx")
    assert (twice.code, "already fused" in twice.err) == (2, True)
    assert not (tmp_path / "g.onnx").exists()


def test_the_other_operators_by_the_verbs(command, checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    plain, fused, ranged = (tmp_path / name for name in ("m.onnx", "f.onnx", "q.onnx"))
    command("export", checkpoint, "-o", plain)
    command("fuse", plain, "-o", fused)
    result = command("fuse", fused, "-o", tmp_path / "r.onnx", "--level", "residual", "--json")
    assert (result.code, result.json["operators"]) == (0, {"LslaResidualAttention": 2})
    options = ("--data", pictures, "--backend", "tensorrt", "--attention", "int8")
    assert command("calibrate", fused, *options, "-o", ranged).code == 0
    result = command("fuse", ranged, "-o", tmp_path / "i.onnx", "--level", "int8", "--json")
    assert (result.code, result.json["operators"]) == (0, {"QLslaAttention": 2})

    bare = command("fuse", plain, "-o", tmp_path / "p.onnx", "--for-plugin")
    assert bare.code == 0
    graph = onnx.load(tmp_path / "p.onnx")
    assert len(graph.functions) == 0
    assert [node.op_type for node in graph.graph.node].count("LslaAttention") == 2

    again = command("fuse", fused, "-o", tmp_path / "h.onnx", "--for-plugin", "--precision", "fp16", "--json")
    assert (again.code, again.json["kernels"]) == (0, ["attention-w2-d32-fp16", "attention-w4-d32-fp16"])
    assert "--variants attention-w2-d32-fp16,attention-w4-d32-fp16" in again.err
    nothing = command("fuse", fused, "-o", tmp_path / "n.onnx", "--level", "int8")
    assert (nothing.code, "nothing became QLslaAttention" in nothing.err) == (2, True)
    wrong = command("fuse", plain, "-o", tmp_path / "w.onnx", "--level", "all")
    assert (wrong.code, wrong.err.strip()) == (
        2,
        "error: there is no such level: --level all; use attention, residual or int8",
    )
    on_cpu = command("calibrate", fused, "--data", pictures, "--attention", "int8", "-o", tmp_path / "w.onnx")
    assert (on_cpu.code, "tensorrt" in on_cpu.err) == (2, True)


def test_the_bundle_says_what_it_is_and_tests_itself(command, bundle: Path) -> None:
    shown = command("inspect", bundle, "--json").json
    assert shown["manifest"]["labels"] == ["ant", "bee", "lady beetle"]
    assert [a["precision"] for a in shown["manifest"]["artifacts"]] == ["int8", "fp32"]
    assert set(shown["manifest"]["digests"]) == {"checkpoint", "onnx", "calibration"}
    assert "int8" in shown["manifest"]["precisions"]["int8"].values()
    assert "onnxruntime-int8.onnx" in command("inspect", bundle).out
    for precision in ("int8", "fp32"):
        result = command("selftest", bundle, "--precision", precision, "--json")
        assert result.code == 0
        assert result.json["max_abs_difference"] <= result.json["tolerance"]


def test_the_same_inputs_give_the_same_artifacts(command, checkpoint: Path, pictures: Path, bundle: Path,
                                                 tmp_path: Path) -> None:  # fmt: skip
    again = tmp_path / "again.lsla"
    command("build-engine", checkpoint, "-o", again, "--precision", "int8,fp32", "--data", pictures)
    first, second = (command("inspect", path, "--json").json["manifest"] for path in (bundle, again))
    first.pop("created"), second.pop("created")
    assert first == second


def test_predictions_of_pictures_and_folders(command, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    picture = next((pictures / "test" / "bee").glob("*.jpg"))
    result = command("infer", "image", picture, "--engine", bundle, "-o", tmp_path / "a.png", "--top", 2, "--json")
    assert result.code == 0
    top = result.json["predictions"][0]["predictions"]
    assert len(top) == 2
    assert top[0]["probability"] >= top[1]["probability"]
    assert (tmp_path / "a.png").stat().st_size > 1000

    folder = tmp_path / "mixed"
    folder.mkdir()
    for index, path in enumerate(sorted((pictures / "test").rglob("*.jpg"))):
        (folder / f"{index}.jpg").write_bytes(path.read_bytes())
    (folder / "text.jpg").write_text("no picture")
    for batch in (1, 5):
        result = command(
            "infer", "dir", folder, "--engine", bundle, "--batch", batch, "-o", tmp_path / "t.csv", "--json"
        )
        assert (result.code, result.json["images"], result.json["skipped"]) == (0, 12, 1)
        assert sum(result.json["counts"].values()) == 12
        assert len((tmp_path / "t.csv").read_text().splitlines()) == 14


def test_accuracy_is_counted_right(command, bundle: Path, pictures: Path) -> None:
    result = command("evaluate", bundle, "--data", pictures, "--split", "test", "--json").json
    with load(bundle) as model:
        right = sum(
            model(path)[0].label == path.parent.name.replace("_", " ") for path in (pictures / "test").rglob("*.jpg")
        )
    assert result["images"] == 12
    assert result["top1"] == pytest.approx(100 * right / 12, abs=1e-3)
    assert result["top5"] == 100.0  # there are only three classes
    assert result["interval"][0] <= result["top1"] <= result["interval"][1]


def test_the_synthetic_camera_and_a_video(command, bundle: Path, tmp_path: Path) -> None:
    video, events = tmp_path / "v.mp4", tmp_path / "e.jsonl"
    shot = command("infer", "camera", "synthetic", "--engine", bundle, "--max-frames", 20, "--save", video,
                   "--events", events, "--no-window", "--size", "320x240", "--rate", 60, "--json")  # fmt: skip
    assert shot.code == 0, shot.err
    assert (shot.json["frames"], shot.json["ended"]) == (20, "limit")
    assert len(events.read_text().splitlines()) == 20
    seen = command("infer", "video", video, "--engine", bundle, "--batch", 4, "-o", tmp_path / "w.mp4", "--json")
    assert (seen.code, seen.json["ended"]) == (0, "end of file")
    assert seen.json["frames"] == 20
    assert (tmp_path / "w.mp4").stat().st_size > 1000


def test_model_info(command) -> None:
    info = command("model", "info", "vit_lsla_t", "--json").json
    assert info["classes"] == 102
    assert 18.85e6 <= info["parameters"] <= 18.95e6
    assert 3.45e9 <= info["multiply_adds"] <= 3.55e9
    assert sum(row["parameters"] for row in info["stages"]) == info["parameters"]
    assert "Swin-T" in command("model", "info", "vit_lsla_demo").out


def test_doctor_finds_what_is_here(command) -> None:
    result = command("doctor", "--json")
    assert result.code == 0
    found = {check["name"]: check["found"] for check in result.json["checks"]}
    assert found["ONNX Runtime (backend onnxruntime)"]


def test_training_by_the_verb(command, pictures: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps({"name": "tiny", "classes": 3, "image_size": 32, "widths": [32], "depths": [1],
                                  "windows": [4]}))  # fmt: skip
    arguments = ["train", pictures, "-o", tmp_path / "run", "--model", config, "--recipe", "demo", "--set", "epochs=1",
                 "--set", "batch_size=16", "--set", "warmup_epochs=0", "--device", "cpu", "--json"]  # fmt: skip
    result = command(*arguments)
    assert (result.code, result.json["finished"], result.json["epochs"]) == (0, True, 1)
    assert command("build-engine", tmp_path / "run" / "best.safetensors", "-o", tmp_path / "x.lsla").code == 0


def test_a_data_set_without_splits_is_not_trained_on_and_evaluated_with_a_word(command, bundle: Path, pictures: Path,
                                                                               tmp_path: Path) -> None:  # fmt: skip
    refused = command("train", pictures / "train", "-o", tmp_path / "run", "--model", "vit_lsla_demo")
    assert (refused.code, "not divided" in refused.err) == (2, True)
    whole = command("evaluate", bundle, "--data", pictures / "test", "--json")
    assert (whole.code, "not divided" in whole.err) == (0, True)
    split = command("evaluate", bundle, "--data", pictures, "--json")
    assert whole.json["top1"] == split.json["top1"]  # the folder's alphabetical order is matched by name


def test_class_names_come_from_the_data_where_the_weights_have_none(command, checkpoint: Path, pictures: Path,
                                                                    tmp_path: Path) -> None:  # fmt: skip
    from edge_lsla.model.checkpoint import load_checkpoint, read_weights

    torch.save(read_weights(checkpoint)[0], tmp_path / "plain.pt")
    (tmp_path / "c.json").write_text(json.dumps(load_checkpoint(checkpoint).description.model))
    arguments = ["build-engine", tmp_path / "plain.pt", "--model", tmp_path / "c.json"]
    named = command(*arguments, "-o", tmp_path / "a.lsla", "--precision", "int8", "--data", pictures)
    assert (named.code, "class names taken from" in named.out) == (0, True)
    with load(tmp_path / "a.lsla") as model:
        assert model.labels == ("ant", "bee", "lady beetle")
    unnamed = command(*arguments, "-o", tmp_path / "b.lsla")
    assert (unnamed.code, "no class names" in unnamed.out) == (0, True)
