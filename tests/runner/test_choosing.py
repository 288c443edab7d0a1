"""Which artifact runs: engines of the bundle, of the cache, built now, or the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_lsla.bundle import Artifact, Bundle, open_bundle
from edge_lsla.device import Device
from edge_lsla.engine_building import rebuild_here
from edge_lsla.engine_cache import EngineOptions
from edge_lsla.errors import CompatibilityError, EdgeLslaError, MissingComponentError
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
