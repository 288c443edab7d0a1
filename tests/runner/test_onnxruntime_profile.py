"""ONNX Runtime's own profiling, of real models on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_lsla.errors import EdgeLslaError, GraphError, UsageError
from edge_lsla.layer_times import costs, measure_layers
from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner
from edge_lsla.runner.onnxruntime_profile import profile_model, read_profile
from edge_lsla.runner.profile import WARM_UP, LayerTime, medians

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
REPEATS = 3


@pytest.fixture(scope="module")
def models(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tiny model, fused: as it is, and with INT8 for ONNX Runtime."""
    from calibration.qdq import insert_qdq
    from calibration.ranges import collect_ranges
    from calibration.settings import CalibrationSettings, QdqSettings
    from edge_lsla.export.onnx_export import export_onnx
    from edge_lsla.model.checkpoint import load_checkpoint
    from edge_lsla.surgery.fuse import fuse

    path = tmp_path_factory.mktemp("profile") / "m.onnx"
    export_onnx(load_checkpoint(checkpoint).model, 32, path)
    fused, _ = fuse(onnx.load(path))
    ranges = collect_ranges(fused, [IMAGES], CalibrationSettings())
    int8, _ = insert_qdq(fused, ranges, QdqSettings("onnxruntime"))
    return {"fp32": fused.SerializeToString(), "int8": int8.SerializeToString()}


@pytest.fixture(scope="module")
def runner(models: dict[str, bytes]) -> Iterator[OnnxRuntimeRunner]:
    with OnnxRuntimeRunner(models["fp32"], threads=1) as runner:
        yield runner


def test_a_runner_tells_its_kernels(runner: OnnxRuntimeRunner) -> None:
    before = runner.run(IMAGES)
    times = runner.profile(IMAGES, REPEATS)
    assert len({time.name for time in times}) == len(times) > 20
    assert all(time.milliseconds >= 0 and time.calls == 1 for time in times)
    assert sum(time.milliseconds for time in times) > 0
    products = [time for time in times if time.kind in ("MatMul", "FusedMatMul", "Gemm", "Conv")]
    assert {time.precision for time in products} == {"fp32"}
    np.testing.assert_array_equal(runner.run(IMAGES), before)


def test_a_function_may_give_the_model_again(models: dict[str, bytes]) -> None:
    read: list[int] = []

    def model() -> bytes:
        read.append(1)
        return models["fp32"]

    with OnnxRuntimeRunner(model, threads=1) as runner:
        runner.run(IMAGES)
        assert len(read) == 1
        assert runner.profile(IMAGES, 1)
        assert len(read) == 2


def test_what_cannot_be_measured_is_refused(runner: OnnxRuntimeRunner, models: dict[str, bytes]) -> None:
    for repeats in (0, 1001, 2.5, True):
        with pytest.raises(UsageError, match="repeats is not a number from 1 to 1000"):
            runner.profile(IMAGES, repeats)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no images"):
        runner.profile(IMAGES[:0])
    with pytest.raises(UsageError, match="they must be float32"):
        runner.profile(IMAGES[:, :, :16])
    with pytest.raises(GraphError):
        profile_model(b"no model", IMAGES, 1)
    closed = OnnxRuntimeRunner(models["fp32"], threads=1)
    closed.close()
    with pytest.raises(UsageError, match="closed"):
        closed.profile(IMAGES)


