"""Which kernels an ONNX file needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_lsla import operator
from plugins.variants import INPUTS, Variant

if TYPE_CHECKING:
    from onnx import ModelProto

KERNELS = {
    operator.NAME: "attention",
    operator.RESIDUAL_NAME: "residual",
    operator.QUANTISED_NAME: "quantised",
}


def needed(model: ModelProto) -> tuple[Variant, ...]:
    """Return the kernels for a fused graph's operators, each once, sorted by name.

    Raises:
        UsageError: an operator has a window or head width that no kernel is written for.
    """
    from onnx import TensorProto

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found = set()
    for node in model.graph.node:
        if node.domain != operator.DOMAIN or node.op_type not in KERNELS:
            continue
        kernel = KERNELS[node.op_type]
        weight = tensors[node.input[INPUTS[kernel].index("scale_weight")]]  # [heads, d], of the type of x
        heads, width = weight.dims
        window = next(attribute.i for attribute in node.attribute if attribute.name == "window")
        dtype = "fp16" if weight.data_type == TensorProto.FLOAT16 else "fp32"
        channels = heads * width if kernel == "residual" else 0
        found.add(Variant(kernel, "int8" if kernel == "quantised" else dtype, window, width, channels))
    return tuple(sorted(found, key=lambda variant: variant.name))
