"""Measure the ranges of activations over calibration images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray

from calibration.biases import split_biases
from calibration.calibrators import open_calibrator
from calibration.identity import DataDigest, model_sha256
from calibration.points import Layer, find_attentions, find_layers, measured_tensors
from calibration.ranges_file import Ranges
from calibration.settings import CalibrationSettings
from edge_lsla.errors import DatasetError, GraphError, UsageError

__all__ = ["Ranges", "collect_ranges"]


def collect_ranges(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[np.float32]],
    settings: CalibrationSettings,
    progress: Callable[[int], None] | None = None,
) -> Ranges:
    """Run images through a model and measure the tensors that INT8 needs.

    Images are run `settings.batch_size` at a time (or as many as the graph fixes), however they arrive; memory holds
    one such batch and, for entropy and percentile, a histogram a tensor. The same images give the same ranges.

    Args:
        model: float32, one input images [N, 3, H, W]; fused or not. It is not changed.
        batches: arrays float32 [n, 3, H, W], normalised as the model expects.
        settings: method and batch size.
        progress: called with the number of images done after each batch.

    Raises:
        GraphError: nothing to quantise, quantised already, or an activation is NaN or infinite.
        DatasetError: no images, or an image holds NaN or infinity.
        UsageError: a batch is not float32 of the shape that the graph takes.
    """
    layers = find_layers(model)
    if not layers:
        raise GraphError(
            "nothing to calibrate: no Conv, MatMul or Gemm has a constant weight", model.graph.name or None
        )
    shape = _input_shape(model)
    tensors = measured_tensors(layers, find_attentions(model))
    digest = DataDigest()
    images = 0
    with open_calibrator(_calibration_graph(model, layers), tensors, settings) as calibrator:
        for chunk in _chunks(_checked(batches, shape), shape[0], settings.batch_size):
            digest.update(chunk)
            images += len(chunk)
            calibrator.collect(_padded(chunk, shape[0]))
            if progress is not None:
                progress(images)
        if not images:
            raise DatasetError("no calibration images", None, "give a folder or list that holds some")
        found = calibrator.compute()
    return Ranges(
        method=settings.method,
        images=images,
        model_sha256=model_sha256(model),
        data_sha256=digest.hexdigest(),
        ranges={tensor: found[tensor] for tensor in tensors},
        percentile=float(settings.percentile) if settings.method == "percentile" else None,
    )


def _calibration_graph(model: onnx.ModelProto, layers: tuple[Layer, ...]) -> onnx.ModelProto:
    """Give every tensor that is measured a place in the graph, and no model-local functions."""
    graph = split_biases(model, {layer.output for layer in layers if layer.op == "Conv"})
    # Names outside the functions survive inlining, so the ranges fit the graph as it was given.
    return onnx.inliner.inline_local_functions(graph) if graph.functions else graph


def _input_shape(model: onnx.ModelProto) -> list[int | None]:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in constants]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        names = ", ".join(entry.name for entry in inputs) or None
        raise GraphError("calibration needs a graph with one float32 input", names, "export the model again")
    if len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise GraphError("the input is not [N, 3, H, W]", inputs[0].name, "export the model again")
    return [d.dim_value if d.HasField("dim_value") else None for d in inputs[0].type.tensor_type.shape.dim]


def _checked(batches: Iterable[NDArray[np.float32]], shape: list[int | None]) -> Iterator[NDArray[np.float32]]:
    done = 0
    for batch in batches:
        fits = batch.ndim == 4 and all(b == s for b, s in zip(batch.shape[1:], shape[1:]) if s is not None)
        if batch.dtype != np.float32 or not fits:
            wanted = ", ".join("any" if side is None else str(side) for side in shape[1:])
            raise UsageError(
                f"calibration batch is {batch.dtype} {list(batch.shape)}, the graph takes float32 [N, {wanted}]",
                f"images from {done}",
                "prepare the images for this model",
            )
        if not np.isfinite(batch).all():
            broken = int(np.flatnonzero(~np.isfinite(batch).all(axis=(1, 2, 3)))[0])
            raise DatasetError("an image holds NaN or infinity", f"images, number {done + broken}", "remove it")
        done += len(batch)
        yield batch


def _chunks(
    batches: Iterable[NDArray[np.float32]], fixed: int | None, batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """Cut batches to at most `batch_size`; where the graph fixes a batch, to exactly that, the last one aside."""
    if fixed is None:
        for batch in batches:
            for start in range(0, len(batch), batch_size):
                yield batch[start : start + batch_size]
        return
    waiting: list[NDArray[np.float32]] = []
    for batch in batches:
        for image in batch:
            waiting.append(image)
            if len(waiting) == fixed:
                yield np.stack(waiting)
                waiting = []
    if waiting:
        yield np.stack(waiting)


def _padded(chunk: NDArray[np.float32], fixed: int | None) -> NDArray[np.float32]:
    """Fill up the last batch of a graph with a fixed batch by repeating its images."""
    return chunk if fixed is None or len(chunk) == fixed else np.resize(chunk, (fixed, *chunk.shape[1:]))
