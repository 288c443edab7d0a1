"""Bias correction: INT8 layers get the mean that they have in float, in the form that each backend has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from calibration_graphs import activations, classifier, executed, graph, run
from numpy.typing import NDArray
from onnx import helper

from calibration.bias_correction import correct_biases
from calibration.points import find_layers
from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.errors import DatasetError, GraphError, UsageError

Images = NDArray[np.float32]
BACKENDS = ("tensorrt", "onnxruntime")


def noise(*shape: int) -> Images:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def quantise(model: onnx.ModelProto, images: Images, backend: str, keep: tuple[str, ...] = ()) -> onnx.ModelProto:
    ranges = collect_ranges(model, [images], CalibrationSettings())
    return insert_qdq(model, ranges, QdqSettings(backend, keep_float=keep))[0]


def biased(model: onnx.ModelProto) -> list[str]:
    """Each layer's output, behind its bias."""
    found = []
    for layer in find_layers(model):
        readers = [node for node in model.graph.node if layer.output in node.input]
        found.append(readers[0].output[0] if [r.op_type for r in readers] == ["Add"] else layer.output)
    return found


def shifts(model: onnx.ModelProto, other: onnx.ModelProto, images: Images) -> list[float]:
    """Root mean square, over channels, of the difference of each layer's means, relative to the output's deviation."""
    names = biased(model)
    wanted, found = activations(model, names, images), activations(other, names, images)
    result = []
    for name, layer in zip(names, find_layers(model)):
        axis = 1 if layer.op == "Conv" else -1
        a, b = (
            np.moveaxis(v[name], axis, -1).reshape(-1, v[name].shape[axis]).astype(np.float64) for v in (wanted, found)
        )
        result.append(float(np.sqrt(np.square(a.mean(0) - b.mean(0)).mean()) / a.std()))
    return result


@pytest.mark.parametrize("backend", BACKENDS)
def test_means_are_those_of_float(model: onnx.ModelProto, images: Images, backend: str) -> None:
    quantised = quantise(model, images, backend)
    corrected, report = correct_biases(model, quantised, [images])
    before, after = shifts(model, quantised, images), shifts(model, corrected, images)
    assert max(before) > 2e-3
    # Zero but for float32: ONNX Runtime fuses the whole graph differently, and an activation that lies on the border of
    # two integers may then fall to the other side.
    assert max(after) < 2e-4
    assert report.images == len(images)
    assert [entry.layer for entry in report.corrected] == [layer.name for layer in find_layers(model)]
    assert all(entry.shift > 0 and entry.mean > 0 for entry in report.corrected)
    assert min(report.sqnr_before, report.sqnr_after) > 20
    if backend == "tensorrt":  # ONNX Runtime's form has less to correct, and right means need not give right logits
        assert report.sqnr_after > report.sqnr_before  # by about 1 dB; how much depends on the processor's kernels


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_node_is_added_where_there_is_a_bias(fused: onnx.ModelProto, images: Images, backend: str) -> None:
    quantised = quantise(fused, images, backend)
    corrected, _ = correct_biases(fused, quantised, [images])
    operators = [[node.op_type for node in model.graph.node] for model in (quantised, corrected)]
    assert operators[0] == operators[1]
    assert len(corrected.graph.initializer) == len(quantised.graph.initializer)


