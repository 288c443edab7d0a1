from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import classifier, graph
from onnx import helper

from calibration.points import find_attentions, find_layers, measured_tensors, multiplying_layers
from edge_lsla.errors import GraphError


def test_tiny_vit_has_every_linear_layer_and_no_attention(model: onnx.ModelProto) -> None:
    layers = find_layers(model)
    # stem 2, downsampling 1, two blocks of query, expand and contract, head
    assert [layer.op for layer in layers].count("Conv") == 3
    assert len(layers) == 3 + 2 * 3 + 1
    weights = {t.name for t in model.graph.initializer}
    assert all(layer.weight in weights and layer.activation not in weights for layer in layers)
    assert len({layer.name for layer in layers}) == len(layers)


def test_fused_and_plain_measure_the_same_number_of_tensors(plain: onnx.ModelProto, fused: onnx.ModelProto) -> None:
    assert len(measured_tensors(find_layers(plain))) == len(measured_tensors(find_layers(fused)))


def test_attention_is_listed_among_the_multiplying_layers(fused: onnx.ModelProto) -> None:
    quantisable = {layer.name for layer in find_layers(fused)}
    assert len([name for name in multiplying_layers(fused) if name not in quantisable]) == 2


def test_attentions_add_their_query_and_result(plain: onnx.ModelProto, fused: onnx.ModelProto) -> None:
    assert find_attentions(plain) == ()
    attentions = find_attentions(fused)
    assert [attention.name for attention in attentions] == ["lsla_attention_0", "lsla_attention_1"]
    layers = find_layers(fused)
    projections = {layer.activation for layer in layers}
    assert all(attention.x in projections for attention in attentions)  # measured for the query projection already
    added = measured_tensors(layers, attentions)[len(measured_tensors(layers)) :]
    assert added == tuple(tensor for attention in attentions for tensor in (attention.query, attention.y))


def test_channel_axes() -> None:
    assert [layer.axis for layer in find_layers(classifier(trans_b=1))] == [0, 0]
    assert [layer.axis for layer in find_layers(classifier(trans_b=0))] == [0, 1]


def test_constants_behind_nodes_are_seen_and_products_of_activations_are_not() -> None:
    weight = np.ones((8, 8), np.float32)
    value = onnx.numpy_helper.from_array(weight)
    model = graph(
        [
            helper.make_node("Constant", [], ["held"], value=value),
            helper.make_node("Transpose", ["turned"], ["upright"], perm=[1, 0]),
            helper.make_node("Identity", ["upright"], ["same"]),
            helper.make_node("MatMul", ["images", "held"], ["a"]),
            helper.make_node("MatMul", ["a", "same"], ["b"]),
            helper.make_node("MatMul", ["b", "a"], ["c"]),
            helper.make_node("MatMul", ["held", "c"], ["logits"]),
        ],
        {"turned": weight},
    )
    assert [layer.output for layer in find_layers(model)] == ["a", "b"]


def test_weight_that_can_be_replaced_at_run_time_is_no_constant() -> None:
    model = graph([helper.make_node("MatMul", ["images", "w"], ["logits"])], {"w": np.ones((8, 8), np.float32)})
    model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [8, 8]))
    assert find_layers(model) == ()


def test_nodes_with_the_same_name_or_none_are_told_apart() -> None:
    model = graph(
        [
            helper.make_node("MatMul", ["images", "w"], ["a"], name="twin"),
            helper.make_node("MatMul", ["a", "w"], ["b"], name="twin"),
            helper.make_node("MatMul", ["b", "w"], ["logits"]),
        ],
        {"w": np.ones((8, 8), np.float32)},
    )
    assert [layer.name for layer in find_layers(model)] == ["a", "b", "logits"]


def test_float16_weights_are_refused() -> None:
    model = graph([helper.make_node("MatMul", ["images", "w"], ["logits"])], {"w": np.ones((8, 8), np.float16)})
    with pytest.raises(GraphError, match=r"float16.*w"):
        find_layers(model)