def test_nothing_is_left_behind(runner: OnnxRuntimeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    runner.profile(IMAGES, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_kernels_lead_back_to_the_graphs_nodes(models: dict[str, bytes], precision: str) -> None:
    graph = onnx.load_from_string(models[precision]).graph
    operators = {node.name: node.op_type for node in graph.node}
    times = measure_layers(models[precision], IMAGES, REPEATS, threads=1)
    known = {time.name: time for time in times if time.nodes}
    assert known.keys() <= operators.keys()
    assert all(time.kind == operators[time.name] and time.nodes == (time.name,) for time in known.values())
    # All that multiplies is found again, attention with all the kernels of its body.
    multiplying = {name for name, kind in operators.items() if kind in ("MatMul", "Gemm", "Conv", "LslaAttention")}
    assert multiplying <= known.keys()
    attentions = [time for time in known.values() if time.kind == "LslaAttention"]
    assert len(attentions) == 2
    assert all(time.calls > 20 and time.precision == "fp32" for time in attentions)
    types = {time.kind: time.precision for time in known.values()}
    assert types["MatMul"] == types["Gemm"] == precision
    # What is left is ONNX Runtime's own: changes of layout, and Q/DQ that it moved.
    rest = [time for time in times if not time.nodes]
    assert {time.kind for time in rest} <= {"ReorderInput", "ReorderOutput", "Transpose", "QuantizeLinear",
                                            "DequantizeLinear"}  # fmt: skip
    assert sum(time.calls for time in rest) < 0.05 * sum(time.calls for time in times)


def test_no_kernel_is_lost_and_none_counted_twice(models: dict[str, bytes]) -> None:
    from edge_lsla.build.tensorrt.nodes import name_bodies, read_nodes
    from edge_lsla.layer_times import attribute

    measured = profile_model(name_bodies(models["int8"]), IMAGES, REPEATS, threads=1)
    rows = attribute(measured.times, read_nodes(models["int8"]), read_nodes(measured.optimised))
    assert sum(row.calls for row in rows) == len(measured.times)
    assert sum(row.milliseconds for row in rows) == pytest.approx(sum(time.milliseconds for time in measured.times))


def test_costs_of_layers() -> None:
    times = [
        LayerTime("a + b", "gemm", "fp16", 3.0, nodes=("a", "gelu", "b")),
        LayerTime("a", "", "", 1.0, nodes=("a",)),
        LayerTime("reformat", "", "", 9.0),
    ]
    assert costs(times, {"a", "b", "c"}) == {"a": 2.5, "b": 1.5}


def test_medians_over_inferences() -> None:
    rounds = [[("x", 1.0), ("y", 5.0), ("x", 1.0)], [("x", 3.0), ("x", 3.0)], [("x", 4.0), ("y", 1.0), ("z", 2.0)]]
    assert medians(rounds) == {"x": (4.0, 2), "y": (1.0, 1), "z": (0.0, 1)}
    assert medians([]) == {}


def event(name: str, start: int, **changes: object) -> dict[str, object]:
    args = {"op_name": "Relu", "input_type_shape": [{"float": [1]}], "output_type_shape": [{"float": [1]}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": start, "args": args, **changes}


def whole(inferences: int) -> list[dict[str, object]]:
    """Events as ONNX Runtime 1.20 to 1.32 write them, each 100 microseconds apart."""
    runs = [{"cat": "Session", "name": "model_run", "ts": 100 * n, "dur": 99, "args": {}} for n in range(inferences)]
    return [one for n, run in enumerate(runs) for one in (event("a", 100 * n + 5), event("b", 100 * n + 50), run)]


def test_warming_up_does_not_count() -> None:
    times = read_profile(json.dumps(whole(WARM_UP + 1)), "m")
    at = 100 * WARM_UP
    assert times == (
        LayerTime("a", "Relu", "fp32", (at + 5) / 1000),
        LayerTime("b", "Relu", "fp32", (at + 50) / 1000),
    )


UNUSABLE = {
    "empty": "",
    "no list": "{}",
    "no events": "[1]",
    "no inference": "[]",
    "too few inferences": json.dumps(whole(WARM_UP)),
    "a kernel is missing": json.dumps(whole(9)[1:]),
    "a kernel outside": json.dumps([*whole(9), event("late", 10**6)]),
}


@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
def test_another_profile_is_refused(text: str) -> None:
    with pytest.raises(EdgeLslaError, match=r"profile cannot be read: m; report this"):
        read_profile(text, "m")
