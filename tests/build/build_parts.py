"""Graphs to build engines of, and where the real builder lies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.config import VitLslaConfig
from edge_lsla.model.vit_lsla import VitLsla
from edge_lsla.surgery.fuse import fuse
from edge_lsla.surgery.half import to_half

# `make runtimes` installs them, each into a folder of its own.
RUNTIMES = Path(sys.prefix) / "runtimes"
RTX = next(iter(sorted(RUNTIMES.glob("tensorrt-rtx-*"), reverse=True)), None)
LEAN = sorted(RUNTIMES.glob("tensorrt-lean-*"))
# A module `tensorrt` that is TensorRT for RTX under the other name: what a machine without a GPU can run of that path.
STAND_IN = Path(__file__).parent / "stand_in"
needs_rtx = pytest.mark.skipif(RTX is None, reason="tensorrt-rtx is not installed (make runtimes)")

TINY = VitLslaConfig("tiny", 5, 32, widths=(32, 64), depths=(1, 1), windows=(4, 2))
SM86 = BuildSettings("tensorrt-rtx", ("sm86",))


def graphs(config: VitLslaConfig, folder: Path) -> dict[str, bytes]:
    """A model with random weights, fused, with function bodies: "fp32", "fp16", "int8" and "int8-fp16"."""
    torch.manual_seed(0)
    path = folder / f"{config.name}.onnx"
    export_onnx(VitLsla(config).eval(), config.image_size, path)
    fused, _ = fuse(onnx.load(path))
    images = np.random.default_rng(0).standard_normal((2, 3, config.image_size, config.image_size), dtype=np.float32)
    int8, _ = insert_qdq(fused, collect_ranges(fused, [images], CalibrationSettings()), QdqSettings("tensorrt"))
    models = {"fp32": fused, "fp16": to_half(fused)[0], "int8": int8, "int8-fp16": to_half(int8)[0]}
    return {precision: model.SerializeToString() for precision, model in models.items()}


def graph(*nodes: onnx.NodeProto, weights: dict[str, np.ndarray[Any, Any]] | None = None, **border: Any) -> bytes:
    """A graph of `images` to `logits` from a few nodes; `border` replaces a type or shape of it."""
    images = helper.make_tensor_value_info(
        border.get("input", "images"), border.get("element", TensorProto.FLOAT), border.get("shape", ["N", 3, 8, 8])
    )
    logits = helper.make_tensor_value_info(
        border.get("output", "logits"), TensorProto.FLOAT, border.get("out", ["N", 5])
    )
    initialisers = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    opsets = [helper.make_opsetid("edge_lsla", 1), helper.make_opsetid("", 20)]
    model = helper.make_model(
        helper.make_graph(list(nodes), "g", [images], [logits], initialisers), opset_imports=opsets
    )
    model.ir_version = 10
    return bytes(model.SerializeToString())


def small(**border: Any) -> bytes:
    """The smallest real graph: the mean over the picture, times a matrix."""
    weights = {"axes": np.array([2, 3]), "w": np.ones((3, 5), np.float32)}
    nodes = (
        helper.make_node("ReduceMean", [border.get("input", "images"), "axes"], ["mean"], keepdims=0, name="pool"),
        helper.make_node("MatMul", ["mean", "w"], [border.get("output", "logits")], name="head"),
    )
    return graph(*nodes, weights=weights, **border)


def custom(operator: str, **attributes: Any) -> bytes:
    """A graph with one node of this project's domain and no function for it."""
    plugin = {"plugin_version": "1", "plugin_namespace": "", **attributes}
    node = helper.make_node(operator, ["images"], ["logits"], name="attention_0", domain="edge_lsla", **plugin)
    return graph(node)
