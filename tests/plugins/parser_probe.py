"""Run with TensorRT for RTX on PYTHONPATH: parse a fused ONNX file with the plugin library loaded.

The parser finds the creator, has it make a plugin, and then aborts the process, because this product's networks take no
plugins; what the creator got is in the file that the library's test build writes. Arguments: the library, the ONNX.
"""

from __future__ import annotations

import sys

import tensorrt_rtx as trt

if __name__ == "__main__":
    library, model = sys.argv[1:]
    logger = trt.Logger(trt.Logger.ERROR)
    assert trt.get_plugin_registry().load_library(library) is not None
    builder = trt.Builder(logger)
    # Held by name: the parser keeps no reference to its network.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    trt.OnnxParser(network, logger).parse_from_file(model)
