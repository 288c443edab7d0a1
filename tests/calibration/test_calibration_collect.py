"""Measuring ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from calibration_graphs import activations, classifier, graph
from numpy.typing import NDArray
from onnx import helper

from calibration.biases import split_biases
from calibration.points import find_attentions, find_layers, measured_tensors
from calibration.ranges import collect, collect_ranges
from calibration.settings import METHODS, CalibrationSettings
from edge_lsla.errors import DatasetError, GraphError, UsageError

Images = NDArray[np.float32]


def true_ranges(model: onnx.ModelProto, images: Images) -> dict[str, tuple[float, float]]:
    layers = find_layers(model)
    split = split_biases(model, {layer.output for layer in layers if layer.op == "Conv"})
    found = activations(split, measured_tensors(layers, find_attentions(model)), images)
    return {name: (float(value.min()), float(value.max())) for name, value in found.items()}


def identity_graph(shape: tuple[int | str, ...] = ("N", 3, 8, 8)) -> onnx.ModelProto:
    return graph([helper.make_node("MatMul", ["images", "w"], ["logits"])], {"w": np.eye(8, dtype=np.float32)}, shape)


def test_minmax_is_the_minimum_and_maximum(model: onnx.ModelProto, images: Images) -> None:
    expected = true_ranges(model, images)
    ranges = collect_ranges(model, [images], CalibrationSettings())
    assert set(ranges.ranges) == set(expected)
    assert ranges.images == 12
    for name, pair in ranges.ranges.items():
        # ONNX Runtime calibrates without the fusions of the session that gave `expected`: float32 rounding only
        np.testing.assert_allclose(pair, expected[name], rtol=1e-4, atol=1e-5)
    assert ranges.ranges["images"] == (float(images.min()), float(images.max()))


def test_fused_and_plain_measure_the_same_values(
    plain: onnx.ModelProto, fused: onnx.ModelProto, images: Images
) -> None:
    a, b = (collect_ranges(m, [images], CalibrationSettings()) for m in (plain, fused))
    assert set(b.ranges) - set(a.ranges) == {t for n in find_attentions(fused) for t in (n.query, n.y)}
    assert [*b.ranges][: len(a.ranges)] == [*a.ranges]
    for name, pair in a.ranges.items():
        np.testing.assert_allclose(pair, b.ranges[name], rtol=1e-4, atol=1e-5)
    assert a.data_sha256 == b.data_sha256
    assert a.model_sha256 != b.model_sha256


@pytest.mark.parametrize("method", METHODS)
def test_batching_changes_nothing(method: str, images: Images) -> None:
    model = classifier()
    data = np.concatenate([images, images[:, :1]], axis=1)[:, :, :8, :8]
    data[0] *= 1e-3  # a first image with tiny values, so that the histograms have to grow
    settings = CalibrationSettings(method=method, batch_size=4, bins=512, group=6)
    whole = collect(model, [data], settings)
    for other in (collect(model, data[:, None], settings), collect(model, [data[:5], data[5:]], settings)):
        assert other.ranges == whole.ranges  # the very same numbers: images are run in the same fours and pairs
        for name, histogram in whole.histograms.items():
            np.testing.assert_array_equal(other.histograms[name].counts, histogram.counts)
    ones = collect_ranges(model, [data], dataclasses.replace(settings, batch_size=1))
    # a convolution of one image may round otherwise than one of four, which can move a value to the next bin
    np.testing.assert_allclose([*ones.ranges.values()], [*whole.ranges.ranges.values()], rtol=5e-3, atol=5e-3)
    assert ones.ranges["images"] == whole.ranges.ranges["images"]


def test_same_images_give_the_same_ranges(fused: onnx.ModelProto, images: Images) -> None:
    settings = CalibrationSettings(method="percentile")
    assert collect_ranges(fused, [images], settings) == collect_ranges(fused, [images], settings)


def test_percentile_of_a_gaussian() -> None:
    data = np.random.default_rng(2).standard_normal((400, 3, 8, 8), dtype=np.float32)
    ranges = collect_ranges(identity_graph(), [data], CalibrationSettings(method="percentile", percentile=99.0))
    low, high = ranges.ranges["images"]
    assert data.min() < low < high < data.max()
    assert ranges.parameters == {"percentile": 99.0, "bins": 4096}
    # half a percent is cut on each side: 2.576 standard deviations, within two bins of 8 / 1024 and sampling noise
    assert low == pytest.approx(-2.576, abs=0.05)
    assert high == pytest.approx(2.576, abs=0.05)


def test_entropy_cuts_rare_outliers_of_a_gaussian() -> None:
    data = np.random.default_rng(2).standard_normal((400, 3, 8, 8), dtype=np.float32)
    data[0, 0, 0, 0] = 40.0
    low, high = collect_ranges(identity_graph(), [data], CalibrationSettings(method="entropy")).ranges["images"]
    assert data.min() <= low < -2.5
    assert 2.5 < high < 12.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 0.3, -2.0, 1e-30])
def test_constant_activations_have_a_range_of_one_point(method: str, value: float) -> None:
    data = np.full((4, 3, 8, 8), value, np.float32)
    low, high = collect_ranges(identity_graph(), [data], CalibrationSettings(method=method, bins=256)).ranges["images"]
    assert low <= high
    assert low == pytest.approx(value, rel=0.02, abs=1e-28)
    assert high == pytest.approx(value, rel=0.02, abs=1e-28)


def test_moving_average_of_groups_in_order() -> None:
    data = np.zeros((5, 3, 8, 8), np.float32)
    data[:, 0, 0, 0] = [1, 3, 10, 2, 5]  # groups of two: 3, 10, 5
    settings = CalibrationSettings(method="moving", group=2, step=0.4, batch_size=4)
    low, high = collect_ranges(identity_graph(), [data], settings).ranges["images"]
    assert low == 0
    # 3; then a plain mean, (3 + 10) / 2 = 6.5; 1/3 is below 0.4, so 6.5 + 0.4 (5 - 6.5)
    assert high == pytest.approx(5.9, abs=1e-9)


def test_peaks_of_channels_and_histograms(fused: onnx.ModelProto, images: Images) -> None:
    measured = collect(fused, [images], CalibrationSettings())
    layers = find_layers(fused)
    assert {layer.op for layer in layers} >= {"Conv", "MatMul"} or {layer.op for layer in layers} >= {"Conv", "Gemm"}
    found = activations(fused, [layer.activation for layer in layers], images)
    for layer in layers:
        values = np.abs(found[layer.activation])
        axis = 1 if layer.op == "Conv" else values.ndim - 1
        expected = values.max(axis=tuple(i for i in range(values.ndim) if i != axis))
        np.testing.assert_allclose(measured.peaks[layer.activation], expected, rtol=1e-4, atol=1e-5)
    assert measured.histograms.keys() == measured.ranges.ranges.keys()
    for name, histogram in measured.histograms.items():
        assert (histogram.minimum, histogram.maximum) == measured.ranges.ranges[name]
        if name in found:
            assert histogram.counts.sum() == found[name].size


def test_histograms_stay_small_when_the_first_image_is_black() -> None:
    data = np.random.default_rng(2).standard_normal((9, 3, 8, 8), dtype=np.float32)
    data[0] = 0
    data[1] *= 1e-20
    ranges = collect_ranges(identity_graph(), data[:, None], CalibrationSettings(method="percentile", percentile=100))
    assert ranges.ranges["images"] == pytest.approx((data.min(), data.max()), abs=0.01)


def test_batches_are_taken_one_at_a_time() -> None:
    done: list[int] = []

    def batches() -> Iterator[Images]:
        for taken in range(5):
            assert len(done) == 2 * taken  # everything given so far has been run before more is asked for
            yield np.ones((4, 3, 8, 8), np.float32)

    collect_ranges(identity_graph(), batches(), CalibrationSettings(batch_size=2), done.append)
    assert done == list(range(2, 21, 2))


def test_graph_with_a_fixed_batch() -> None:
    data = np.random.default_rng(2).standard_normal((7, 3, 8, 8), dtype=np.float32)
    ranges = collect_ranges(identity_graph((4, 3, 8, 8)), [data[:5], data[5:]], CalibrationSettings())
    assert ranges.images == 7
    assert ranges.ranges["images"] == (float(data.min()), float(data.max()))


def test_images_repeated_to_fill_a_fixed_batch_are_not_counted() -> None:
    data = np.random.default_rng(2).standard_normal((5, 3, 8, 8), dtype=np.float32)
    fixed = collect(identity_graph((4, 3, 8, 8)), [data], CalibrationSettings()).histograms["images"]
    free = collect(identity_graph(), [data], CalibrationSettings()).histograms["images"]
    np.testing.assert_array_equal(fixed.counts, free.counts)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_activations_that_are_not_finite_are_named(method: str) -> None:
    model = graph(
        [
            helper.make_node("Log", ["images"], ["depth"]),
            helper.make_node("MatMul", ["depth", "w"], ["logits"]),
        ],
        {"w": np.eye(8, dtype=np.float32)},
    )
    data = np.ones((2, 3, 8, 8), np.float32)
    data[1, 0, 0, 0] = -1  # its logarithm is NaN; the minimum and maximum of the rest are finite
    with pytest.raises(GraphError, match=r"NaN.*depth"):
        collect_ranges(model, [data], CalibrationSettings(method=method))
    data[1, 0, 0, 0] = 0
    with pytest.raises(GraphError, match=r"infinity.*depth"):
        collect_ranges(model, [data], CalibrationSettings(method=method))


def test_weights_that_are_not_finite_are_named() -> None:
    for value, what in ((np.nan, "a weight holds NaN or infinity"), (np.inf, "a weight holds NaN or infinity"),
                        (1e30, r"a weight is as large as 1\.0e\+30, which is damage")):  # fmt: skip
        broken = graph([helper.make_node("MatMul", ["images", "w"], ["logits"])], {"w": np.full((8, 8), value, "f4")})
        with pytest.raises(GraphError, match=f"{what}: w; repair the checkpoint"):
            collect_ranges(broken, [np.ones((1, 3, 8, 8), np.float32)], CalibrationSettings())


def test_logits_that_are_not_finite_are_named() -> None:
    model = graph(
        [helper.make_node("MatMul", ["images", "w"], ["y"]), helper.make_node("Log", ["y"], ["logits"])],
        {"w": np.eye(8, dtype=np.float32)},
    )
    with pytest.raises(GraphError, match="NaN or infinity: logits"):
        collect_ranges(model, [np.zeros((1, 3, 8, 8), np.float32)], CalibrationSettings())


def test_images_that_are_not_finite_are_numbered() -> None:
    data = np.zeros((6, 3, 8, 8), np.float32)
    data[4, 0, 0, 0] = np.nan
    with pytest.raises(DatasetError, match="number 4"):
        collect_ranges(identity_graph(), [data[:3], data[3:]], CalibrationSettings())


@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (3, 8, 8), (2, 4, 8, 8)])
def test_batches_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\[N, 3, 8, 8\]"):
        collect_ranges(identity_graph(), [np.zeros(shape, np.float32)], CalibrationSettings())


def test_float64_is_refused() -> None:
    with pytest.raises(UsageError, match="float64"):
        collect_ranges(identity_graph(), [np.zeros((1, 3, 8, 8))], CalibrationSettings())  # type: ignore[list-item]


def test_no_images() -> None:
    with pytest.raises(DatasetError, match="no calibration images"):
        collect_ranges(identity_graph(), [], CalibrationSettings())


def test_nothing_to_quantise() -> None:
    with pytest.raises(GraphError, match="nothing to calibrate"):
        collect_ranges(graph([helper.make_node("Relu", ["images"], ["logits"])], {}), [], CalibrationSettings())


def test_graph_that_does_not_run_is_refused() -> None:
    unknown = graph([helper.make_node("MatMul", ["images", "w"], ["logits"])], {"w": np.ones((5, 8), np.float32)})
    with pytest.raises(GraphError, match="cannot run"):
        collect_ranges(unknown, [np.ones((1, 3, 8, 8), np.float32)], CalibrationSettings())
    late = graph(
        [
            helper.make_node("Reshape", ["images", "shape"], ["flat"]),  # fits a batch of one only
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        {"shape": np.array([1, 3, 8, 8]), "w": np.ones((8, 8), np.float32)},
    )
    with pytest.raises(GraphError, match="cannot run"):
        collect_ranges(late, [np.ones((2, 3, 8, 8), np.float32)], CalibrationSettings())


def test_standard_output_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    collect_ranges(identity_graph(), [np.ones((1, 3, 8, 8), np.float32)], CalibrationSettings(method="percentile"))
    assert capfd.readouterr() == ("", "")
