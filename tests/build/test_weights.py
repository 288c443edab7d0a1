"""Weights read without onnx: the same types, sizes and bytes as onnx itself."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from build_parts import graph, small
from onnx import TensorProto, helper, numpy_helper

from edge_lsla.build.tensorrt.weights import TYPES, Weight, read_weights, weight_totals
from edge_lsla.errors import GraphError


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_reads_what_onnx_reads(tiny: dict[str, bytes], precision: str) -> None:
    weights = read_weights(tiny[precision])
    arrays = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(tiny[precision]).graph.initializer}
    assert {one.name: (one.shape, one.size) for one in weights} == {
        name: (array.shape, array.nbytes) for name, array in arrays.items()
    }
    heaviest = next(iter(weight_totals(weights)))
    assert heaviest == precision
    totals = weight_totals(weights)
    assert sum(total["bytes"] for total in totals.values()) == sum(array.nbytes for array in arrays.values())
    assert sum(total["tensors"] for total in totals.values()) == len(arrays)


def test_every_type_of_onnx_has_its_size() -> None:
    numbers = {value.number for value in TensorProto.DESCRIPTOR.enum_types_by_name["DataType"].values}
    assert numbers - set(TYPES) <= {TensorProto.UNDEFINED, *range(24, 64)}
    for number, (name, bits) in TYPES.items():
        if number in (TensorProto.STRING, *range(17, 24)):
            continue  # no fixed size, or none that NumPy has
        assert np.dtype(helper.tensor_dtype_to_np_dtype(number)).itemsize * 8 == bits, name


def test_half_bytes_are_counted_whole() -> None:
    values = helper.make_tensor("w4", TensorProto.INT4, [3, 5], list(range(-8, 7)))
    model = onnx.load_from_string(graph(weights={}))
    model.graph.initializer.append(values)
    assert read_weights(model.SerializeToString()) == (Weight("w4", "int4", (3, 5), math.ceil(15 / 2)),)


def test_a_type_of_the_future_is_unknown() -> None:
    model = onnx.load_from_string(small())
    model.graph.initializer[1].data_type = 99
    assert read_weights(model.SerializeToString())[1] == Weight("w", "unknown", (3, 5), 0)


def test_other_files_are_refused() -> None:
    with pytest.raises(GraphError, match="corrupt or cut short"):
        read_weights(b"hello world\n" * 30)
    with pytest.raises(GraphError, match="holds no graph"):
        read_weights(b"")
