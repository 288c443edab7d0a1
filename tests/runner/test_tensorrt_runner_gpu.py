"""The TensorRT runner on a GPU, beside ONNX Runtime: engines are built here from the same file."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_lsla.errors import CompatibilityError, EdgeLslaError, UsageError
from edge_lsla.runner.cuda_context import CudaGpu, check_gpu, import_pycuda
from edge_lsla.runner.cuda_graphs import import_driver
from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner
from edge_lsla.runner.tensorrt import TensorRtRunner
from edge_lsla.runner.tensorrt_engine import load


def lacking() -> str | None:
    """What this machine lacks for these tests."""
    try:
        check_gpu()
        import_pycuda()
        import_driver()
    except EdgeLslaError as error:
        return str(error)
    return None


LACKS = lacking()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(LACKS is not None, reason=str(LACKS))]
PROFILES = ((1, 1, 1), (2, 4, 8))
# TensorRT may take TF32 or other orders of summation for float32; logits here are of order 1.
TOLERANCE = 5e-3


@pytest.fixture(scope="module")
def onnx_file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from edge_lsla.export.onnx_export import export_onnx
    from edge_lsla.model.checkpoint import load_checkpoint

    path = tmp_path_factory.mktemp("gpu") / "m.onnx"
    export_onnx(load_checkpoint(checkpoint).model, 32, path)
    return path.read_bytes()


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def backend(request: pytest.FixtureRequest) -> str:
    try:
        load(request.param)
    except EdgeLslaError as error:
        pytest.skip(str(error))
    return str(request.param)


@pytest.fixture(scope="module")
def engine(backend: str, onnx_file: bytes) -> bytes:
    from edge_lsla.build.tensorrt.builder import build_engine, describe_runtime
    from edge_lsla.build.tensorrt.settings import BuildSettings
    from edge_lsla.device import describe_device

    targets: tuple[str, ...] = ()
    if backend == "tensorrt-rtx":
        target = describe_device().target
        if target not in describe_runtime(backend).targets:
            pytest.skip(f"TensorRT for RTX does not build for this GPU ({target})")
        targets = (str(target),)
    return build_engine(onnx_file, BuildSettings(backend, targets, PROFILES)).data


@pytest.fixture(scope="module")
def runner(backend: str, engine: bytes) -> Iterator[TensorRtRunner]:
    with TensorRtRunner(engine, backend) as runner:
        yield runner


@pytest.fixture(scope="module")
def reference(onnx_file: bytes) -> Iterator[OnnxRuntimeRunner]:
    with OnnxRuntimeRunner(onnx_file, threads=1) as reference:
        yield reference


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([count, seed]).standard_normal((count, 3, 32, 32)).astype(np.float32)


def free_bytes() -> int:
    gc.collect()
    gpu = CudaGpu()
    with gpu.current():
        return gpu.memory()[0]


def test_logits_are_those_of_onnxruntime(runner: TensorRtRunner, reference: OnnxRuntimeRunner) -> None:
    assert (runner.image_size, runner.classes) == (reference.image_size, reference.classes)
    for _ in range(2):  # the second time from graphs
        for count in (1, 2, 3, 4, 8, 9, 19):
            given = pictures(count)
            np.testing.assert_allclose(runner.run(given), reference.run(given), atol=TOLERANCE)
    assert runner.run(pictures(0)).shape == (0, runner.classes)


def test_a_graph_computes_the_same_as_none(backend: str, engine: bytes, runner: TensorRtRunner) -> None:
    assert runner.describe()["graphs"] == "on"
    assert {1, 4} <= set(runner.describe()["graph_batches"])
    with TensorRtRunner(engine, backend, graphs=False) as plain:
        assert plain.describe()["graph_batches"] == []
        for count in (1, 4, 9):
            given = pictures(count)
            for _ in range(2):
                # The same kernels in the same order.
                np.testing.assert_array_equal(runner.run(given), plain.run(given))


def test_four_threads_get_what_one_gets(runner: TensorRtRunner) -> None:
    alone = {(count, seed): runner.run(pictures(count, seed)) for count in (1, 3, 4, 11) for seed in range(4)}

    def work(seed: int) -> None:
        for _ in range(50):
            for count in (1, 3, 4, 11):
                np.testing.assert_array_equal(runner.run(pictures(count, seed)), alone[count, seed])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_memory_stays_flat_over_a_thousand_runs(runner: TensorRtRunner) -> None:
    given = pictures(11)
    for _ in range(20):
        runner.run(given)
    before = free_bytes()
    for _ in range(1000):
        runner.run(given)
    assert free_bytes() >= before - 2**21  # one page of the driver's, that something else may have taken


def test_closing_gives_memory_back(backend: str, engine: bytes) -> None:
    TensorRtRunner(engine, backend).close()  # what CUDA and TensorRT keep for the process
    before = free_bytes()
    for _ in range(5):
        runner = TensorRtRunner(engine, backend)
        assert runner.describe()["memory_bytes"]["activations"] >= 0
        runner.run(pictures(3))
        runner.close()
        runner.close()
        with pytest.raises(UsageError, match="closed"):
            runner.run(pictures(3))
    assert free_bytes() >= before - 2**21
    forgotten = TensorRtRunner(engine, backend)
    del forgotten
    assert free_bytes() >= before - 2**21


def test_latency_by_both_clocks(runner: TensorRtRunner) -> None:
    latency = runner.measure(4, repeats=50)
    assert latency.graph
    assert 0 < latency.device.median < latency.host.median
    with pytest.raises(UsageError, match="no batch of 9"):
        runner.measure(9, 1)


def test_a_damaged_engine_is_refused_and_leaves_nothing(backend: str, engine: bytes) -> None:
    before = free_bytes()
    for damaged in (engine[: len(engine) // 2], b"no engine" * 100):
        with pytest.raises(CompatibilityError, match="build it again"):
            TensorRtRunner(damaged, backend)
    assert free_bytes() >= before - 2**21


def test_the_inspector_tells_the_layers(runner: TensorRtRunner) -> None:
    layers = runner.layers()
    assert layers
    assert all(layer.name for layer in layers)
    if any(layer.kind for layer in layers):  # built with details
        assert any(layer.precision == "fp32" for layer in layers)
        assert any(layer.outputs for layer in layers)


def test_times_are_of_the_layers_that_the_inspector_tells(runner: TensorRtRunner) -> None:
    given = pictures(4)
    before, free = runner.run(given), free_bytes()
    times = runner.profile(given, repeats=20)
    told = {layer.name for layer in runner.layers()}
    assert {time.name for time in times} & told
    assert all(time.milliseconds >= 0 for time in times)
    assert sum(time.milliseconds for time in times) > 0
    np.testing.assert_array_equal(runner.run(given), before)
    assert free_bytes() >= free - 2**21
    with pytest.raises(UsageError, match="no batch of 9"):
        runner.profile(pictures(9))
