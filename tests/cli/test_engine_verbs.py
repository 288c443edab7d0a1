"""Bundles for GPUs, built on a machine without one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_lsla.bundle import open_bundle

RTX = sorted((Path(sys.prefix) / "runtimes").glob("tensorrt-rtx-*"))
needs_rtx = pytest.mark.skipif(not RTX, reason="tensorrt-rtx is not installed (make runtimes)")


@needs_rtx
def test_engines_for_other_gpus(command, checkpoint: Path, pictures: Path, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(RTX[-1]))
    monkeypatch.setenv("EDGE_LSLA_BUILT_HERE", str(tmp_path / "built-here"))
    bundle = tmp_path / "x.lsla"
    options = ("--target", "sm86,sm120", "--precision", "fp16,int8,fp32", "--data", pictures, "--batch", 4)
    result = command(
        "build-engine", checkpoint, "--backend", "tensorrt-rtx,onnxruntime", *options, "-o", bundle, "--json"
    )
    assert result.code == 0, result.err
    with open_bundle(bundle) as opened:
        engines = {one.precision: one for one in opened.manifest.artifacts if one.kind == "engine"}
        assert set(engines) == {"fp16", "int8", "fp32"}
        for engine in engines.values():
            assert (engine.backend, engine.targets) == ("tensorrt-rtx", ("sm86", "sm120"))
            assert engine.versions["profiles"] == "1-2-4"
            assert len(opened.read(engine)) == engine.size
        assert 0 < opened.manifest.fidelity["tensorrt-rtx-fp16"]["largest_activation_over_65504"] < 0.5
        assert set(opened.manifest.precisions["tensorrt-rtx-int8.onnx"].values()) >= {"int8", "fp16"}
    # The same file still runs here, and says why not on a GPU.
    here = command("selftest", bundle, "--precision", "int8")
    assert (here.code, "not tensorrt-rtx: " in here.out, "needs NVIDIA's driver" in here.out) == (0, True, True), (
        here.out
    )
    insisted = command("selftest", bundle, "--backend", "tensorrt-rtx")
    assert (insisted.code, insisted.err.count("\n")) == (3, 1), insisted.err


@needs_rtx
def test_an_engine_is_added_to_a_bundle_of_graphs(command, checkpoint: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """What a device does: no torch, no onnx, only the bundle and the builder."""
    monkeypatch.setenv("PYTHONPATH", str(RTX[-1]))
    monkeypatch.setenv("EDGE_LSLA_BUILT_HERE", str(tmp_path / "built-here"))
    graphs, bundle = tmp_path / "graphs.lsla", tmp_path / "x.lsla"
    assert command("build-engine", checkpoint, "--backend", "tensorrt-rtx", "-o", graphs).code == 0
    no_gpu = command("build-engine", graphs, "-o", bundle)
    assert (no_gpu.code, "--target sm86" in no_gpu.err) == (2, True)
    result = command("build-engine", graphs, "--target", "sm89", "-o", bundle, "--json")
    assert (result.code, result.json["backend"]) == (0, "tensorrt-rtx"), result.err
    with open_bundle(graphs) as before, open_bundle(bundle) as after:
        assert [one.name for one in after.manifest.artifacts] == [
            "tensorrt-rtx-fp32-sm89.engine", "tensorrt-rtx-fp32.onnx"]  # fmt: skip
        (graph,) = before.manifest.artifacts
        assert after.read(graph) == before.read(graph)
        assert (after.golden_logits(graph) == before.golden_logits(graph)).all()
    cpu_only = command("build-engine", graphs, "--backend", "onnxruntime", "-o", bundle)
    assert (cpu_only.code, "runs graphs as they are" in cpu_only.err) == (2, True)


@needs_rtx
def test_a_target_that_rtx_does_not_know(command, checkpoint: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(RTX[-1]))
    result = command("build-engine", checkpoint, "--target", "sm87", "-o", tmp_path / "x.lsla")
    assert (result.code, "does not build for sm87" in result.err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_without_tensorrt_rtx_it_says_what_to_install(command, checkpoint: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", "")
    result = command("build-engine", checkpoint, "--target", "sm86", "-o", tmp_path / "x.lsla")
    assert (result.code, "pip install tensorrt-rtx-cu13" in result.err) == (3, True)
    assert list(tmp_path.iterdir()) == []


def test_a_typed_graph_for_tensorrt(command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the plugin library the bundle cannot name its kernels; with another form of attention it needs none."""
    monkeypatch.setenv("EDGE_LSLA_PLUGIN", str(tmp_path / "absent.so"))
    bundle = tmp_path / "x.lsla"
    command_line = ("build-engine", checkpoint, "--backend", "tensorrt", "--precision", "fp16", "-o", bundle)
    refused = command(*command_line)
    assert refused.code in (2, 3)
    assert "EDGE_LSLA_PLUGIN" in refused.err or "plugin build" in refused.err
    assert command(*command_line, "--attention", "split").code == 0
    with open_bundle(bundle) as opened:
        (artifact,) = opened.manifest.artifacts
        assert (artifact.backend, artifact.kind, artifact.versions["attention"]) == ("tensorrt", "onnx", "split")
        assert opened.manifest.plugin is None