def test_integer_kernels_still_run(fused: onnx.ModelProto, images: Images, tmp_path: Path) -> None:
    corrected, _ = correct_biases(fused, quantise(fused, images, "onnxruntime"), [images])
    operators = executed(corrected, tmp_path)
    assert (operators["QLinearConv"], operators["QGemm"], operators["MatMulIntegerToFloat"]) == (3, 1, 6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_and_convolution(backend: str, trans_b: int) -> None:
    model = classifier(trans_b)
    images = noise(16, 4, 8, 8)
    quantised = quantise(model, images, backend)
    corrected, _ = correct_biases(model, quantised, [images])
    assert max(shifts(model, corrected, images)) < 1e-3 * max(shifts(model, quantised, images))


@pytest.mark.parametrize("backend", BACKENDS)
def test_layers_without_a_bias_get_one(backend: str) -> None:
    model = graph(
        [
            helper.make_node("Conv", ["images", "k"], ["c"], name="conv"),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("MatMul", ["r", "w"], ["logits"], name="matmul"),
        ],
        {"k": noise(3, 3, 1, 1), "w": noise(8, 8)},
    )
    images = noise(16, 3, 8, 8) + 1
    quantised = quantise(model, images, backend)
    corrected, _ = correct_biases(model, quantised, [images])
    added = len(corrected.graph.node) - len(quantised.graph.node)
    assert added == 2
    assert [output.name for output in corrected.graph.output] == ["logits"]
    assert max(shifts(model, corrected, images)) < 1e-3 * max(shifts(model, quantised, images))


def test_a_bias_that_others_read_too_is_not_changed_for_them() -> None:
    model = graph(
        [
            helper.make_node("MatMul", ["images", "w"], ["a"], name="matmul"),
            helper.make_node("Add", ["a", "b"], ["x"]),
            helper.make_node("Add", ["x", "b"], ["logits"]),
        ],
        {"w": noise(8, 8), "b": noise(8)},
    )
    images = noise(8, 3, 8, 8)
    quantised = quantise(model, images, "tensorrt")
    corrected, _ = correct_biases(model, quantised, [images])
    error = (run(corrected, images) - run(model, images)).mean(axis=(0, 1, 2))
    assert np.abs(error).max() < 1e-6


def test_layers_kept_in_float_are_left_alone(fused: onnx.ModelProto, images: Images) -> None:
    kept = find_layers(fused)[3].name
    _, report = correct_biases(fused, quantise(fused, images, "tensorrt", (kept,)), [images])
    assert kept not in [entry.layer for entry in report.corrected]
    assert len(report.corrected) == len(find_layers(fused)) - 1


def test_only_as_many_images_as_asked_are_read(fused: onnx.ModelProto, images: Images) -> None:
    read = []

    def stream() -> Iterator[Images]:
        for image in images:
            read.append(1)
            yield image[None]

    done: list[tuple[int, int]] = []
    _, report = correct_biases(
        fused, quantise(fused, images, "tensorrt"), stream(), images=5, progress=lambda *at: done.append(at)
    )
    assert (len(read), report.images) == (5, 5)
    assert done == [(index, 10) for index in range(1, 11)]


def test_same_bytes_every_time_and_however_batched(fused: onnx.ModelProto, images: Images) -> None:
    quantised = quantise(fused, images, "tensorrt")
    before = quantised.SerializeToString(deterministic=True)
    batches: list[list[Images]] = [[images], [images], list(np.split(images, 4))]
    results = [correct_biases(fused, quantised, b)[0].SerializeToString(deterministic=True) for b in batches]
    assert results[0] == results[1] == results[2]
    assert quantised.SerializeToString(deterministic=True) == before


def test_a_fixed_batch_is_filled_up(images: Images) -> None:
    free, fixed = classifier(), classifier()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    pictures = noise(6, 4, 8, 8)
    shift = [
        correct_biases(model, quantise(model, pictures, "tensorrt"), [pictures])[1].corrected for model in (free, fixed)
    ]
    for a, b in zip(*shift):
        assert b.shift == pytest.approx(a.shift, rel=1e-4)


def test_wrong_input_is_refused(fused: onnx.ModelProto, images: Images) -> None:
    quantised = quantise(fused, images, "tensorrt")
    with pytest.raises(DatasetError, match="no images"):
        correct_biases(fused, quantised, [])
    broken = images.copy()
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(DatasetError, match="NaN"):
        correct_biases(fused, quantised, [broken])
    with pytest.raises(GraphError, match="no layer"):
        correct_biases(fused, fused, [images])
    with pytest.raises(GraphError, match="belong"):
        correct_biases(fused, quantise(classifier(), noise(2, 4, 8, 8), "tensorrt"), [images])
    for wrong in ({"images": 0}, {"batch_size": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            correct_biases(fused, quantised, [images], **wrong)
