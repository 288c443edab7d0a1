"""LayerNorm, softmax and attention in INT8, as choices: where their Q/DQ nodes are, and what they do to the numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from calibration_graphs import activations, classifier, constant, run
from numpy.typing import NDArray

from calibration.choices import CHOICES, Choices
from calibration.points import find_attentions, find_layers, find_norms, measured_tensors
from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.ranges_file import Ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.errors import GraphError, RangesError, UsageError

Images = NDArray[np.float32]
BACKENDS = ("tensorrt", "onnxruntime")


@pytest.fixture(scope="module")
def measured(fused: onnx.ModelProto, images: Images) -> Ranges:
    """Ranges of what every choice needs."""
    ranges = collect_ranges(fused, [images], CalibrationSettings())
    values = activations(fused, [norm.x for norm in find_norms(fused)], images)
    more = {name: (float(value.min()), float(value.max())) for name, value in values.items()}
    return dataclasses.replace(ranges, ranges={**more, **ranges.ranges})


def error(found: onnx.ModelProto, model: onnx.ModelProto, images: Images) -> float:
    expected = run(model, images)
    return float(np.linalg.norm(run(found, images) - expected) / np.linalg.norm(expected))


def makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def test_settings_are_checked_and_ordered() -> None:
    assert Choices().quantise == ()
    assert Choices(("softmax", "layernorm")).quantise == ("layernorm", "softmax")
    assert "softmax" in Choices(("softmax",))
    wrong: list[object] = [("bias",), ("softmax", "softmax"), "softmax", 3]
    for value in wrong:
        with pytest.raises(UsageError, match="quantise"):
            Choices(value)  # type: ignore[arg-type]


def test_tensors_to_measure(fused: onnx.ModelProto) -> None:
    layers, attentions, norms = find_layers(fused), find_attentions(fused), find_norms(fused)
    assert len(norms) == 7
    before, after = measured_tensors(layers, attentions), measured_tensors(layers, attentions, norms)
    assert after[: len(before)] == before
    assert set(after) - set(before) == {norm.x for norm in norms} - set(before)
    assert set(after) > set(before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_chosen_changes_nothing(fused: onnx.ModelProto, measured: Ranges, backend: str) -> None:
    a, b = (insert_qdq(fused, measured, QdqSettings(backend), *more)[0] for more in ((), (Choices(),)))
    assert a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_layer_norms_read_integers(fused: onnx.ModelProto, images: Images, measured: Ranges, backend: str) -> None:
    chosen, _ = insert_qdq(fused, measured, QdqSettings(backend), Choices(("layernorm",)))
    made = makers(chosen)
    norms = [node for node in chosen.graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 7
    assert {made[node.input[0]].op_type for node in norms} == {"DequantizeLinear"}
    residual = [node for node in chosen.graph.node if node.op_type == "Add" and node.input[0] in made]
    assert any(made[node.input[0]].op_type == "Add" for node in residual)  # the residual stream itself stays in float
    assert error(chosen, fused, images) < 0.08  # 8 bits more often than by default, 2 % there


def test_layer_norms_need_ranges(fused: onnx.ModelProto, images: Images) -> None:
    ranges = collect_ranges(fused, [images], CalibrationSettings())
    missing = {norm.x for norm in find_norms(fused)} - set(ranges.ranges)
    assert missing
    with pytest.raises(RangesError, match="lack a tensor"):
        insert_qdq(fused, ranges, QdqSettings("tensorrt"), Choices(("layernorm",)))


@pytest.mark.parametrize(("backend", "steps"), [("tensorrt", 127), ("onnxruntime", 255)])
def test_softmax_gives_integers_of_its_natural_range(
    model: onnx.ModelProto, images: Images, backend: str, steps: int
) -> None:
    ranges = collect_ranges(model, [images], CalibrationSettings())
    default, _ = insert_qdq(model, ranges, QdqSettings(backend))
    chosen, _ = insert_qdq(model, ranges, QdqSettings(backend), Choices(("softmax",)))
    assert not chosen.functions
    softmaxes = [node for node in chosen.graph.node if node.op_type == "Softmax"]
    assert len(softmaxes) == 2
    for node in softmaxes:
        (reader,) = [other for other in chosen.graph.node if node.output[0] in other.input]
        assert reader.op_type == "QuantizeLinear"
        assert constant(chosen, reader.input[1]) == np.float32(1 / steps)
        assert constant(chosen, reader.input[2]) == 0
    assert 1e-4 < error(chosen, default, images) < 0.1
    values = activations(chosen, [makers(chosen)[node.output[0]].output[0] for node in softmaxes], images)
    for node in softmaxes:
        assert values[node.output[0]].min() >= 0
        assert values[node.output[0]].max() <= 1


def test_attention_is_what_the_setting_makes_of_it(fused: onnx.ModelProto, measured: Ranges) -> None:
    setting, _ = insert_qdq(fused, measured, QdqSettings("tensorrt", attention="int8"))
    choice, report = insert_qdq(fused, measured, QdqSettings("tensorrt"), Choices(("attention",)))
    assert setting.SerializeToString(deterministic=True) == choice.SerializeToString(deterministic=True)
    assert {attention.name for attention in find_attentions(fused)} <= set(report.quantised)


@pytest.mark.parametrize("choice", [(name,) for name in CHOICES] + [CHOICES])
def test_choices_run_in_onnxruntime_and_cost_accuracy(
    fused: onnx.ModelProto, images: Images, measured: Ranges, choice: tuple[str, ...]
) -> None:
    default, _ = insert_qdq(fused, measured, QdqSettings("onnxruntime"))
    chosen, _ = insert_qdq(fused, measured, QdqSettings("onnxruntime"), Choices(choice))
    assert 1e-4 < error(chosen, default, images) < 0.15
    pairs = [sum(node.op_type == "QuantizeLinear" for node in model.graph.node) for model in (default, chosen)]
    assert pairs[1] > pairs[0]


def test_graphs_without_the_part_are_refused(plain: onnx.ModelProto, images: Images) -> None:
    ranges = collect_ranges(plain, [images], CalibrationSettings())
    with pytest.raises(GraphError, match="fuse the graph first"):
        insert_qdq(plain, ranges, QdqSettings("tensorrt"), Choices(("attention",)))
    model = classifier()
    ranges = collect_ranges(model, [np.ones((2, 4, 8, 8), np.float32)], CalibrationSettings())
    with pytest.raises(GraphError, match="softmax"):
        insert_qdq(model, ranges, QdqSettings("tensorrt"), Choices(("softmax",)))
