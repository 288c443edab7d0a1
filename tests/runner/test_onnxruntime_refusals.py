"""What ONNX Runtime says of models that it cannot run: whole sentences, a remedy, and exit 2 for the file's fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_lsla.errors import CompatibilityError, EdgeLslaError, GraphError
from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner, _reason, _refused

node = helper.make_node


def model(*nodes: onnx.NodeProto, change: Callable[[Any], None] = lambda model: None, **weights: Any) -> bytes:
    """A model from `images` [N, 3, 8, 8] to `logits` [N, 5]."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "g", [images], [logits], tensors)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("edge_lsla", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    change(made)
    return bytes(made.SerializeToString())


def relu(**changes: Any) -> onnx.NodeProto:
    return node("Relu", [changes.get("reads", "images")], ["logits"], name="r")


def opset(made: Any) -> None:
    made.opset_import[0].version = 999


def form(made: Any) -> None:
    made.ir_version = 999


def cut(made: Any) -> None:
    made.graph.initializer[0].raw_data = b"12"


CASES = {
    "no body": (
        model(node("LslaAttention", ["images"], ["logits"], domain="edge_lsla")), GraphError,
        "the graph's LslaAttention has no body for ONNX Runtime: m.onnx: .*; "
        r"give the fused graph with its local functions \(fuse without --for-plugin\)$"),
    "operator": (
        model(node("Frob", ["images"], ["logits"])), GraphError,
        "knows no such operator: m.onnx: .*No Op registered for Frob .*; export with standard ONNX operators$"),
    "domain": (
        model(node("Frob", ["images"], ["logits"], domain="other")), GraphError,
        "knows no such operator: m.onnx: .*'other'; export with"),
    "circle": (
        model(node("Add", ["images", "logits"], ["x"]), relu(reads="x")), GraphError,
        "nodes need each other in a circle: m.onnx: .*; export it again$"),
    "renamed": (model(relu(reads="pictures")), GraphError, "a node reads what nothing makes: .*'pictures'.*; export"),
    "shapes": (
        model(node("MatMul", ["images", "w"], ["logits"], name="mm"), w=np.ones((7, 8), np.float32)), GraphError,
        r"cannot run the model: m.onnx: Node \(mm\).*; export it again$"),
    "damaged": (
        model(node("MatMul", ["images", "w"], ["logits"]), w=np.ones((8, 8), np.float32), change=cut), GraphError,
        "the ONNX file is damaged: m.onnx: .*; export it again$"),
    "opset": (
        model(relu(), change=opset), CompatibilityError, "too old for the model: m.onnx: Opset 999; update it$"),
    "format": (
        model(relu(), change=form), CompatibilityError, "too old for the model: m.onnx: .* version: 999.*; update it$"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_model_that_cannot_be_run_is_a_sentence_with_a_remedy(name: str) -> None:
    data, kind, words = CASES[name]
    with pytest.raises(kind, match=words) as caught:
        OnnxRuntimeRunner(data, where="m.onnx", threads=1)
    assert type(caught.value) is kind
    assert caught.value.exit_code == (2 if kind is GraphError else 4)
    for words in ("\n", "[ONNXRuntimeError]", "onnxruntime_src", "onnxruntime::"):
        assert words not in str(caught.value)


def test_a_long_reason_ends_between_words() -> None:
    said = _reason(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : " + "word " * 200))
    assert said.endswith("word …")
    assert len(said) <= 300
    assert _reason(RuntimeError("")) == "RuntimeError"


def test_what_is_not_the_models_fault_is_exit_1() -> None:
    memory = _refused("m.onnx", RuntimeError("Failed to allocate memory for requested buffer of size 99"))
    assert (type(memory), memory.remedy) == (EdgeLslaError, "close other programs")
    other = _refused("m.onnx", RuntimeError("pthread_create failed"))
    assert (type(other), str(other)) == (
        EdgeLslaError,
        "ONNX Runtime failed: m.onnx: pthread_create failed; run `doctor`, which shows what is installed",
    )
