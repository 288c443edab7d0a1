"""Nodes read without onnx: the same answers as onnx itself; and names for bodies, with nothing else changed."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from build_parts import small

from edge_lsla.build.tensorrt.nodes import TensorNode, name_bodies, read_functions, read_nodes
from edge_lsla.errors import GraphError

PRECISIONS = ("fp32", "fp16", "int8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_reads_what_onnx_reads(tiny: dict[str, bytes], precision: str) -> None:
    model = onnx.load_from_string(tiny[precision])
    assert read_nodes(tiny[precision]) == tuple(
        TensorNode(node.name, node.domain, node.op_type, tuple(node.input), tuple(node.output))
        for node in model.graph.node
    )
    assert read_functions(tiny[precision]) == {(one.domain, one.name): len(one.node) for one in model.functions}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_names_of_bodies_change(tiny: dict[str, bytes], precision: str) -> None:
    model = onnx.load_from_string(tiny[precision])
    named = onnx.load_from_string(name_bodies(name_bodies(tiny[precision])))
    (body,), (before,) = named.functions, model.functions
    assert [node.name for node in body.node] == [f"body_{index}" for index in range(len(before.node))]
    for node in (*body.node, *before.node):
        node.ClearField("name")  # absent in one, and set again in the other
    assert named == model
    onnxruntime.InferenceSession(name_bodies(tiny[precision]), providers=["CPUExecutionProvider"])


def test_a_model_without_functions_stays_as_it_is() -> None:
    model = onnx.load_from_string(small())
    model.model_version = -1  # ten bytes long
    assert onnx.load_from_string(name_bodies(model.SerializeToString())) == model
    assert read_functions(small()) == {}


def test_other_files_are_refused() -> None:
    for read in (read_nodes, read_functions, name_bodies):
        with pytest.raises(GraphError, match="corrupt or cut short"):
            read(b"hello world\n" * 30)
    with pytest.raises(GraphError, match="holds no graph"):
        read_nodes(b"")
