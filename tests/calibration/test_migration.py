"""Scale migration: the same float numbers, more even channels, and a reason wherever it is not exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from calibration_graphs import activations, constant, graph, run
from hard_model import PLACES, make_hard
from numpy.typing import NDArray
from onnx import helper

from calibration.migration import SCALED, Migrated, migrate_scales
from calibration.points import find_layers
from calibration.qdq import insert_qdq
from calibration.ranges import collect
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.errors import GraphError, UsageError
from edge_lsla.surgery.fuse import fuse

Images = NDArray[np.float32]
SAME = 1e-5  # float32 rounding in another order; measured 1e-6
STRENGTHS = (0.0, 0.25, 0.5, 1.0, None)


def peaks_of(model: onnx.ModelProto, images: Images) -> dict[str, NDArray[np.float32]]:
    return collect(model, [images], CalibrationSettings()).peaks


def difference(found: Images, expected: Images) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def int8_error(model: onnx.ModelProto, images: Images, backend: str) -> float:
    ranges = collect(model, [images], CalibrationSettings()).ranges
    return difference(run(insert_qdq(model, ranges, QdqSettings(backend))[0], images), run(model, images))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_float_numbers_stay(model: onnx.ModelProto, images: Images, strength: float | None) -> None:
    before = model.SerializeToString(deterministic=True)
    migrated, report = migrate_scales(model, peaks_of(model, images), strength)
    assert difference(run(migrated, images), run(model, images)) < SAME
    assert len(report.migrated) == 4  # two expansions, the convolution between stages, the head behind its mean pool
    assert all(entry.spread > 1.2 for entry in report.migrated)  # something was moved
    assert model.SerializeToString(deterministic=True) == before
    again = migrate_scales(model, peaks_of(model, images), strength)[0]
    assert again.SerializeToString(deterministic=True) == migrated.SerializeToString(deterministic=True)


def test_channels_become_what_the_formula_says(fused: onnx.ModelProto, images: Images) -> None:
    peaks = peaks_of(fused, images)
    layer = next(layer for layer in find_layers(fused) if layer.op == "Conv" and "permute" in layer.activation)
    migrated, _ = migrate_scales(fused, peaks, 1.0)
    renamed = layer.activation + SCALED  # so that nobody compares it with the tensor that it was made from
    even = np.abs(activations(migrated, [renamed], images)[renamed]).max(axis=(0, 2, 3))
    np.testing.assert_allclose(even, np.full_like(even, even[0]), rtol=1e-4)
    migrated, _ = migrate_scales(fused, peaks, 0.0)
    weight = np.abs(constant(migrated, find_layers(migrated)[find_layers(fused).index(layer)].weight)).max(
        axis=(0, 2, 3)
    )
    np.testing.assert_allclose(weight, np.full_like(weight, weight[0]), rtol=1e-4)


def test_every_layer_is_migrated_or_has_a_reason(fused: onnx.ModelProto, images: Images) -> None:
    _, report = migrate_scales(fused, peaks_of(fused, images))
    reasons = {entry.layer: entry.reason for entry in report.left}
    moved = [name for entry in report.migrated for name in entry.layers]
    assert sorted([*moved, *reasons]) == sorted(layer.name for layer in find_layers(fused))
    texts = list(reasons.values())
    assert sum("key and value" in text for text in texts) == 2  # the query projections
    assert sum("GELU" in text for text in texts) == 3  # the second convolution of the stem and two contractions
    assert sum("graph's own" in text for text in texts) == 1


@pytest.mark.parametrize(("level", "operator"), [("attention", "LslaAttention"), ("residual", "LslaResidualAttention")])
def test_surgery_still_knows_the_graph(plain: onnx.ModelProto, images: Images, level: str, operator: str) -> None:
    migrated, _ = migrate_scales(plain, peaks_of(plain, images))
    again, _ = fuse(migrated, level)
    assert len([node for node in again.graph.node if node.op_type == operator]) == 2
    assert difference(run(again, images), run(plain, images)) < SAME


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize("strength", [0.5, None])
def test_outlier_channels_of_layer_norms_are_undone(
    fused: onnx.ModelProto, images: Images, backend: str, strength: float | None
) -> None:
    hard = make_hard(fused, channels=4, factor=100)
    migrated, report = migrate_scales(hard, peaks_of(hard, images), strength)
    easy = int8_error(fused, images, backend)
    assert int8_error(hard, images, backend) > 10 * easy
    assert int8_error(migrated, images, backend) < 1.3 * easy
    assert all(entry.gain_db > 20 for entry in report.migrated)


@pytest.mark.parametrize(("place", "factor"), [("layernorm", 100), ("attention", 300), ("gelu", 100)])
def test_hard_models_are_hard_in_int8_alone(fused: onnx.ModelProto, images: Images, place: str, factor: float) -> None:
    assert place in PLACES
    hard = make_hard(fused, 4, factor, place)
    assert difference(run(hard, images), run(fused, images)) < SAME
    assert int8_error(hard, images, "tensorrt") > 3 * int8_error(fused, images, "tensorrt")


@pytest.mark.parametrize(("place", "factor"), [("attention", 300), ("gelu", 100)])
def test_outliers_that_cannot_be_moved_stay(fused: onnx.ModelProto, images: Images, place: str, factor: float) -> None:
    hard = make_hard(fused, 4, factor, place)
    migrated, _ = migrate_scales(hard, peaks_of(hard, images))
    assert int8_error(migrated, images, "tensorrt") > 0.7 * int8_error(hard, images, "tensorrt")


def small(*more: onnx.NodeProto, conv: dict[str, int] | None = None, bias: str = "beta") -> onnx.ModelProto:
    """LayerNorm over the last axis [N, 3, 8, 8], transposed, to a 1x1 convolution; and what else is asked for."""
    random = np.random.default_rng(2)
    groups = (conv or {}).get("group", 1)
    return graph(
        [
            helper.make_node("Identity", ["beta"], ["beta_again"]),
            helper.make_node("ReduceMean", ["images", "axes"], ["computed"], keepdims=0),
            helper.make_node("LayerNormalization", ["images", "gamma", bias], ["n"], name="norm"),
            helper.make_node("Transpose", ["n"], ["turned"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["turned", "w", "b"], ["c"], name="conv", **(conv or {})),
            *more,
            helper.make_node("Add" if more else "Identity", ["c", "other"] if more else ["c"], ["logits"]),
        ],
        {
            "gamma": random.uniform(0.1, 4, 8).astype(np.float32),
            "beta": random.standard_normal(8).astype(np.float32),
            "w": random.standard_normal((8, 8 // groups, 1, 1)).astype(np.float32),
            "b": random.standard_normal(8).astype(np.float32),
            "axes": np.array([0, 1, 2]),
        },
    )


def noise(*shape: int) -> Images:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "another reader": (
        lambda: small(
            helper.make_node("Transpose", ["n"], ["again"], perm=[0, 3, 1, 2]),
            helper.make_node("Relu", ["again"], ["other"]),
        ),
        "read by Relu",
    ),
    "groups": (lambda: small(conv={"group": 2}), "groups"),
    "computed bias": (lambda: small(bias="computed"), "computed"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_why(case: str) -> None:
    make, reason = REFUSED[case]
    model = make()
    migrated, report = migrate_scales(model, peaks_of(model, noise(4, 3, 8, 8)))
    assert not report.migrated
    assert [entry.layer for entry in report.left] == ["conv"]
    assert reason in report.left[0].reason
    np.testing.assert_array_equal(run(migrated, noise(4, 3, 8, 8)), run(model, noise(4, 3, 8, 8)))


def test_an_output_of_the_graph_is_not_rescaled() -> None:
    model = small()
    model.graph.output.append(helper.make_tensor_value_info("turned", onnx.TensorProto.FLOAT, None))
    _, report = migrate_scales(model, peaks_of(model, noise(4, 3, 8, 8)))
    assert "output of the graph" in report.left[0].reason


def test_channels_that_are_summed_over_are_refused() -> None:
    model = graph(
        [
            helper.make_node("LayerNormalization", ["images", "gamma"], ["n"], name="norm"),
            helper.make_node("Transpose", ["n"], ["turned"], perm=[0, 1, 3, 2]),
            helper.make_node("MatMul", ["turned", "w"], ["logits"], name="matmul"),
        ],
        {"gamma": np.ones(8, np.float32), "w": noise(8, 8)},
    )
    _, report = migrate_scales(model, peaks_of(model, noise(4, 3, 8, 8)))
    assert "another axis" in report.left[0].reason


def test_readers_share_factors_and_constants_are_not_touched_for_others() -> None:
    model = graph(
        [
            helper.make_node("LayerNormalization", ["images", "gamma"], ["n"], name="norm"),
            helper.make_node("MatMul", ["n", "w"], ["a"], name="first"),
            helper.make_node("MatMul", ["n", "w"], ["b"], name="second"),
            helper.make_node("MatMul", ["images", "w"], ["c"], name="third"),
            helper.make_node("LayerNormalization", ["c", "gamma"], ["d"]),
            helper.make_node("Sum", ["a", "b", "d"], ["logits"]),
        ],
        {"gamma": np.geomspace(0.1, 10, 8).astype(np.float32), "w": noise(8, 8)},
    )
    images = noise(4, 3, 8, 8)
    migrated, report = migrate_scales(model, peaks_of(model, images))
    assert [entry.layers for entry in report.migrated] == [("first", "second")]
    assert difference(run(migrated, images), run(model, images)) < SAME
    assert {"w", "gamma"} <= {tensor.name for tensor in migrated.graph.initializer}


def test_dead_channels_keep_their_scale() -> None:
    model = small()
    for tensor in model.graph.initializer:
        if tensor.name in ("gamma", "beta"):
            value = onnx.numpy_helper.to_array(tensor).copy()
            value[:3] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    images = noise(4, 3, 8, 8)
    for strength in STRENGTHS:
        migrated, report = migrate_scales(model, peaks_of(model, images), strength)
        assert np.isfinite(report.migrated[0].spread)
        assert difference(run(migrated, images), run(model, images)) < SAME


def test_the_best_strength_is_never_expected_to_harm(fused: onnx.ModelProto, images: Images) -> None:
    peaks = peaks_of(fused, images)
    best = {entry.norm: entry for entry in migrate_scales(fused, peaks, None)[1].migrated}
    assert best
    for strength in (0.0, 0.5, 1.0):
        for entry in migrate_scales(fused, peaks, strength)[1].migrated:
            assert isinstance(entry, Migrated)
            assert entry.gain_db <= max(best[entry.norm].gain_db if entry.norm in best else 0, 0) + 1e-9
    assert all(entry.gain_db > 0 for entry in best.values())


def test_wrong_input_is_refused(fused: onnx.ModelProto, images: Images) -> None:
    peaks = peaks_of(fused, images)
    for strength in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="strength"):
            migrate_scales(fused, peaks, strength)
    with pytest.raises(UsageError, match="lacks"):
        migrate_scales(fused, {}, 0.5)
    for value in (np.ones(3), np.full(64, np.nan), -np.ones(32)):
        with pytest.raises(UsageError, match="peaks"):
            migrate_scales(fused, dict.fromkeys(peaks, value), 0.5)
    quantised, _ = insert_qdq(fused, collect(fused, [images], CalibrationSettings()).ranges, QdqSettings("tensorrt"))
    with pytest.raises(GraphError, match="quantised already"):
        migrate_scales(quantised, peaks)
