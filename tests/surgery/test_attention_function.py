"""The local function is the operator: float32 and float16, any heads, window and map, two evaluators."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edge_lsla.operator import ATTRIBUTES, DOMAIN, INPUTS, reference
from edge_lsla.surgery.function import attention_function, attention_node, drop_function

SHAPES = [["b", "h", "w", "c"], ["b", "h", "w", "c"], ["k", "d"], ["k"], ["r", "k"], ["r", "k"]]


def model_of(heads: int, window: int, dtype: type, opset: int = 20) -> onnx.ModelProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [helper.make_tensor_value_info(name, element, shape) for name, shape in zip(INPUTS, SHAPES)]
    output = helper.make_tensor_value_info("y", element, SHAPES[0])
    node = attention_node(list(INPUTS), "y", "attention", num_heads=heads, window=window)
    return helper.make_model(
        helper.make_graph([node], "one", inputs, [output]),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)],
        functions=[attention_function(opset)],
        ir_version=10,
    )


def operands(batch: int, height: int, width: int, heads: int, d: int, window: int, dtype: type) -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    rows = (2 * window - 1) ** 2
    shape = (batch, height, width, heads * d)
    sizes = [(shape, 1.0), (shape, 1.0), ((heads, d), 0.2), ((heads,), 0.5), ((rows, heads), 0.5), ((rows, heads), 0.2)]
    return [(generator.standard_normal(size) * std).astype(dtype) for size, std in sizes]


@pytest.mark.parametrize("evaluator", ["onnxruntime", "onnx"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float32, 1e-6), (np.float16, 1e-3)],  # rounding of the result alone: 6e-8 and 5e-4 at most
    ids=["fp32", "fp16"],
)
@pytest.mark.parametrize(
    ("batch", "height", "width", "heads", "d", "window"),
    [(2, 8, 12, 2, 16, 4), (1, 7, 14, 3, 32, 7), (3, 4, 2, 1, 8, 2), (1, 14, 14, 2, 32, 14), (1, 3, 2, 2, 4, 1)],
)
def test_the_body_equals_the_reference(evaluator, dtype, tolerance, batch, height, width, heads, d, window):
    model = model_of(heads, window, dtype)
    onnx.checker.check_model(model, full_check=True)
    values = operands(batch, height, width, heads, d, window, dtype)
    feed = dict(zip(INPUTS, values))
    if evaluator == "onnx":
        (y,) = ReferenceEvaluator(model).run(None, feed)
    else:
        (y,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)
    expected = reference(*values, num_heads=heads, window=window)
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    assert np.linalg.norm(y - expected) <= tolerance * np.linalg.norm(expected)


def test_half_precision_scores_do_not_overflow():
    """Scores beyond 65504 are finite, because they are float32 inside; the reference evaluator would show inf."""
    values = operands(1, 4, 4, 1, 16, 4, np.float16)
    values[0], values[1] = values[0] * np.float16(60), values[1] * np.float16(60)
    expected = reference(*values, num_heads=1, window=4)
    (y,) = ReferenceEvaluator(model_of(1, 4, np.float16)).run(None, dict(zip(INPUTS, values)))
    assert np.isfinite(y).all()
    assert np.linalg.norm(y - expected) <= 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("opset", [15, 17, 18, 21, 23])
def test_the_body_is_valid_in_other_opsets(opset):
    onnx.checker.check_model(model_of(2, 4, np.float32, opset), full_check=True)


def test_the_node_has_what_the_plugin_creator_asks_for():
    node = model_of(2, 4, np.float32).graph.node[0]
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert set(values) == set(ATTRIBUTES)
    assert values == {"num_heads": 2, "window": 4, "plugin_version": b"1", "plugin_namespace": b""}


def test_drop_function_removes_only_ours_and_leaves_the_model_alone():
    model = model_of(2, 4, np.float32)
    other = helper.make_function(
        "elsewhere",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 20)],
    )
    model.functions.append(other)
    dropped = drop_function(model)
    assert [function.domain for function in dropped.functions] == ["elsewhere"]
    assert len(model.functions) == 2
    assert dropped.graph == model.graph
