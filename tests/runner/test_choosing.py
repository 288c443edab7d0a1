"""Which artifact runs: engines of the bundle, of the cache, built now, or the CPU."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from edge_lsla.bundle import (
    Artifact,
    Bundle,
    GoldenSet,
    NewArtifact,
    Passport,
    generate_key,
    open_bundle,
    read_private_key,
    sign_bundle,
    write_bundle,
)
from edge_lsla.device import Device
from edge_lsla.engine_building import rebuild_here
from edge_lsla.engine_cache import EngineOptions
from edge_lsla.engine_facts import engine_versions
from edge_lsla.errors import CompatibilityError, EdgeLslaError, MissingComponentError, TrustError
from edge_lsla.runner import choosing
from edge_lsla.runner.choosing import Request, choose

RTX = sorted((Path(sys.prefix) / "runtimes").glob("tensorrt-rtx-*"))
REFUSAL = CompatibilityError("the bundle's engine does not fit")
DEVICE = Device(
    "x86_64",
    gpu="GeForce",
    capability=86,
    driver="580.1",
    cuda="13.0",
    tensorrt_rtx="1.7.1.116",
    gpu_memory_total=2**34,
)


@pytest.fixture(scope="module")
def path(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edge_lsla.bundling import Wanted, build_bundle
    from edge_lsla.sources import read_source

    made = tmp_path_factory.mktemp("choosing") / "x.lsla"
    build_bundle(read_source(checkpoint), made, Wanted(("tensorrt-rtx", "onnxruntime")))
    return made


@pytest.fixture
def bundle(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bundle]:
    monkeypatch.setenv("EDGE_LSLA_ENGINE_CACHE", str(tmp_path / "engines"))
    with open_bundle(path) as opened:
        yield opened


def from_graph(bundle: Bundle, request: Request, device: Device = DEVICE) -> tuple[Artifact, bytes]:
    return choosing._from_graph(bundle, "tensorrt-rtx", request, device, REFUSAL)


def test_nothing_is_built_that_was_not_allowed(bundle: Bundle) -> None:
    with pytest.raises(CompatibilityError) as caught:
        from_graph(bundle, Request())
    assert caught.value is REFUSAL
    with pytest.raises(CompatibilityError) as caught:
        from_graph(bundle, Request(precision="fp16", rebuild=rebuild_here))  # the bundle has no such graph
    assert caught.value is REFUSAL


def test_a_graph_that_does_not_fit_is_not_built(bundle: Bundle) -> None:
    with pytest.raises(MissingComponentError, match="needs NVIDIA's driver"):
        from_graph(bundle, Request(rebuild=rebuild_here), Device("x86_64", tensorrt_rtx="1.7.1.116"))
    with pytest.raises(CompatibilityError, match=r"supports sm75, .* and this GPU, Hopper, is sm90"):
        from_graph(bundle, Request(rebuild=rebuild_here), Device("x86_64", gpu="Hopper", capability=90, driver="580.1",
                                                                 cuda="13.0", tensorrt_rtx="1.7.1.116"))  # fmt: skip


@pytest.mark.skipif(not RTX, reason="tensorrt-rtx is not installed (make runtimes)")
def test_an_engine_is_built_once_and_then_found(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(RTX[-1]))
    artifact, engine = from_graph(bundle, Request(rebuild=rebuild_here, options=EngineOptions(4)))
    assert (artifact.name, len(engine) > 100_000) == ("tensorrt-rtx-fp32.onnx", True)
    assert from_graph(bundle, Request(options=EngineOptions(4))) == (artifact, engine)
    with pytest.raises(CompatibilityError):  # another batch is another engine
        from_graph(bundle, Request(options=EngineOptions(5)))


def test_auto_says_why_it_takes_the_cpu(bundle: Bundle) -> None:
    """Also when a build fails: the user asked for what works."""

    def fails(*arguments: object) -> bytes:
        raise EdgeLslaError("too little memory for the build")

    chosen = choose(bundle, Request(rebuild=fails))
    try:
        assert chosen.runner.backend == "onnxruntime"
        assert [why.partition(":")[0] for why in chosen.passed_over] == ["tensorrt-rtx"]
    finally:
        chosen.runner.close()


@pytest.mark.parametrize(("precision", "asked", "remedy"), [
    ("fp16", " in fp16", "; on the CPU it runs in fp32: --precision fp32"),
    (None, "", "--backend onnxruntime"),
])  # fmt: skip
def test_where_nothing_runs_every_reason_is_said(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str | None, asked: str, remedy: str
) -> None:
    """Not only that of the CPU, which was never meant."""
    from edge_lsla.bundling import Wanted, build_bundle
    from edge_lsla.sources import read_source

    monkeypatch.setattr(choosing, "describe_device", lambda: Device("x86_64", tensorrt_rtx="1.7.1.116"))
    path = tmp_path / "x.lsla"
    build_bundle(read_source(checkpoint), path, Wanted(("tensorrt-rtx", "onnxruntime"), ("fp16", "fp32")))
    if precision is None:
        monkeypatch.setattr(choosing, "OnnxRuntimeRunner", lambda *_, **__: fail())
    with open_bundle(path) as opened, pytest.raises(MissingComponentError) as caught:
        choose(opened, Request(precision=precision, rebuild=rebuild_here))
    said = str(caught.value)
    assert said.startswith(
        f"nothing in the bundle runs here{asked} (tensorrt-rtx: TensorRT for RTX needs NVIDIA's driver"
    )
    assert "; onnxruntime: " in said
    assert "\n" not in said
    assert said.endswith(remedy)
    assert caught.value.exit_code == 3


def fail() -> NoReturn:
    raise EdgeLslaError("the CPU is on strike")


def test_the_command_that_adds_an_engine_can_be_typed(bundle: Bundle) -> None:
    with pytest.raises(CompatibilityError) as caught:
        choosing._engine(bundle, "tensorrt-rtx", None, DEVICE)
    assert caught.value.remedy is not None
    command = shlex.split(caught.value.remedy.partition("add one: `")[2].rstrip("`"))
    assert command == ["build-engine", str(bundle.path), "--backend", "tensorrt-rtx", "-o", "NEW.lsla"]


def test_a_loose_record_of_bundles_hides_no_signature(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle with an engine, signed by a trusted key; whoever can write the record has not to be believed."""
    monkeypatch.setenv("EDGE_LSLA_BUILT_HERE", str(tmp_path / "record"))
    monkeypatch.setenv("EDGE_LSLA_TRUSTED_KEYS", str(tmp_path / "keys"))
    (tmp_path / "record").mkdir(mode=0o700)
    (tmp_path / "record").chmod(0o755)
    signed = tmp_path / "signed.lsla"
    (graph,) = (one for one in bundle.manifest.artifacts if one.backend == "tensorrt-rtx")
    versions = engine_versions(None, "tensorrt-rtx", "1.7.1.116", [(1, 1, 1)])
    engine = NewArtifact(b"engine", "tensorrt-rtx", graph.precision, "engine", versions, ("sm86",))
    golden = GoldenSet(bundle.golden_inputs(), {("tensorrt-rtx", graph.precision): bundle.golden_logits(graph)},
                       bundle.manifest.golden.tolerance)  # fmt: skip
    passport = {name: getattr(bundle.manifest, name) for name in Passport.__dataclass_fields__} | {"precisions": {}}
    write_bundle(signed, Passport(**passport), [engine], golden)
    public = generate_key(tmp_path / "release.pem")
    with open_bundle(signed) as opened, pytest.raises(TrustError, match=r"open to other users \(mode 0755\)"):
        choosing._engine(opened, "tensorrt-rtx", None, DEVICE)
    sign_bundle(signed, read_private_key(tmp_path / "release.pem"))
    (tmp_path / "keys").mkdir(mode=0o700)
    public.path.rename(tmp_path / "keys" / "release.pub")
    with open_bundle(signed) as opened:
        assert choosing._engine(opened, "tensorrt-rtx", None, DEVICE).kind == "engine"
