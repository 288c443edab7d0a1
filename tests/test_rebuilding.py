"""Engines that are added to a bundle: whose other engines stay, what is refused, and what is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edge_lsla.bundle import (
    GoldenSet,
    Manifest,
    NewArtifact,
    Passport,
    generate_key,
    open_bundle,
    read_private_key,
    remember_built_here,
    sign_bundle,
    was_built_here,
    write_bundle,
)
from edge_lsla.engine_cache import EngineOptions
from edge_lsla.errors import CompatibilityError, UsageError
from edge_lsla.rebuilding import add_engines

RTX = sorted((Path(sys.prefix) / "runtimes").glob("tensorrt-rtx-*"))
needs_rtx = pytest.mark.skipif(not RTX, reason="tensorrt-rtx is not installed (make runtimes)")


@pytest.fixture(scope="module")
def graphs(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with typed graphs for TensorRT for RTX in fp16 and fp32, and the CPU's."""
    from edge_lsla.bundling import Wanted, build_bundle
    from edge_lsla.sources import read_source

    path = tmp_path_factory.mktemp("graphs") / "graphs.lsla"
    build_bundle(read_source(checkpoint), path, Wanted(("tensorrt-rtx", "onnxruntime"), ("fp16", "fp32")))
    return path


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine cache of all tests: each engine is built once."""
    return tmp_path_factory.mktemp("cache") / "engines"


@pytest.fixture
def home(tmp_path: Path, engines: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who trusts nobody yet, and has TensorRT for RTX."""
    monkeypatch.setenv("EDGE_LSLA_ENGINE_CACHE", str(engines))
    monkeypatch.setenv("EDGE_LSLA_BUILT_HERE", str(tmp_path / "record"))
    monkeypatch.setenv("EDGE_LSLA_TRUSTED_KEYS", str(tmp_path / "keys"))
    if RTX:
        monkeypatch.setenv("PYTHONPATH", str(RTX[-1]))
    return tmp_path


def with_more(graphs: Path, path: Path, *more: NewArtifact, only: str | None = None) -> Path:
    """Write a bundle of the same graphs (`only`: of one backend) and more, as anybody could."""
    with open_bundle(graphs) as bundle:
        artifacts = [
            NewArtifact(bundle.read(one), one.backend, one.precision, one.kind, one.versions, one.targets, one.name)
            for one in bundle.manifest.artifacts
            if only in (None, one.backend)
        ]
        logits = {(one.backend, one.precision): bundle.golden_logits(one) for one in bundle.manifest.artifacts}
        any_logits = next(iter(logits.values()))
        tolerance = dict(bundle.manifest.golden.tolerance)
        for one in more:
            logits.setdefault((one.backend, one.precision), any_logits)
            tolerance.setdefault(one.precision, next(iter(tolerance.values())))
        values = {name: getattr(bundle.manifest, name) for name in Passport.__dataclass_fields__}
        held = {one.precision for one in (*artifacts, *more)} | {one.name for one in artifacts}
        values["precisions"] = {name: layers for name, layers in values["precisions"].items() if name in held}
        values["precisions"] |= {one.name: {"head": "fp16"} for one in more if one.name}
        write_bundle(
            path, Passport(**values), [*artifacts, *more], GoldenSet(bundle.golden_inputs(), logits, tolerance)
        )
    return path


def foreign(*targets: str, precision: str = "fp32") -> NewArtifact:
    """Native code that is no engine of ours."""
    name = f"foreign-{precision}-{'-'.join(targets)}.engine"
    return NewArtifact(b"\x7fELF of somebody", "tensorrt-rtx", precision, "engine", {}, targets, name)


def add(source: Path, output: Path, *targets: str, precisions: tuple[str, ...] = ("fp32",), backend: str = "auto",
        ) -> Manifest:  # fmt: skip
    with open_bundle(source) as bundle:
        return add_engines(bundle, output, backend, precisions, targets, EngineOptions())


def names(manifest: Manifest) -> list[str]:
    return [one.name for one in manifest.artifacts if one.kind == "engine"]


