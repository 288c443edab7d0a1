"""The ONNX reader without onnx: the same answers as onnx itself, and a sentence for anything else."""

from __future__ import annotations

import onnx
import pytest
from build_parts import custom, graph, small
from onnx import TensorProto, helper

from edge_lsla.build.tensorrt.outline import Node, Tensor, check_border, read_outline
from edge_lsla.errors import GraphError


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_reads_what_onnx_reads(tiny: dict[str, bytes], precision: str) -> None:
    model, outline = onnx.load_from_string(tiny[precision]), read_outline(tiny[precision])
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    assert outline.nodes == tuple(Node(node.domain, node.op_type, node.name) for node in nodes)
    assert outline.functions == {(function.domain, function.name) for function in model.functions}
    assert len(outline.functions) == 1
    assert [tensor.name for tensor in outline.inputs] == ["images"]
    assert outline.inputs[0].element == TensorProto.FLOAT
    assert outline.inputs[0].shape[1:] == (3, 32, 32)
    assert isinstance(outline.inputs[0].shape[0], str)
    assert outline.outputs[0].shape[1:] == (5,)
    check_border(outline, 8, 1)


def test_weights_listed_as_inputs_are_no_inputs() -> None:
    model = onnx.load_from_string(small())
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 5]))
    assert read_outline(model.SerializeToString()).inputs == (Tensor("images", 1, ("N", 3, 8, 8)),)


def test_every_cut_of_a_file_is_refused() -> None:
    data = small()
    for size in range(len(data)):
        with pytest.raises(GraphError):
            check_border(read_outline(data[:size]), 1, 1)


@pytest.mark.parametrize("data", [b"", b"hello world\n" * 30, bytes(1000), b"\x89PNG\r\n\x1a\n" * 40], ids=repr)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(GraphError, match=r"corrupt|not an ONNX model"):
        read_outline(data)


def test_weights_in_other_files_are_refused() -> None:
    model = onnx.load_from_string(small())
    model.graph.initializer[1].data_location = TensorProto.EXTERNAL
    with pytest.raises(GraphError, match=r"weights in other files: w;"):
        read_outline(model.SerializeToString())


@pytest.mark.parametrize(
    ("border", "words"),
    [
        ({"input": "x"}, "input is not 'images': x"),
        ({"output": "y"}, "output is not 'logits': y"),
        ({"element": TensorProto.DOUBLE}, "images is not float32"),
        ({"shape": ["N", 3, 8]}, "images has 3 dimensions"),
        ({"out": ["N", 5, 1]}, "logits has 3 dimensions"),
        ({"shape": ["N", 3, "H", 8]}, "only the batch size may be free"),
        ({"shape": [2, 3, 8, 8]}, "for batches of 2, not 1 to 4"),
    ],
)
def test_another_border_is_refused(border: dict[str, object], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        check_border(read_outline(small(**border)), 4, 1)


def test_a_fixed_batch_is_taken_where_it_is_asked_for() -> None:
    check_border(read_outline(small(shape=[2, 3, 8, 8])), 2, 2)


def test_operators_of_this_project_are_seen() -> None:
    assert read_outline(custom("LslaAttention")).nodes == (Node("edge_lsla", "LslaAttention", "attention_0"),)
    assert read_outline(graph(helper.make_node("Relu", ["images"], ["logits"]))).nodes[0].domain == ""
