"""Digests that tie ranges to the model and the data they were measured on."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def model_sha256(model: onnx.ModelProto) -> str:
    """Hash what a model computes, as 64 hexadecimal digits.

    Counted: operator sets, inputs, outputs, nodes with their attributes, functions, and every initialiser's name, type,
    shape and values. Not counted, so that reading, saving or annotating a file changes nothing: names of nodes and of
    the graph, doc strings, metadata, producer, value_info, the order of initialisers, and how their values are stored.
    """
    skeleton = onnx.ModelProto()
    skeleton.opset_import.extend(sorted(model.opset_import, key=lambda o: str(o.domain)))
    for entry in model.graph.input:
        skeleton.graph.input.append(onnx.ValueInfoProto(name=entry.name, type=entry.type))
    for entry in model.graph.output:
        skeleton.graph.output.append(onnx.ValueInfoProto(name=entry.name, type=entry.type))
    skeleton.graph.node.extend(_bare(node) for node in model.graph.node)
    for function in sorted(model.functions, key=lambda f: (str(f.domain), str(f.name))):
        bare = onnx.FunctionProto()
        bare.CopyFrom(function)
        for name in ("doc_string", "metadata_props", "value_info", "node"):
            bare.ClearField(name)
        bare.node.extend(_bare(node) for node in function.node)
        skeleton.functions.append(bare)
    digest = hashlib.sha256(skeleton.SerializeToString(deterministic=True))
    for tensor in sorted(model.graph.initializer, key=lambda t: str(t.name)):
        values = numpy_helper.to_array(tensor)
        digest.update(f"{tensor.name}\0{tensor.data_type}\0{list(tensor.dims)}\0".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


class DataDigest:
    """Hash of images that does not depend on how they were batched."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._shape: tuple[int, ...] | None = None

    def update(self, images: NDArray[Any]) -> None:
        """Take in images [N, ...], float32."""
        if images.shape[1:] != self._shape:
            self._shape = images.shape[1:]
            self._digest.update(repr(self._shape).encode())
        self._digest.update(np.ascontiguousarray(images, "<f4").tobytes())

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits."""
        return self._digest.hexdigest()


def _bare(node: onnx.NodeProto) -> onnx.NodeProto:
    bare = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=node.input, output=node.output)
    for attribute in sorted(node.attribute, key=lambda a: str(a.name)):
        copy = bare.attribute.add()
        copy.CopyFrom(attribute)
        copy.ClearField("doc_string")
    return bare
