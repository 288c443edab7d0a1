"""Q/DQ nodes: where, with which numbers, and what ONNX Runtime makes of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from calibration_graphs import classifier, constant, executed, graph, run
from numpy.typing import NDArray
from onnx import helper

from calibration.points import find_layers
from calibration.qdq import insert_qdq
from calibration.quantise import asymmetric_uint8, quantise_weight, symmetric_int8
from calibration.ranges import collect_ranges
from calibration.ranges_file import Ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.errors import GraphError, RangesError, UsageError

Images = NDArray[np.float32]
BACKENDS = ("tensorrt", "onnxruntime")


def data(*shape: int) -> Images:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def ranges_of(model: onnx.ModelProto, images: Images) -> Ranges:
    return collect_ranges(model, [images], CalibrationSettings())


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize(("shape", "axis"), [((16, 8, 3, 3), 0), ((24, 10), 1), ((10, 24), 0)])
def test_weight_error_is_at_most_half_a_step(shape: tuple[int, ...], axis: int, bits: int) -> None:
    weight = data(*shape)
    weight[tuple(0 if i == axis else slice(None) for i in range(len(shape)))] = 0  # a dead channel
    integers, scales = quantise_weight(weight, axis, bits)
    per_channel = np.moveaxis(weight, axis, -1)
    back = np.moveaxis(integers, axis, -1) * scales.astype(np.float64)
    assert (np.abs(per_channel - back) <= scales / 2 * (1 + 1e-6)).all()  # the scale itself is rounded to float32
    assert np.abs(integers.astype(int)).max() == 2 ** (bits - 1) - 1
    assert scales[0] == 1
    assert len(scales) == shape[axis]


@pytest.mark.parametrize(
    "pair", [(0.0, 0.0), (-1.5, 3.0), (0.2, 0.3), (-4.0, -1.0), (0.0, 1e-30), (-3e38, 3e38), (-0.17, 5.0)]
)
def test_activation_scales_hold_the_range_and_zero_exactly(pair: tuple[float, float]) -> None:
    for scale, zero_point, least, most in (
        (*symmetric_int8(*pair), -127, 127),
        (*asymmetric_uint8(*pair), 0, 255),
    ):
        assert np.isfinite(scale)
        assert scale > 0
        low, high = ((level - int(zero_point)) * float(scale) for level in (least, most))
        reach = float(scale) * (0.5 + 1e-4)  # the zero point is rounded to a whole step, the scale to float32
        assert low <= min(pair[0], 0) + reach
        assert high >= max(pair[1], 0) - reach
    assert symmetric_int8(*pair)[1] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_stay_close(model: onnx.ModelProto, images: Images, backend: str) -> None:
    quantised, report = insert_qdq(model, ranges_of(model, images), QdqSettings(backend))
    fresh = data(8, 3, 32, 32)
    expected, found = run(model, fresh), run(quantised, fresh)
    # 8 bits after ten quantised layers: about 2 % measured; a wrong axis, scale or zero point gives 30 % and more
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.06
    assert len(report.quantised) == 10
    assert sorted(report.precision.values()).count("int8") == 10
    assert [o.name for o in quantised.graph.output] == ["logits"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nodes_are_where_they_belong(fused: onnx.ModelProto, images: Images, backend: str) -> None:
    quantised, _ = insert_qdq(fused, ranges_of(fused, images), QdqSettings(backend))
    produced = {output: node for node in quantised.graph.node for output in node.output}
    zero_points = {np.uint8, np.int8}
    for node in quantised.graph.node:
        sources = [produced[name].op_type if name in produced else None for name in node.input]
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            assert sources[:2] == ["DequantizeLinear", "DequantizeLinear"]
            assert sources[2:] in ([], [None])
        elif node.op_type == "LslaAttention":
            assert "DequantizeLinear" not in sources
        if node.op_type == "QuantizeLinear":
            assert constant(quantised, node.input[1]).dtype == np.float32
            zero_point = constant(quantised, node.input[2])
            assert zero_point.dtype.type in zero_points
            assert backend == "onnxruntime" or (zero_point.dtype == np.int8 and zero_point == 0)
            assert backend == "tensorrt" or zero_point.dtype == np.uint8
        if node.op_type == "DequantizeLinear" and node.input[0] not in produced:
            integers = constant(quantised, node.input[0])
            axis = next(a.i for a in node.attribute if a.name == "axis")
            assert integers.dtype == np.int8
            assert integers.ndim >= 2  # never a bias
            assert constant(quantised, node.input[1]).shape == (integers.shape[axis],)
            assert not constant(quantised, node.input[2]).any()


def test_integer_kernels_run(fused: onnx.ModelProto, images: Images, tmp_path: Path) -> None:
    quantised, report = insert_qdq(fused, ranges_of(fused, images), QdqSettings("onnxruntime"))
    operators = executed(quantised, tmp_path)
    integer = operators["QLinearConv"] + operators["MatMulIntegerToFloat"] + operators["QGemm"]
    assert operators["QLinearConv"] == 3
    assert operators["QGemm"] == 1
    assert integer == len(report.quantised)
    assert operators["Conv"] == operators["FusedConv"] == operators["Gemm"] == 0


def test_tensorrt_flavour_also_runs_integer_products_in_onnxruntime(
    fused: onnx.ModelProto, images: Images, tmp_path: Path
) -> None:
    quantised, _ = insert_qdq(fused, ranges_of(fused, images), QdqSettings("tensorrt"))
    assert executed(quantised, tmp_path)["MatMulIntegerToFloat"] == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_shrink_to_a_quarter(fused: onnx.ModelProto, images: Images, backend: str, tmp_path: Path) -> None:
    quantised, report = insert_qdq(fused, ranges_of(fused, images), QdqSettings(backend))
    names = {tensor.name for tensor in quantised.graph.initializer}
    assert not names & {layer.weight for layer in find_layers(fused)}  # no float copy is left
    # 1 byte for 4, and 5 for each output channel, which weighs more in a model as narrow as this one
    assert report.weight_bytes_before / 4 < report.weight_bytes_after < report.weight_bytes_before * 0.3
    onnx.save(fused, tmp_path / "before.onnx")
    onnx.save(quantised, tmp_path / "after.onnx")
    saved = (tmp_path / "before.onnx").stat().st_size - (tmp_path / "after.onnx").stat().st_size
    nodes = 400 * 60  # the names and shapes of the new nodes
    assert saved > report.weight_bytes_before - report.weight_bytes_after - nodes


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_input_same_bytes(fused: onnx.ModelProto, images: Images, backend: str) -> None:
    ranges = ranges_of(fused, images)
    before = fused.SerializeToString(deterministic=True)
    a, b = (insert_qdq(fused, ranges, QdqSettings(backend))[0] for _ in range(2))
    assert a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)
    assert fused.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gemm_layouts_and_grouped_convolutions(backend: str, trans_b: int, groups: int, tmp_path: Path) -> None:
    model = classifier(trans_b, groups)
    images = data(16, 4, 8, 8)
    quantised, report = insert_qdq(model, ranges_of(model, images), QdqSettings(backend))
    assert report.quantised == ("conv", "gemm")
    expected, found = run(model, images), run(quantised, images)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()  # two layers of 8 bits: 1 % measured
    if backend == "onnxruntime":
        operators = executed(quantised, tmp_path)
        assert (operators["QLinearConv"], operators["QGemm"]) == (1, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dead_tensors_and_channels_give_no_nan(backend: str) -> None:
    weight = data(8, 8)
    weight[:, 2] = 0
    model = graph(
        [helper.make_node("Relu", ["images"], ["dead"]), helper.make_node("MatMul", ["dead", "w"], ["logits"])],
        {"w": weight},
    )
    images = -np.ones((2, 3, 8, 8), np.float32)
    quantised, _ = insert_qdq(model, ranges_of(model, images), QdqSettings(backend))
    assert (run(quantised, images) == 0).all()
    assert np.isfinite(run(quantised, data(2, 3, 8, 8))).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_tensors_are_quantised_once(backend: str) -> None:
    model = graph(
        [
            helper.make_node("MatMul", ["images", "w"], ["a"]),
            helper.make_node("MatMul", ["images", "w"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Add", ["sum", "images"], ["both"]),
            helper.make_node("Conv", ["both", "k"], ["c"]),  # without a bias, read twice, once quantised
            helper.make_node("Conv", ["c", "k"], ["d"]),
            helper.make_node("Add", ["c", "d"], ["logits"]),
        ],
        {"w": data(8, 8) / 3, "k": data(3, 3, 1, 1)},
    )
    images = data(4, 3, 8, 8)
    quantised, _ = insert_qdq(model, ranges_of(model, images), QdqSettings(backend))
    pairs = [n.input[0] for n in quantised.graph.node if n.op_type == "QuantizeLinear"]
    assert len(pairs) == len(set(pairs)) == {"tensorrt": 3, "onnxruntime": 4}[backend]
    integers = [t.name for t in quantised.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    assert len(integers) == 2
    expected = run(model, images)
    assert np.linalg.norm(run(quantised, images) - expected) < 0.05 * np.linalg.norm(expected)


def test_seven_bits_leave_room_for_sixteen_bit_sums(images: Images, fused: onnx.ModelProto) -> None:
    quantised, _ = insert_qdq(fused, ranges_of(fused, images), QdqSettings("onnxruntime", weight_bits=7))
    for layer in find_layers(fused):
        assert np.abs(constant(quantised, f"{layer.weight}_int8").astype(int)).max() <= 63
    assert np.iinfo(np.int16).max >= 2 * 255 * 63  # what vpmaddubsw adds up


def test_layers_can_be_kept_in_float(fused: onnx.ModelProto, images: Images) -> None:
    ranges = ranges_of(fused, images)
    name = find_layers(fused)[-1].name
    quantised, report = insert_qdq(fused, ranges, QdqSettings("onnxruntime", keep_float=(name,)))
    assert report.precision[name] == "fp32"
    assert name not in report.quantised
    assert find_layers(fused)[-1].weight in {t.name for t in quantised.graph.initializer}
    with pytest.raises(UsageError, match="nowhere"):
        insert_qdq(fused, ranges, QdqSettings("onnxruntime", keep_float=("nowhere",)))


def test_computed_bias_keeps_the_layer_in_float_where_it_would_run_slowly() -> None:
    model = graph(
        [
            helper.make_node("ReduceMean", ["images", "axes"], ["bias"], keepdims=0),
            helper.make_node("Conv", ["images", "w", "bias"], ["logits"], name="conv"),
        ],
        {"w": data(3, 3, 1, 1), "axes": np.array([0, 2, 3])},
    )
    ranges = ranges_of(model, data(2, 3, 8, 8))
    assert insert_qdq(model, ranges, QdqSettings("onnxruntime"))[1].precision == {"conv": "fp32"}
    assert insert_qdq(model, ranges, QdqSettings("tensorrt"))[1].precision == {"conv": "int8"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_quantised_graph_is_refused(backend: str) -> None:
    model = classifier()
    ranges = ranges_of(model, data(2, 4, 8, 8))
    quantised, _ = insert_qdq(model, ranges, QdqSettings(backend))
    with pytest.raises(GraphError, match="quantised already"):
        insert_qdq(quantised, ranges, QdqSettings(backend))
    with pytest.raises(GraphError, match="quantised already"):
        ranges_of(quantised, data(2, 4, 8, 8))


def test_ranges_that_do_not_fit_are_refused() -> None:
    model = classifier()
    ranges = ranges_of(model, data(2, 4, 8, 8))
    with pytest.raises(RangesError, match="another model"):
        insert_qdq(classifier(groups=2), ranges, QdqSettings("tensorrt"))
    partial = dataclasses.replace(ranges, ranges={"images": ranges.ranges["images"]})
    with pytest.raises(RangesError, match="flat"):
        insert_qdq(model, partial, QdqSettings("tensorrt"))


def test_old_opsets_and_broken_weights_are_refused() -> None:
    nodes = [helper.make_node("MatMul", ["images", "w"], ["logits"])]
    old = graph(nodes, {"w": data(8, 8)}, opset=12)
    with pytest.raises(GraphError, match="opset 13"):
        insert_qdq(old, ranges_of(old, data(2, 3, 8, 8)), QdqSettings("tensorrt"))
    weight = data(8, 8)
    weight[1, 1] = np.inf
    broken = graph(nodes, {"w": weight})
    with pytest.raises(GraphError, match="w"):
        insert_qdq(broken, ranges_of(broken, data(2, 3, 8, 8)), QdqSettings("tensorrt"))
