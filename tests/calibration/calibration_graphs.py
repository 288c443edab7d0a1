"""Graphs of a few nodes, and running them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str]


def graph(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    input_shape: Shape = ("N", 3, 8, 8),
    output_rank: int = 4,
    opset: int = 20,
) -> onnx.ModelProto:
    """One input `images`, one output `logits`, checked."""
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [f"side{i}" for i in range(output_rank)])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model


def classifier(trans_b: int = 1, groups: int = 1) -> onnx.ModelProto:
    """Conv (with groups), mean, Gemm: images [N, 4, 8, 8] to logits [N, 6]."""
    random = np.random.default_rng(7)
    head = random.standard_normal((6, 8)).astype(np.float32)
    return graph(
        [
            helper.make_node("Conv", ["images", "w", "b"], ["features"], name="conv", group=groups),
            helper.make_node("Relu", ["features"], ["active"]),
            helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "head", "head_bias"], ["logits"], name="gemm", transB=trans_b),
        ],
        {
            "w": random.standard_normal((8, 4 // groups, 3, 3)).astype(np.float32) / 6,
            "b": random.standard_normal(8).astype(np.float32),
            "head": head if trans_b else head.T.copy(),
            "head_bias": random.standard_normal(6).astype(np.float32),
        },
        ("N", 4, 8, 8),
        output_rank=2,
    )


def run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(None, {"images": images})[0]
    return logits


def activations(
    model: onnx.ModelProto, names: Sequence[str], images: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Values of inner tensors, from a session of their own."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    wanted = [name for name in names if name != "images"]
    wide.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
    session = ort.InferenceSession(wide.SerializeToString(), providers=["CPUExecutionProvider"])
    return {"images": images, **dict(zip(wanted, session.run(wanted, {"images": images})))}


def executed(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Operators that ONNX Runtime really runs, after its own fusions."""
    options = ort.SessionOptions()
    path = folder / "optimised.onnx"
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # it warns that the written file fits this CPU only
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def constant(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))
