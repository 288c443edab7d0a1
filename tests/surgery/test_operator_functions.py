"""The local functions of the two further operators: float64 reference, two evaluators, any heads, window and opset."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import FunctionProto, helper
from onnx.reference import ReferenceEvaluator

from edge_lsla.operator import (
    DOMAIN,
    QUANTISED_ATTRIBUTES,
    QUANTISED_INPUTS,
    QUANTISED_NAME,
    RESIDUAL_ATTRIBUTES,
    RESIDUAL_INPUTS,
    RESIDUAL_NAME,
    quantised_reference,
    residual_reference,
)
from edge_lsla.surgery.function import drop_function, node_attributes, quantised_function, residual_function

EPSILON = 1e-3  # larger than usual, so that another one shows
OPERATORS = {
    RESIDUAL_NAME: (RESIDUAL_INPUTS, residual_function, EPSILON),
    QUANTISED_NAME: (QUANTISED_INPUTS, quantised_function, None),
}
CASES = [(2, 8, 12, 2, 16, 4), (1, 7, 14, 3, 32, 7), (3, 4, 2, 1, 8, 2), (1, 14, 14, 2, 32, 14), (1, 3, 2, 2, 4, 1)]


def model_of(name: str, values: dict[str, np.ndarray], heads: int, window: int, opset: int = 20) -> onnx.ModelProto:
    """A graph of one node whose inputs have no fixed size."""
    inputs, function, epsilon = OPERATORS[name]
    assert tuple(values) == inputs
    kinds = {key: helper.np_dtype_to_tensor_dtype(value.dtype) for key, value in values.items()}
    body: FunctionProto = function(opset)
    graph = helper.make_graph(
        [helper.make_node(name, inputs, ["y"], domain=DOMAIN, **node_attributes(heads, window, epsilon))],
        "one",
        [helper.make_tensor_value_info(k, kinds[k], [f"{k}{i}" for i in range(v.ndim)]) for k, v in values.items()],
        [helper.make_tensor_value_info("y", kinds["x"], ["b", "h", "w", "c"])],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[body], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def evaluate(evaluator: str, model: onnx.ModelProto, values: dict[str, np.ndarray]) -> np.ndarray:
    if evaluator == "onnx":
        return ReferenceEvaluator(model).run(None, values)[0]
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, values)[0]


def draw(heads: int, d: int, window: int, dtype: type) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(6)
    rows = (2 * window - 1) ** 2
    sizes = {
        "scale_weight": (heads, d),
        "scale_bias": (heads,),
        "inner_bias": (rows, heads),
        "outer_bias": (rows, heads),
    }
    return {name: (0.3 * generator.standard_normal(size)).astype(dtype) for name, size in sizes.items()}


def residual_operands(batch, height, width, heads, d, window, dtype) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    c = heads * d
    x = generator.standard_normal((batch, height, width, c)) * 10.0 ** generator.uniform(
        -2, 0, (batch, height, width, 1)
    )
    values = {
        "x": x + 0.5,  # a mean for LayerNorm to take away
        "norm_weight": 1 + 0.3 * generator.standard_normal(c),
        "norm_bias": 0.3 * generator.standard_normal(c),
        "query_weight": generator.standard_normal((c, c)) / c**0.5,  # not symmetric: [in, out]
        "query_bias": 0.5 * generator.standard_normal(c),
    }
    return {name: value.astype(dtype) for name, value in values.items()} | draw(heads, d, window, dtype)


def quantised_operands(batch, height, width, heads, d, window) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    shape = (batch, height, width, heads * d)
    x, query = (np.clip(np.rint(40 * generator.standard_normal(shape)), -128, 127).astype(np.int8) for _ in range(2))
    scales = {"x_scale": 0.025, "query_scale": 0.031, "y_scale": 0.04}  # y_scale so small that some values saturate
    return (
        {"x": x, "query": query}
        | draw(heads, d, window, np.float32)
        | {name: np.array(value, np.float32) for name, value in scales.items()}
    )


@pytest.mark.parametrize("evaluator", ["onnxruntime", "onnx"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float32, 2e-6), (np.float16, 1e-3)],  # fp16: rounding of the result alone, everything inside is float32
    ids=["fp32", "fp16"],
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_residual_body_equals_the_reference(evaluator, dtype, tolerance, case):
    values = residual_operands(*case, dtype)
    y = evaluate(evaluator, model_of(RESIDUAL_NAME, values, case[3], case[5]), values)
    expected = residual_reference(**values, num_heads=case[3], window=case[5], epsilon=EPSILON)
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    assert np.linalg.norm(y - expected) <= tolerance * np.linalg.norm(expected)
    other = residual_reference(**values, num_heads=case[3], window=case[5], epsilon=EPSILON / 2)
    assert np.linalg.norm(other - expected) > 2 * tolerance * np.linalg.norm(expected)  # the tolerance sees epsilon


@pytest.mark.parametrize("evaluator", ["onnxruntime", "onnx"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_quantised_body_equals_the_reference(evaluator, case):
    values = quantised_operands(*case)
    y = evaluate(evaluator, model_of(QUANTISED_NAME, values, case[3], case[5]), values)
    real, expected = quantised_reference(**values, num_heads=case[3], window=case[5])
    assert (y.dtype, y.shape) == (np.int8, expected.shape)
    steps = np.clip(real / float(values["y_scale"]), -128, 127)
    assert np.abs(y - steps).max() <= 0.5 + 1e-3  # float32 may round a tie the other way, and nothing else
    assert (y != expected).mean() <= 1e-3


@pytest.mark.parametrize("evaluator", ["onnxruntime", "onnx"])
def test_int8_saturates_at_both_ends(evaluator):
    values = quantised_operands(1, 4, 4, 2, 16, 4)
    values["y_scale"] = np.array(1e-3, np.float32)
    y = evaluate(evaluator, model_of(QUANTISED_NAME, values, 2, 4), values)
    assert (y.min(), y.max()) == (-128, 127)


@pytest.mark.parametrize("opset", [15, 16, 17, 18, 21, 23])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_bodies_work_in_other_opsets(name, opset):
    case = (2, 4, 6, 2, 16, 2)
    values = residual_operands(*case, np.float32) if name == RESIDUAL_NAME else quantised_operands(*case)
    y = evaluate("onnxruntime", model_of(name, values, 2, 2, opset), values)
    if name == RESIDUAL_NAME:
        expected = residual_reference(**values, num_heads=2, window=2, epsilon=EPSILON)
        assert np.linalg.norm(y - expected) <= 2e-6 * np.linalg.norm(expected)
    else:
        assert (y != quantised_reference(**values, num_heads=2, window=2)[1]).mean() <= 1e-3


def test_layer_norm_statistics_are_float32():
    """A token whose squares overflow float16, far from zero: statistics in float16 give infinity or noise."""
    values = residual_operands(1, 4, 4, 1, 16, 4, np.float16)
    values["x"] = values["x"] * np.float16(300) + np.float16(2000)
    expected = residual_reference(**values, num_heads=1, window=4, epsilon=EPSILON)
    y = evaluate("onnx", model_of(RESIDUAL_NAME, values, 1, 4), values)
    attention = expected - values["x"]
    assert np.linalg.norm(y - values["x"].astype(float) - attention) <= 2**-11 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("name", "attributes"), [(RESIDUAL_NAME, RESIDUAL_ATTRIBUTES), (QUANTISED_NAME, QUANTISED_ATTRIBUTES)]
)
def test_the_nodes_have_what_the_plugin_creator_asks_for(name, attributes):
    function = OPERATORS[name][1](20)
    assert tuple(function.attribute) == attributes
    assert tuple(function.input) == OPERATORS[name][0]
    assert set(node_attributes(2, 4, OPERATORS[name][2])) == set(attributes)


def test_drop_function_drops_the_whole_domain():
    model = model_of(RESIDUAL_NAME, residual_operands(1, 2, 2, 1, 8, 2, np.float32), 1, 2)
    model.functions.append(quantised_function(20))
    assert not drop_function(model).functions
    assert len(model.functions) == 2
