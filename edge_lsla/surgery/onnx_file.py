"""Reading an ONNX file that may be anything: whatever is wrong with it becomes one sentence."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from edge_lsla.errors import GraphError

LARGEST_BYTES = 2**31 - 1  # one protobuf message cannot be larger


def read_onnx(path: str | os.PathLike[str]) -> ModelProto:
    """Read a model with its external weights, if it has any, and check its structure.

    Raises:
        GraphError: the file is absent, too large, cut short, not ONNX, not a valid graph, or its weights are missing.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise GraphError("this is a folder, not an ONNX file", path, "give the file")
        if not path.is_file():
            raise GraphError("not a regular file", path, "give an ONNX file")
        if size > LARGEST_BYTES:
            raise GraphError("the file is larger than an ONNX file can be", path, "keep its weights in external data")
        data = path.read_bytes()
    except OSError as error:
        raise GraphError("the file cannot be read", path, error.strerror or "check the path") from error
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # DecodeError of whichever protobuf implementation is installed
        raise GraphError("not an ONNX file, or cut short", path, "export it again") from error
    if not model.ir_version or not model.graph.node or not model.opset_import:
        raise GraphError("not an ONNX file, or without a graph", path, "export it again")
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:  # OSError, or the checker's class for a location outside the folder
            raise GraphError("the weights kept outside the file cannot be read", path, _first_line(error)) from error
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError is defined in C++
        reason = textwrap.shorten(" ".join(str(error).split()), 300, placeholder=" …")
        raise GraphError("not a valid ONNX graph", f"{path}: {reason}", "export it again") from error
    return model


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
