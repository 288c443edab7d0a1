"""Run with TensorRT for RTX on PYTHONPATH: parse ONNX files into strongly typed networks and print their layers' types.

Arguments: the ONNX files; one that ends in `.build.onnx` is also built, for compute capability 8.6. Prints one JSON
object, file to {"errors": [...], "layers": [[type, name, input types, output types], ...], "plan_bytes": int or null}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import tensorrt_rtx as trt


def look_at(path: str) -> dict[str, Any]:
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(path)
    found = {
        "errors": [parser.get_error(index).desc() for index in range(parser.num_errors)],
        "layers": [describe(network.get_layer(index)) for index in range(network.num_layers)],
        "plan_bytes": None,
    }
    if parsed and path.endswith(".build.onnx"):
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        images = network.get_input(0)
        shape = tuple(images.shape)[1:]
        profile = builder.create_optimization_profile()
        profile.set_shape(images.name, (1, *shape), (2, *shape), (4, *shape))
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        found["plan_bytes"] = None if plan is None else plan.nbytes
    return found


def describe(layer: Any) -> list[Any]:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    types = [[tensor.dtype.name for tensor in tensors if tensor is not None] for tensors in (inputs, outputs)]
    return [layer.type.name, layer.name, *types]


if __name__ == "__main__":
    print(json.dumps({path: look_at(path) for path in sys.argv[1:]}))
