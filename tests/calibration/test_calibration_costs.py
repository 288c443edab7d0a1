"""Costs of layers: counted by hand for a small graph, and from a profile."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from calibration_graphs import classifier, graph
from onnx import helper

from calibration.costs import BYTE_WEIGHTS, OPERATION_WEIGHTS, estimated_costs, measured_costs
from calibration.points import find_layers
from edge_lsla.errors import GraphError, UsageError


def test_operations_are_counted() -> None:
    costs = estimated_costs(classifier(groups=2), "onnxruntime")
    conv, gemm = costs.layers["conv"], costs.layers["gemm"]
    assert conv.operations == 8 * 6 * 6 * (2 * 3 * 3)  # results, each from two channels of 3 x 3
    assert gemm.operations == 6 * 8
    assert (conv.weight_bytes, gemm.weight_bytes) == (4 * 8 * 2 * 9, 4 * 6 * 8)
    moved = 4 * (4 * 8 * 8 + 8 * 2 * 9 + 8 * 6 * 6)
    assert (
        conv.of["fp32"]
        == conv.operations * OPERATION_WEIGHTS["onnxruntime"]["fp32"] + moved * (BYTE_WEIGHTS["onnxruntime"])
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_every_layer_and_attention_has_a_cost(fused: onnx.ModelProto, backend: str) -> None:
    costs = estimated_costs(fused, backend)
    names = [layer.name for layer in find_layers(fused)]
    assert list(costs.layers)[: len(names)] == names
    assert len(costs.layers) == len(names) + 2
    for cost in costs.layers.values():
        assert all(math.isfinite(value) and value > 0 for value in cost.of.values())
        assert backend == "onnxruntime" or cost.of["int8"] < cost.of["fp16"] < cost.of["fp32"]
    all_int8 = dict.fromkeys(names, "int8")
    assert costs.share_int8(all_int8) == 1
    assert costs.share_int8(dict.fromkeys(names, "fp32")) == 0
    assert costs.total(all_int8) < costs.total(dict.fromkeys(names, "fp32"))
    assert "a byte moved" in costs.source


def test_quantising_a_large_activation_for_little_work_does_not_pay_on_a_cpu() -> None:
    weight = np.ones((8, 1), np.float32)
    model = graph([helper.make_node("MatMul", ["images", "w"], ["logits"], name="thin")], {"w": weight})
    assert estimated_costs(model, "onnxruntime").layers["thin"].saving("fp32") < 0
    assert estimated_costs(model, "tensorrt").layers["thin"].saving("fp16") > 0


def test_measured_latencies_are_taken_as_they_are(fused: onnx.ModelProto) -> None:
    names = [layer.name for layer in find_layers(fused)]
    given = {name: {"int8": 1.0 + i, "fp16": 2.0 + i} for i, name in enumerate(names)}
    costs = measured_costs(fused, given)
    assert costs.unit == "ms"
    assert costs.total({names[0]: "int8", names[1]: "fp16"}) == 4.0
    assert costs.layers[names[2]].saving("fp16") == 1.0
    for broken, why in (
        ({**given, "nowhere": given[names[0]]}, "nowhere"),
        ({name: given[name] for name in names[1:]}, "no latency was measured"),
        ({**given, names[0]: {"int8": 1.0}}, "not positive ms"),
        ({**given, names[0]: {"int8": 1.0, "fp16": math.nan}}, "not positive ms"),
        ({**given, names[0]: {"int8": 1.0, "fp8": 1.0}}, "not positive ms"),
    ):
        with pytest.raises(UsageError, match=why):
            measured_costs(fused, broken)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown backend"):
        estimated_costs(classifier(), "cuda")
    free = graph(
        [helper.make_node("Conv", ["images", "w"], ["logits"])],
        {"w": np.ones((2, 3, 1, 1), np.float32)},
        ("N", 3, "H", "W"),
    )
    with pytest.raises(GraphError, match="sides of the input are not fixed"):
        estimated_costs(free, "onnxruntime")