@needs_rtx
def test_engines_of_an_untrusted_bundle_are_not_laundered(
    graphs: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written counts as built here, and would be run."""
    source = with_more(graphs, home / "source.lsla", foreign("sm120"), foreign("sm89", precision="int8"))
    manifest = add(source, home / "new.lsla", "sm86")
    assert names(manifest) == ["tensorrt-rtx-fp32-sm86.engine"]
    assert was_built_here(manifest.sha256())
    with open_bundle(home / "new.lsla") as bundle:
        assert not any(b"ELF of somebody" in bundle.read(one) for one in bundle.manifest.artifacts)
        assert "int8" not in {one.precision for one in bundle.manifest.artifacts}
        assert not any("foreign" in name for name in bundle.manifest.precisions)
    said = capsys.readouterr().out
    assert (
        f"not kept: 2 engines of {source} (foreign-fp32-sm120.engine, foreign-int8-sm89.engine): native code is" in said
    )
    assert "bundle is not signed" in said


@needs_rtx
@pytest.mark.parametrize("why", ["built here", "signed"])
def test_engines_of_a_trusted_bundle_stay(
    graphs: Path, home: Path, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    old = [foreign("sm120"), foreign("sm86", "sm89"), foreign("sm86"), foreign("sm86", precision="fp16")]
    source = with_more(graphs, home / "source.lsla", *old)
    if why == "built here":
        with open_bundle(source) as bundle:
            remember_built_here(bundle.manifest.sha256())
    else:
        public = generate_key(home / "release.pem")
        sign_bundle(source, read_private_key(home / "release.pem"))
        (home / "keys").mkdir(mode=0o700)
        public.path.rename(home / "keys" / "release.pub")
    manifest = add(source, home / "new.lsla", "sm86")
    # The new one serves all of foreign-fp32-sm86, and only a part of foreign-fp32-sm86-sm89.
    assert names(manifest) == ["tensorrt-rtx-fp32-sm86.engine", "foreign-fp32-sm120.engine",
                               "foreign-fp32-sm86-sm89.engine", "foreign-fp16-sm86.engine"]  # fmt: skip
    assert was_built_here(manifest.sha256())
    said = capsys.readouterr().out
    assert "not kept" not in said
    unsigned = (
        f"{home / 'new.lsla'} is not signed, unlike {source}; to run its engines elsewhere, sign it: `bundle sign"
    )
    assert (unsigned in said) == (why == "signed")


@needs_rtx
def test_an_engine_for_more_gpus_replaces_one_for_fewer(graphs: Path, home: Path) -> None:
    source = with_more(graphs, home / "source.lsla", foreign("sm89"), foreign("sm120", "sm89"), foreign("sm80", "sm86"))
    with open_bundle(source) as bundle:
        remember_built_here(bundle.manifest.sha256())
    manifest = add(source, home / "new.lsla", "sm120", "sm89", "sm86")
    assert names(manifest) == ["tensorrt-rtx-fp32-sm86-sm89-sm120.engine", "foreign-fp32-sm80-sm86.engine"]


@needs_rtx
def test_a_bundle_that_cannot_be_remembered_is_written_with_a_warning(
    graphs: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "record").mkdir()
    (home / "record").chmod(0o755)
    manifest = add(graphs, home / "new.lsla", "sm86")
    with open_bundle(home / "new.lsla") as bundle:
        assert bundle.manifest == manifest
    assert not was_built_here(manifest.sha256())
    said = capsys.readouterr().out
    assert f"will be run here only once it is signed: `bundle sign {home / 'new.lsla'} --key KEY.pem`" in said
    assert "set EDGE_LSLA_BUILT_HERE to another folder" in said


@pytest.mark.parametrize("how", ["itself", "link", "hard link"])
def test_what_is_read_is_not_overwritten(graphs: Path, home: Path, how: str) -> None:
    source = with_more(graphs, home / "source.lsla")
    before, output = source.read_bytes(), home / "other.lsla"
    if how == "itself":
        output = source
    elif how == "link":
        output.symlink_to(source)
    else:
        os.link(source, output)
    with pytest.raises(UsageError, match=r"the output would overwrite what is read: .*\.lsla; choose another name"):
        add(source, output, "sm86")
    assert source.read_bytes() == before


@pytest.mark.parametrize(("precisions", "error", "words"), [
    (("fp17", "fp16"), UsageError, "unknown precision 'fp17': --precision; the bundle has graphs for tensorrt-rtx: "),
    (("auto",), UsageError, "unknown precision 'auto'"),
    (("fp16", "int8"), CompatibilityError, r"no graph in int8 to build .*; it has graphs for tensorrt-rtx: fp16, fp32"),
    (("int8",), CompatibilityError, r"no graph in int8 to build an engine from: .*graphs\.lsla; it has graphs for"),
])  # fmt: skip
def test_a_precision_that_the_bundle_lacks(
    graphs: Path, home: Path, precisions: tuple[str, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        add(graphs, home / "new.lsla", "sm86", precisions=precisions)
    assert not (home / "new.lsla").exists()


@pytest.mark.parametrize(("backend", "words"), [
    ("banana", "no such backend 'banana': --backend; engines are of tensorrt or tensorrt-rtx"),
    ("onnxruntime", "onnxruntime runs graphs as they are"),
    ("tensorrt,tensorrt-rtx", "name one, or auto"),
])  # fmt: skip
def test_a_backend_without_engines(graphs: Path, home: Path, backend: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        add(graphs, home / "new.lsla", "sm86", backend=backend)


def tensorrt_graph(graphs: Path, precision: str = "fp32") -> NewArtifact:
    with open_bundle(graphs) as bundle:
        data = bundle.read(bundle.artifact("tensorrt-rtx", precision))
    return NewArtifact(data, "tensorrt", precision, "onnx", {"attention": "function"})


def test_a_target_for_tensorrt(graphs: Path, home: Path) -> None:
    only = with_more(graphs, home / "only.lsla", tensorrt_graph(graphs), only="onnxruntime")
    for backend in ("auto", "tensorrt"):
        with pytest.raises(UsageError, match="TensorRT builds only for this machine: --target sm86"):
            add(only, home / "new.lsla", "sm86", backend=backend)
    with pytest.raises(
        CompatibilityError, match=r"no typed graph to build such an engine from.*it holds graphs for tensorrt: fp32"
    ):
        add(only, home / "new.lsla", backend="tensorrt-rtx")
    cpu = with_more(graphs, home / "cpu.lsla", only="onnxruntime")
    with pytest.raises(CompatibilityError, match=r"it holds onnxruntime-fp32\.onnx; rebuild it from the checkpoint"):
        add(cpu, home / "new.lsla")


@needs_rtx
def test_a_target_chooses_the_backend_that_builds_for_others(graphs: Path, home: Path) -> None:
    both = with_more(graphs, home / "both.lsla", tensorrt_graph(graphs))
    assert names(add(both, home / "new.lsla", "sm86")) == ["tensorrt-rtx-fp32-sm86.engine"]


@needs_rtx
def test_engines_come_in_the_order_that_was_asked_for(graphs: Path, home: Path) -> None:
    found = add(graphs, home / "new.lsla", "sm86", precisions=("fp32", "fp16", "fp32"))
    assert names(found) == ["tensorrt-rtx-fp32-sm86.engine", "tensorrt-rtx-fp16-sm86.engine"]
