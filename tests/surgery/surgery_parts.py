"""Models, their exports and the simplifiers, for the tests of surgery."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

from edge_lsla.model.config import VitLslaConfig
from edge_lsla.model.vit_lsla import LslaAttention, VitLsla

TINY = VitLslaConfig(
    name="tiny", classes=5, image_size=32, widths=(32, 64), depths=(1, 1), windows=(4, 2), head_width=16
)


def spread(model: nn.Module) -> nn.Module:
    """Give every attention tables and scales large enough that a wrong one shows in the logits."""
    generator = torch.Generator().manual_seed(11)
    for module in model.modules():
        if isinstance(module, LslaAttention):
            for name in ("scale_weight", "scale_bias", "inner_bias", "outer_bias"):
                value = getattr(module, name)
                if isinstance(value, nn.Parameter):
                    nn.init.normal_(value, std=0.2, generator=generator)
    return model.eval()


def build(config: VitLslaConfig) -> VitLsla:
    torch.manual_seed(3)
    return spread(VitLsla(config))


def dynamo(model: nn.Module, images: torch.Tensor) -> onnx.ModelProto:
    """Export as torch does today, with nothing tidied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own internals
        batch = torch.export.Dim("batch")
        program = torch.onnx.export(model, (images,), dynamo=True, verbose=False, dynamic_shapes=({0: batch},))
    return program.model_proto


def torchscript(model: nn.Module, images: torch.Tensor, opset: int = 17) -> onnx.ModelProto:
    """Export as torch did for years: shapes computed in the graph, LayerNorm too before opset 17."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is deprecated; files that it wrote are not
        axes = {"images": {0: "batch"}}
        torch.onnx.export(
            model, (images,), file, dynamo=False, opset_version=opset, input_names=["images"], dynamic_axes=axes
        )
    return onnx.load_from_string(file.getvalue())


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


def onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    return onnxslim.slim(model)


def onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    simplified, same = onnxsim.simplify(model)
    assert same
    return simplified


SIMPLIFIERS = [plain, onnxslim, onnxsim]


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)
