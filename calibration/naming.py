"""Names of layers that people know: those of the modules they were exported from."""

from __future__ import annotations

import onnx

from calibration.points import find_layers


def module_names(model: onnx.ModelProto) -> dict[str, str]:
    """Map each layer's name to its module's, such as "stages.0.1.expand", where the parameters' names still tell it.

    A weight keeps its parameter's name in a Conv or Gemm, or, where scales were moved into it, its bias does; of a
    MatMul the bias does, which an Add behind it reads. Other layers stay as they are, and so do names that would occur
    twice.
    """
    parameters = {tensor.name for tensor in model.graph.initializer}
    added = {
        made: other
        for node in model.graph.node
        if node.op_type == "Add"
        for made, other in (tuple(node.input), tuple(reversed(node.input)))
        if other in parameters
    }
    biases = {node.output[0]: node.input[2:] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    found = {}
    for layer in find_layers(model):
        candidates = (added.get(layer.output, ""), layer.weight, *biases.get(layer.output, ()))
        modules = (one.rpartition(".") for one in candidates)
        found[layer.name] = next((one for one, _, kind in modules if one and kind in ("weight", "bias")), layer.name)
    names = list(found.values())
    return {layer: name if names.count(name) == 1 else layer for layer, name in found.items()}
