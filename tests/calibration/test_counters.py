"""Saturation counters: the right shares, the same logits and kernels, nothing where nobody asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from calibration_graphs import classifier, executed
from numpy.typing import NDArray

from calibration.counters import activation_names, add_counters, counted_names, drop_counters
from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.errors import GraphError, UsageError
from edge_lsla.runner.drift import Drift, DriftCounter, compare, read_baseline
from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner

ASK = {"count_saturation": np.array(True)}


def quantise(model: onnx.ModelProto, images: NDArray[np.float32], backend: str = "onnxruntime") -> onnx.ModelProto:
    ranges = collect_ranges(model, [images], CalibrationSettings())
    return insert_qdq(model, ranges, QdqSettings(backend=backend))[0]


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # it warns of every input that has a default
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def integers(model: onnx.ModelProto, images: NDArray[np.float32]) -> dict[str, tuple[NDArray[np.uint8], int]]:
    """Values and zero point of each quantised activation, from a session that shows them as outputs."""
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    names = [node.output[0] for node in nodes]
    wide.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.UINT8, None) for n in names)
    zero = {t.name: int(onnx.numpy_helper.to_array(t)) for t in model.graph.initializer if t.name.endswith("_point")
            and not t.dims}  # fmt: skip
    values = session(wide).run(names, {"images": images})
    return {node.output[0]: (value, zero[node.input[2]]) for node, value in zip(nodes, values)}


def test_shares_are_those_of_integers_at_the_ends(fused: onnx.ModelProto, images: NDArray[np.float32]) -> None:
    quantised = quantise(fused, images[:2] / 3)  # what comes is three times as large
    counting = add_counters(quantised)
    logits, shares = session(counting).run(["logits", "saturation"], {"images": images[:3], **ASK})
    values = integers(quantised, images[:3])
    expected = []
    for value, zero_point in values.values():
        low, high = value == 0, value == 255
        ends = high if zero_point == 0 else low if zero_point == 255 else low | high
        expected.append(ends.reshape(3, -1).mean(axis=1))
    # Shares are means of ones and zeros in float32.
    np.testing.assert_allclose(shares, np.stack(expected, axis=1), rtol=1e-6)
    assert counted_names(counting) == tuple(name.removesuffix("_quantized") for name in values)
    assert shares[:, counted_names(counting).index("images")].min() > 0.1
    assert logits.shape == (3, 5)


def test_zeros_of_an_activation_that_is_never_negative_do_not_count() -> None:
    images = np.random.default_rng(0).standard_normal((4, 4, 8, 8), dtype=np.float32)
    counting = add_counters(quantise(classifier(), images))
    column = counted_names(counting).index("flat")  # a mean behind a Relu: zero is one end of its range
    black = np.full((1, 4, 8, 8), -100, np.float32)
    quiet = session(counting).run(["saturation"], {"images": 0 * images, **ASK})[0]
    loud = session(counting).run(["saturation"], {"images": np.concatenate([black, -black]), **ASK})[0]
    assert quiet[:, column].max() == 0
    assert loud[:, column].min() > 0


@pytest.mark.parametrize("batch", [1, 5])
def test_logits_and_kernels_are_those_of_the_plain_graph(
    model: onnx.ModelProto, images: NDArray[np.float32], batch: int, tmp_path: Path
) -> None:
    plain = quantise(model, images)
    counting = add_counters(plain)
    onnx.checker.check_model(counting)
    asked = session(counting)
    expected = session(plain).run(["logits"], {"images": images[:batch]})[0]
    assert [entry.name for entry in asked.get_inputs()] == ["images"]
    for feed in ({}, ASK):
        logits, shares = asked.run(None, {"images": images[:batch], **feed})
        assert logits.tobytes() == expected.tobytes()
        assert shares.shape == (batch if feed else 0, len(counted_names(counting)))
    before, after = executed(plain, tmp_path), executed(counting, tmp_path)
    # A change of layout stays in front of what is counted; everything else runs in the same kernels, and one If more.
    layouts = {op: counts.pop("Transpose", 0) for op, counts in (("before", before), ("after", after))}
    assert after - before == {"If": 1}
    assert before - after == {}
    assert layouts["after"] >= layouts["before"]
    assert before["QLinearConv"] >= 2
    assert before["MatMulIntegerToFloat"] >= 2


def test_dropping_counters_gives_the_graph_back(fused: onnx.ModelProto, images: NDArray[np.float32]) -> None:
    plain = quantise(fused, images)
    bytes_before = plain.SerializeToString(deterministic=True)
    counting = add_counters(plain)
    assert plain.SerializeToString(deterministic=True) == bytes_before
    assert drop_counters(counting).SerializeToString(deterministic=True) == bytes_before
    assert drop_counters(plain).SerializeToString(deterministic=True) == bytes_before
    assert add_counters(plain).SerializeToString(deterministic=True) == counting.SerializeToString(deterministic=True)
    assert (counted_names(plain), len(counted_names(counting))) == ((), 13)


def test_names_are_those_of_modules(fused: onnx.ModelProto, images: NDArray[np.float32]) -> None:
    counting = add_counters(quantise(fused, images), activation_names(fused))
    names = counted_names(counting)
    assert {"stem.conv1", "stem.conv1 output", "stages.0.0.expand", "head"} <= set(names)
    assert len(set(names)) == len(names)


def test_what_cannot_be_counted_is_refused(fused: onnx.ModelProto, images: NDArray[np.float32]) -> None:
    counting = add_counters(quantise(fused, images))
    with pytest.raises(GraphError, match="counters already"):
        add_counters(counting)
    for graph in (fused, quantise(fused, images, "tensorrt")):
        with pytest.raises(GraphError, match=r"no activation is quantised to uint8.*calibrate it for the backend"):
            add_counters(graph)


def test_the_runner_tells_shares_and_runs_as_before(fused: onnx.ModelProto, images: NDArray[np.float32]) -> None:
    plain = quantise(fused, images)
    counting = add_counters(plain, activation_names(fused))
    with (
        OnnxRuntimeRunner(plain.SerializeToString(), threads=1) as bare,
        OnnxRuntimeRunner(counting.SerializeToString(), threads=1) as runner,
    ):
        assert runner.run(images).tobytes() == bare.run(images).tobytes()
        each = [runner.saturation(image[None]) for image in images]
        together = runner.saturation(images)
        assert tuple(together) == runner.counted == counted_names(counting)
        for name in runner.counted:
            assert together[name] == pytest.approx(np.mean([one[name] for one in each]), abs=1e-7)
        assert bare.counted == ()
        with pytest.raises(UsageError, match="counts no saturation: model; build it in int8 with --count"):
            bare.saturation(images)


@pytest.mark.parametrize("text", ["", "{", '["one"]', "[1]", '["a", "a"]', "[" * 100_000])
def test_damaged_names_are_refused(fused: onnx.ModelProto, images: NDArray[np.float32], text: str) -> None:
    counting = add_counters(quantise(fused, images))
    counting.metadata_props[-1].value = text
    with pytest.raises(GraphError, match="saturation counters"):
        OnnxRuntimeRunner(counting.SerializeToString())


def test_drift_is_measured_against_the_baseline() -> None:
    shares, baseline = {"a": 0.02, "b": 0.5, "c": 5e-4}, {"a": 0.001, "b": 0.4, "c": 0.0}
    found = compare(shares, baseline)
    assert [drift.name for drift in found] == ["a", "c", "b"]
    assert [drift.noted for drift in found] == [True, False, False]  # c is five values in ten thousand
    assert found[0].ratio == pytest.approx(20)
    assert Drift("d", 0.01, 0.0).to_dict() == {"name": "d", "share": 0.01, "baseline": 0.0, "ratio": 100.0}


def test_every_nth_picture_is_counted() -> None:
    looked = []

    def count(images: NDArray[np.float32]) -> dict[str, float]:
        looked.append(float(images[0, 0, 0, 0]))
        return {"a": 0.05, "b": 0.0}

    counter = DriftCounter(count, {"a": 0.001, "b": 0.0}, 3)
    assert (counter.drifts, counter.sentence) == ((), "drift: no picture was counted")
    for start in (0, 4):
        counter.look(range(start, start + 4), lambda number: np.full((3, 1, 1), number, np.float32))
    assert looked == [0, 3, 6]
    assert counter.sentence == (
        "drift: values left the range of a 50 times as often as when it was calibrated, 5.00% of them: calibrate again "
        "with pictures from this place"
    )
    assert counter.to_dict()["noted"] == ["a"]


@pytest.mark.parametrize("recorded", [None, {}, {"saturation": 3}, {"saturation": {"a": "x"}},
                                      {"saturation": {"a": 2}}, {"saturation": {"a": float("nan")}}])  # fmt: skip
def test_a_baseline_that_cannot_be_right_is_refused(recorded: dict[str, object] | None) -> None:
    with pytest.raises(UsageError, match="build it again with --counters"):
        read_baseline(recorded, ["a"], "x.lsla")
