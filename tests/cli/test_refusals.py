"""Bad input gets one clear line, the right exit code, and nothing half-written."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edge_lsla.bundle import open_bundle

ROOT = Path(__file__).parents[2]


def refused(outcome, code: int, *words: str) -> None:
    """Hold an outcome to one line on standard error, with an exit code and words in it."""
    assert outcome.code == code, outcome.err or outcome.out
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in outcome.err + outcome.out
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("zero.jpg", b"", "not a picture"),
        ("text.jpg", b"hello", "not a picture"),
        ("cut.jpg", None, "cut short"),
    ],
)
def test_pictures(command, bundle: Path, pictures: Path, tmp_path: Path, name: str, data: bytes | None,
                  words: str) -> None:  # fmt: skip
    good = next((pictures / "test" / "ant").glob("*.jpg"))
    (tmp_path / name).write_bytes(good.read_bytes()[:400] if data is None else data)
    output = tmp_path / "out.png"
    refused(command("infer", "image", good, tmp_path / name, "--engine", bundle, "-o", output), 2, words, name)
    assert not output.exists()
    failed = command("infer", "image", tmp_path / name, "--engine", bundle, "--json")
    assert failed.json == {"ok": False, "verb": "infer image", "error": failed.json["error"], "exit_code": 2}


def test_folders_videos_and_cameras(command, bundle: Path, tmp_path: Path) -> None:
    engine = ("--engine", bundle)
    refused(command("infer", "dir", tmp_path / "no", *engine), 2, "no such folder")
    refused(command("infer", "dir", tmp_path, *engine), 2, "no picture in the folder")
    (tmp_path / "a.jpg").write_text("text")
    refused(command("infer", "dir", tmp_path, *engine), 2, "no picture of the folder can be read")
    refused(command("infer", "video", tmp_path / "no.mp4", *engine), 2, "no such video")
    refused(command("infer", "video", tmp_path / "a.jpg", *engine), 2, "a.jpg")
    refused(command("infer", "camera", "63", "--no-window", *engine), 2, "63")
    refused(command("infer", "camera", "http://127.0.0.1:9/x", "--no-window", *engine), 2, "127.0.0.1")
    refused(command("infer", "camera", "ftp://user:secret@127.0.0.1/x", "--no-window", *engine), 2)
    assert "secret" not in command("infer", "camera", "http://user:secret@127.0.0.1:9/x", *engine).err


def test_checkpoints(command, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.lsla"
    (tmp_path / "zero.safetensors").touch()
    refused(command("build-engine", tmp_path / "zero.safetensors", "-o", output), 2, "damaged")
    refused(command("build-engine", tmp_path / "no.pt", "-o", output), 2, "no such checkpoint")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "object.pt")
    refused(command("export", tmp_path / "object.pt", "-o", tmp_path / "m.onnx"), 2, "pickled Python objects")
    refused(command("build-engine", checkpoint, "-o", output, "--model", "vit_lsla_t"), 2, "missing key")
    refused(command("build-engine", checkpoint, "-o", output, "--model", "vit_lsla_x"), 2, "no such model")
    (tmp_path / "two.txt").write_text("a\nb\n")
    refused(command("build-engine", checkpoint, "-o", output, "--labels", tmp_path / "two.txt"), 2, "3 classes")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["object.pt", "two.txt", "zero.safetensors"]


def test_graphs(command, tmp_path: Path) -> None:
    output = tmp_path / "x.onnx"
    path = tmp_path / "other.onnx"
    shape = ["N", 3, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["images"], ["logits"])], "other",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    refused(command("fuse", path, "-o", output), 2, "no light self-limited attention")
    refused(command("build-engine", path, "-o", tmp_path / "x.lsla"), 2, "other.onnx")
    path.write_bytes(path.read_bytes()[:40])
    refused(command("fuse", path, "-o", output), 2, "other.onnx")
    refused(command("fuse", tmp_path / "no.onnx", "-o", output), 2, "no.onnx")
    assert not output.exists()


def test_usage(command, checkpoint: Path, pictures: Path, bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.lsla"
    refused(command("build-engine", checkpoint, "-o", output, "--precision", "int8"), 2, "--data")
    refused(command("build-engine", checkpoint, "-o", output, "--precision", "fp16"), 2, "fp16 gains nothing")
    refused(command("build-engine", checkpoint, "-o", output, "--precision", "fp33"), 2, "fp33")
    refused(command("build-engine", checkpoint, "-o", output, "--backend", "openvino"), 2, "no such backend")
    refused(
        command("build-engine", checkpoint, "-o", output, "--target", "sm86", "--backend", "onnxruntime"), 2, "--target"
    )
    refused(command("build-engine", checkpoint, "-o", tmp_path / "x.zip"), 2, ".lsla")
    refused(command("build-engine", checkpoint, "-o", tmp_path / "no" / "x.lsla"), 2, "no such folder")
    refused(
        command("build-engine", checkpoint, "-o", output, "--precision", "int8", "--data", tmp_path), 2, str(tmp_path)
    )
    refused(command("infer", "image", "x.jpg", "--engine", bundle, "--precision", "fp16"), 4, "onnxruntime-int8.onnx")
    assert command("infer", "image", "x.jpg", "--engine", bundle, "--threads", 0).code == 2  # typer's own words
    refused(command("evaluate", bundle, "--data", tmp_path), 2)
    refused(command("train", pictures, "-o", tmp_path / "run", "--recipe", "no"), 2, "no such recipe")
    assert not output.exists()


def test_bundles(command, bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "b.lsla"
    data = bundle.read_bytes()
    for damaged in (
        b"",
        b"PK",
        data[:-1],
        data[:1000],
        data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
        data + b"x",
    ):
        broken.write_bytes(damaged)
        refused(command("inspect", broken), 2, "b.lsla")
        refused(command("infer", "image", "x.jpg", "--engine", broken), 2, "b.lsla")
    refused(command("selftest", tmp_path / "no.lsla"), 2, "no.lsla")


def test_a_device_that_computes_otherwise_fails_its_self_test(command, bundle: Path, tmp_path: Path) -> None:
    """A bundle whose recorded logits are not what its model computes, as on a device with a broken kernel."""
    from edge_lsla.bundle import GoldenSet, NewArtifact, Passport, write_bundle

    with open_bundle(bundle) as opened:
        manifest, artifact = opened.manifest, opened.artifact("onnxruntime", "fp32")
        golden = GoldenSet(opened.golden_inputs(), {("onnxruntime", "fp32"): opened.golden_logits(artifact) + 0.5},
                           manifest.golden.tolerance)  # fmt: skip
        passport = Passport(**{name: getattr(manifest, name) for name in Passport.__dataclass_fields__} | {
            "precisions": {}, "calibration": None})  # fmt: skip
        write_bundle(
            tmp_path / "other.lsla", passport, [NewArtifact(opened.read(artifact), "onnxruntime", "fp32")], golden
        )
    refused(command("selftest", tmp_path / "other.lsla"), 4, "self-test failed")


def limited(arguments: list[object], limit: int) -> subprocess.CompletedProcess[str]:
    """Run a verb that can write no file larger than `limit` bytes, which fails as a full disk does."""

    def set_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that write() fails with EFBIG instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, str(ROOT / "cli.py"), *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=set_limit, check=False)


@pytest.mark.parametrize("verb", ["export", "build-engine"])
def test_a_full_disk_leaves_the_old_file(checkpoint: Path, tmp_path: Path, verb: str) -> None:
    output = tmp_path / ("x.onnx" if verb == "export" else "x.lsla")
    output.write_text("old")
    result = limited([verb, checkpoint, "-o", output], 20_000)
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    assert output.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.5, 4.0])
def test_an_interrupted_build_leaves_the_old_file(process, checkpoint: Path, tmp_path: Path, number: int,
                                                  delay: float) -> None:  # fmt: skip
    output = tmp_path / "x.lsla"
    output.write_text("old")
    building = process("build-engine", checkpoint, "-o", output)
    time.sleep(delay)
    building.send_signal(number)
    _, err = building.communicate(timeout=60)
    if output.read_bytes() != b"old":  # it was done before the signal came
        open_bundle(output).close()
    # Before our code runs, Python itself dies of the signal.
    assert building.returncode in (0, 130, -number, 1), err
    assert building.returncode == 0 or "Traceback" not in err or delay < 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.lsla"]


def test_ctrl_c_ends_the_camera_cleanly(process, bundle: Path, tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    camera = process("infer", "camera", "synthetic", "--engine", bundle, "--save", video, "--no-window", "--json")
    time.sleep(6)
    camera.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = camera.communicate(timeout=20)
    assert camera.returncode == 0, err
    assert time.monotonic() - started < 5
    report = json.loads(out.splitlines()[-1])
    assert report["ended"] == "stopped"
    assert video.stat().st_size > 1000


def test_fused_graphs_that_cannot_be_built_from(command, checkpoint: Path, tmp_path: Path) -> None:
    """What `fuse --for-plugin` writes, and graphs whose pictures are not those of their description."""
    graph, fused, output = tmp_path / "m.onnx", tmp_path / "fused.onnx", tmp_path / "x.lsla"
    assert command("export", checkpoint, "-o", graph).code == 0
    assert command("fuse", graph, "-o", fused, "--for-plugin").code == 0
    remedy = "give the fused graph with its local functions (fuse without --for-plugin)"
    refused(command("build-engine", fused, "-o", output), 2, "the graph's LslaAttention has no function body",
            f"{fused}: node lsla_attention_0", remedy)  # fmt: skip
    model = onnx.load(graph)
    for size, words in ((48, "takes pictures of 48 x 48 pixels and its description says 32"), (2**40, "x 10995116277")):
        for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            dimension.dim_value = size
        onnx.save(model, tmp_path / "sized.onnx")
        refused(command("build-engine", tmp_path / "sized.onnx", "-o", output), 2, words, "export it again")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "sized.onnx")
    refused(command("build-engine", tmp_path / "sized.onnx", "-o", output), 2, "image size cannot be used",
            "sized.onnx: preprocessing needs a side of 1 to 4096 pixels; export it again")  # fmt: skip
    assert not output.exists()
