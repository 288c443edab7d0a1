"""The ONNX reader without onnx: the same answers as onnx itself, and a sentence for anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
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
        ({"shape": ["N", 1, 8, 8]}, "images is not 3 colours of at most 4096 pixels a side"),
        ({"shape": ["N", 3, 60_000, 60_000]}, "images is not 3 colours of at most 4096 pixels a side"),
        ({"shape": ["N", 3, 2**31, 8]}, r"the ONNX file is damaged: images \['N', 3, 2147483648, 8\]"),
        ({"shape": ["N", 3, -1, 8]}, "the ONNX file is damaged"),
        ({"out": ["N", 2**40]}, "the ONNX file is damaged: logits"),
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


def test_the_passport_decides_the_sizes() -> None:
    outline = read_outline(small())
    check_border(outline, 4, 1, image_size=8, classes=5)
    with pytest.raises(GraphError, match=r"not those of the passport, 96 pixels a side: images \['N', 3, 8, 8\]"):
        check_border(outline, 4, 1, image_size=96, classes=5)
    with pytest.raises(GraphError, match="the graph has 5 classes and the passport 102"):
        check_border(outline, 4, 1, image_size=8, classes=102)
    check_border(read_outline(small(out=["N", "classes"])), 4, 1, image_size=8, classes=102)  # it does not say


Change = Callable[[Any], None]


def _dims(value: int) -> Change:
    def change(model: Any) -> None:
        model.graph.initializer[1].dims[0] = value

    return change


def _set(**values: Any) -> Change:
    def change(model: Any) -> None:
        for name, value in values.items():
            setattr(model.graph.initializer[1], name, value)

    return change


def _typed(model: Any) -> None:
    model.graph.initializer[1].ClearField("raw_data")
    model.graph.initializer[1].float_data.extend([1.0] * 14)


def _constant(model: Any) -> None:
    tensor = onnx.numpy_helper.from_array(np.ones(3, np.float32), "c")
    tensor.dims[0] = 2**31 - 1
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def _opset(model: Any) -> None:
    model.opset_import[1].version = 999


def _format(model: Any) -> None:
    model.ir_version = 2**40


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_dims(2**31 - 1), r"damaged: the tensor w, \[2147483647, 5\] of type 1, needs 42949672940 bytes and has 60;"),
        (_dims(4), "needs 80 bytes and has 60"),
        (_dims(-1), "damaged: the tensor w"),
        (_dims(0), "needs 0 bytes and has 60"),
        (_set(raw_data=b""), "needs 60 bytes and has 0"),
        (_set(data_type=0), "damaged: the tensor w, .* of type 0;"),
        (_set(data_type=TensorProto.INT4), "needs 8 bytes and has 60"),
        (_typed, "needs 15 values and has 14"),
        (_constant, r"damaged: the tensor c, \[2147483647\]"),
        (_opset, "damaged, or needs a newer edge-lsla: operators of ONNX, version 999;"),
        (_format, "damaged, or needs a newer edge-lsla: format, version 1099511627776;"),
    ],
)
def test_a_file_that_lies_is_refused(change: Change, words: str) -> None:
    model = onnx.load_from_string(small())
    change(model)
    with pytest.raises(GraphError, match=words) as caught:
        read_outline(model.SerializeToString())
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("element", "values"),
    [
        (TensorProto.FLOAT, [1.0, -2.0, 3.0]), (TensorProto.DOUBLE, [1.0, -2.0, 3.0]),
        (TensorProto.INT8, [1, -2, 3]), (TensorProto.UINT8, [1, 200, 3]), (TensorProto.BOOL, [True, False, True]),
        (TensorProto.INT32, [-1, 2**31 - 1, 300]), (TensorProto.INT64, [-1, 2**40, 3]),
        (TensorProto.UINT64, [1, 2**63, 3]), (TensorProto.FLOAT16, [1.0, -2.0, 3.0]),
        (TensorProto.BFLOAT16, [1.0, -2.0, 3.0]), (TensorProto.INT4, [1, -2, 3]),
        (TensorProto.STRING, [b"a", b"b", b"c"]), (TensorProto.COMPLEX64, [1j, 2j, 3j]),
    ],
    ids=lambda value: TensorProto.DataType.Name(value) if isinstance(value, int) else "",
)  # fmt: skip
def test_honest_tensors_of_every_type_are_taken(element: int, values: list[Any]) -> None:
    model = onnx.load_from_string(small())
    for shape in ([3], [1, 3], [0]):
        model.graph.initializer.append(
            helper.make_tensor(f"t{shape}", element, shape, values if 0 not in shape else [])
        )
    if element in (TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT64):
        array = np.array(values, helper.tensor_dtype_to_np_dtype(element))
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, "raw"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(array[0], "scalar"))
    assert read_outline(model.SerializeToString()).inputs
