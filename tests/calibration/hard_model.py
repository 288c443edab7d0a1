"""Models that plain INT8 ruins, with the float numbers of the model they are made from: outlier channels.

| place | outliers in | what undoes it |
| --- | --- | --- |
| "layernorm" | what a LayerNorm gives to one layer and nothing else | scale migration, exactly |
| "attention" | x of each `LslaAttention`, which the query projection reads too | keeping those projections in float |
| "gelu" | the hidden layer: added channels behind a GELU, which nothing uses | keeping the layer behind in float |

In ONNX Runtime's form a convolution's output is quantised too, so there one in front of a GELU has to stay in float as
well. On the demo model, 4 channels and the factors 100, 300 and 60 ruin plain INT8 at these places (40 to 55 % top-1).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

PLACES = ("layernorm", "attention", "gelu")
FLOAT = np.float32


def make_hard(
    model: onnx.ModelProto,
    channels: int = 4,
    factor: float = 60.0,
    place: str = "layernorm",
    only: Collection[int] | None = None,
) -> onnx.ModelProto:
    """Return a copy with the same logits (float32 rounding aside) in which some channels dwarf all others.

    Args:
        model: float32, from this project's exporter; "attention" needs it fused.
        channels: how many channels of a tensor become outliers.
        factor: how much larger they become.
        place: see the table above.
        only: which of the places, counted in graph order from 0; all of them if None.
    """
    assert place in PLACES
    hard = onnx.ModelProto()
    hard.CopyFrom(model)
    edit = _Edit(hard.graph, channels, factor)
    found = {"layernorm": edit.norms, "attention": edit.attentions, "gelu": edit.gelus}[place]()
    chosen = [node for index, node in enumerate(found) if only is None or index in only]
    assert chosen, f"no such place in the graph: {place} {only}"
    for node in chosen:
        {"layernorm": edit.harden_norm, "attention": edit.harden_attention, "gelu": edit.harden_gelu}[place](node)
    onnx.checker.check_model(hard)
    return hard


class _Edit:
    def __init__(self, graph: onnx.GraphProto, channels: int, factor: float) -> None:
        self.graph, self.channels, self.factor = graph, channels, factor
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.maker = {output: node for node in graph.node for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def norms(self) -> list[onnx.NodeProto]:
        nodes = [node for node in self.graph.node if node.op_type == "LayerNormalization"]
        return [node for node in nodes if self._layer_behind(node) is not None]

    def attentions(self) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if node.op_type == "LslaAttention"]

    def gelus(self) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if node.op_type == "Gelu"]

    def harden_norm(self, norm: onnx.NodeProto) -> None:
        factors = self._factors(norm)
        layer = self._layer_behind(norm)
        assert layer is not None
        shape = {"MatMul": (-1, 1), "Gemm": (1, -1), "Conv": (1, -1, 1, 1)}[layer.op_type]  # the head's Gemm has transB
        self._scale(layer.input[1], (1 / factors).reshape(shape))

    def harden_attention(self, node: onnx.NodeProto) -> None:
        """x grows, so query and scale_weight shrink, and y is brought back by a Mul."""
        factors = self._factors(self.maker[node.input[0]])
        add = self.maker[node.input[1]]
        matmul = next(self.maker[name] for name in add.input if name in self.maker)
        bias = next(name for name in add.input if name in self.tensors)
        self._scale(matmul.input[1], 1 / factors[:, None] / factors[None, :])
        self._scale(bias, 1 / factors)
        self._scale(node.input[2], (1 / factors).reshape(self.tensors[node.input[2]].dims))
        y, grown = node.output[0], node.output[0] + "_grown"
        node.output[0] = grown
        shrink = numpy_helper.from_array((1 / factors).astype(FLOAT), f"{y}_shrink")
        self.graph.initializer.append(shrink)
        index = next(i for i, other in enumerate(self.graph.node) if other.output[0] == grown)
        self.graph.node.insert(index + 1, helper.make_node("Mul", [grown, shrink.name], [y], name=f"{y}_mul"))

    def harden_gelu(self, node: onnx.NodeProto) -> None:
        """Copies of some channels, grown, go through the GELU and meet weights of 0 behind it."""
        before = self.maker[node.input[0]]
        is_conv = before.op_type == "Conv"
        product = before if is_conv else next(self.maker[name] for name in before.input if name in self.maker)
        weight = product.input[1]
        bias = before.input[2] if is_conv else next(name for name in before.input if name in self.tensors)
        out, into = (0, 1) if is_conv else (1, 0)
        self._grow_channels(weight, out, self.factor)
        self._grow_channels(bias, 0, self.factor)
        (behind,) = self.readers[node.output[0]]
        self._grow_channels(behind.input[1], into, 0.0)
        wider = {product.output[0], before.output[0], node.output[0]}
        for info in self.graph.value_info:
            if info.name in wider:
                info.type.tensor_type.shape.dim[1 if is_conv else -1].dim_value += self.channels

    def _layer_behind(self, norm: onnx.NodeProto) -> onnx.NodeProto | None:
        """Follow a LayerNorm's only reader, past Transpose and mean pool, to a layer."""
        node = norm
        while len(readers := self.readers.get(node.output[0], [])) == 1:
            node = readers[0]
            if node.op_type in ("MatMul", "Gemm", "Conv"):
                return node
            if node.op_type not in ("Transpose", "ReduceMean"):
                return None
        return None

    def _factors(self, norm: onnx.NodeProto) -> NDArray[np.float32]:
        """Make some channels of a LayerNorm larger, and return by how much each is [C]."""
        width = self.tensors[norm.input[1]].dims[0]
        factors = np.ones(width, FLOAT)
        factors[np.arange(self.channels) * (width // self.channels)] = self.factor
        self._scale(norm.input[1], factors)
        self._scale(norm.input[2], factors)
        return factors

    def _scale(self, name: str, factors: NDArray[Any]) -> None:
        self._store(name, numpy_helper.to_array(self.tensors[name]) * factors)

    def _grow_channels(self, name: str, axis: int, gain: float) -> None:
        value = numpy_helper.to_array(self.tensors[name])
        copies = np.take(value, np.arange(self.channels), axis) * gain
        self._store(name, np.concatenate([value, copies], axis))

    def _store(self, name: str, value: NDArray[Any]) -> None:
        assert len(self.readers[name]) == 1, f"{name} is shared"
        self.tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, FLOAT), name))