def test_a_typed_graph_for_the_plugin(command, checkpoint: Path, tmp_path: Path) -> None:
    import onnx

    from edge_lsla.plugin_library import find_plugin

    if find_plugin() is None:
        pytest.skip("no plugin library is built here (python cli.py plugin build)")
    bundle = tmp_path / "x.lsla"
    assert command("build-engine", checkpoint, "--backend", "tensorrt", "--precision", "fp16", "-o", bundle).code == 0
    with open_bundle(bundle) as opened:
        graph = onnx.load_from_string(opened.read(opened.manifest.artifacts[0]))
        assert opened.manifest.plugin is not None
    assert len(graph.functions) == 0
    assert [node.op_type for node in graph.graph.node].count("LslaAttention") == 2
    on_cpu = command("infer", "image", "x.jpg", "--engine", bundle)
    assert (on_cpu.code, "TensorRT" in on_cpu.err, on_cpu.err.count("\n")) == (3, True, 1), on_cpu.err


@needs_rtx
def test_an_engine_that_was_built_before_is_taken_from_the_cache(command, checkpoint: Path, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Also after a kill: what was finished is kept, so the same command goes on."""
    monkeypatch.setenv("PYTHONPATH", str(RTX[-1]))
    monkeypatch.setenv("EDGE_LSLA_BUILT_HERE", str(tmp_path / "built-here"))
    line = ("build-engine", checkpoint, "--target", "sm86", "--precision", "fp32", "-o")
    first = command(*line, tmp_path / "a.lsla")
    again = command(*line, tmp_path / "b.lsla")
    assert ("built before" in first.out, "built before" in again.out) == (False, True)
    with open_bundle(tmp_path / "a.lsla") as a, open_bundle(tmp_path / "b.lsla") as b:
        assert [one.sha256 for one in a.manifest.artifacts] == [one.sha256 for one in b.manifest.artifacts]
    other = command(*line, tmp_path / "c.lsla", "--batch", 2)
    assert "built before" not in other.out
    for entry in (tmp_path / "cache").rglob("*.engine"):
        entry.write_bytes(entry.read_bytes()[:-1] + b"x")
    damaged = command(*line, tmp_path / "d.lsla")
    assert ("is damaged and is removed" in damaged.out, "built before" in damaged.out) == (True, False)


@needs_rtx
def test_without_a_cache_engines_are_built_all_the_same(command, checkpoint: Path, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(RTX[-1]))
    monkeypatch.setenv("EDGE_LSLA_BUILT_HERE", str(tmp_path / "built-here"))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGE_LSLA_ENGINE_CACHE", str(tmp_path / "file" / "engines"))
    result = command("build-engine", checkpoint, "--target", "sm86", "-o", tmp_path / "x.lsla")
    assert (result.code, "engines are not kept: " in result.out) == (0, True), result.out
