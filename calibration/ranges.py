"""Measure the ranges of activations over calibration images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.activations import Activations
from calibration.biases import split_biases
from calibration.calibrators import MovingRange, range_of
from calibration.histograms import Histogram, RunningHistogram
from calibration.identity import DataDigest, model_sha256
from calibration.points import Layer, find_attentions, find_layers, measured_tensors
from calibration.ranges_file import Ranges
from calibration.settings import CalibrationSettings
from edge_lsla.errors import DatasetError, GraphError, UsageError

__all__ = ["Measured", "Ranges", "collect", "collect_ranges"]

LARGEST_WEIGHT = 1e9  # trained ones are far below 1e4
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class Measured:
    """What one pass over the calibration images gave.

    Attributes:
        ranges: by the method of the settings.
        histograms: of every tensor that has a range, by its name, whatever the method.
        peaks: of every layer's activation, by the tensor's name: max |x| of each channel, float32 [C]; channels are
            axis 1 of a Conv's activation and the last axis of a MatMul's or Gemm's.
        moving: the ranges by "moving", whatever the method.
        settings: that it was measured with.
    """

    ranges: Ranges
    histograms: dict[str, Histogram]
    peaks: dict[str, NDArray[np.float32]]
    moving: dict[str, tuple[float, float]]
    settings: CalibrationSettings

    def by(self, method: str, symmetric: bool = False) -> Ranges:
        """Return the ranges that another method takes from the same pass; `symmetric` matters to "mse" alone."""
        settings = dataclasses.replace(self.settings, method=method, symmetric=symmetric)
        ranges = self.moving
        if method != "moving":
            ranges = {tensor: range_of(histogram, settings) for tensor, histogram in self.histograms.items()}
        return dataclasses.replace(self.ranges, method=method, parameters=settings.parameters(), ranges=ranges)


def collect_ranges(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[np.float32]],
    settings: CalibrationSettings,
    progress: Callable[[int], None] | None = None,
) -> Ranges:
    """Run images through a model and measure the tensors that INT8 needs; see `collect`."""
    return collect(model, batches, settings, progress).ranges


def collect(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[np.float32]],
    settings: CalibrationSettings,
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Run images through a model and measure the tensors that INT8 needs.

    Images are run `settings.batch_size` at a time (or as many as the graph fixes), however they arrive; memory holds
    the activations of one such batch and a histogram a tensor. The same images give the same ranges.

    Args:
        model: float32, one input images [N, 3, H, W]; fused or not. It is not changed.
        batches: arrays float32 [n, 3, H, W], normalised as the model expects.
        settings: method and batch size.
        progress: called with the number of images done after each batch.

    Raises:
        GraphError: nothing to quantise, quantised already, or a weight or an activation is NaN or infinite.
        DatasetError: no images, or an image holds NaN or infinity.
        UsageError: a batch is not float32 of the shape that the graph takes.
    """
    layers = find_layers(model)
    if not layers:
        raise GraphError(
            "nothing to calibrate: no Conv, MatMul or Gemm has a constant weight", model.graph.name or None
        )
    shape = _input_shape(model)
    _check_weights(model, {layer.weight for layer in layers})
    tensors = measured_tensors(layers, find_attentions(model))
    outputs = {output.name for output in model.graph.output} - set(tensors)
    channels = _channel_axes(layers)
    seen = {tensor: _Seen(settings, channels.get(tensor)) for tensor in tensors}
    # What a Conv makes before its bias is a tensor only once the bias is a node of its own.
    session = Activations(split_biases(model, {layer.output for layer in layers if layer.op == "Conv"}), tensors)
    digest = DataDigest()
    images = 0
    with ThreadPoolExecutor(2) as pool:
        for chunk in _chunks(_checked(batches, shape), shape[0] or settings.batch_size, settings.group):
            digest.update(chunk)
            images += len(chunk)
            values = session.run(_padded(chunk, shape[0]))
            parts = [(tensor, _without_padding(values[tensor], len(chunk), shape[0])) for tensor in tensors]
            for _ in pool.map(lambda part: seen[part[0]].add(*part), parts):
                pass  # what a worker raised is raised here
            for output in outputs:
                _extremes(output, values[output])
            if images % settings.group == 0:
                for one in seen.values():
                    one.end_group()
            if progress is not None:
                progress(images)
    if not images:
        raise DatasetError("no calibration images", None, "give a folder or list that holds some")
    for one in seen.values():
        one.end_group()
    measured = Measured(
        Ranges(settings.method, images, model_sha256(model), digest.hexdigest(), {}, settings.parameters()),
        {tensor: one.histogram.finish() for tensor, one in seen.items()},
        {tensor: seen[tensor].peaks for tensor in channels},
        {tensor: one.moving.range for tensor, one in seen.items()},
        settings,
    )
    return dataclasses.replace(measured, ranges=measured.by(settings.method, settings.symmetric))


class _Seen:
    """What was seen of one tensor."""

    def __init__(self, settings: CalibrationSettings, channel_axis: int | None) -> None:
        self.histogram = RunningHistogram(settings.bins)
        self.peaks = np.zeros(1, np.float32)
        self.moving = MovingRange(settings.step)
        self._axis = channel_axis
        self._group: tuple[float, float] | None = None

    def add(self, tensor: str, values: NDArray[np.float32]) -> None:
        if self._axis is None:
            low, high = _extremes(tensor, values)
        else:
            others = tuple(i for i in range(values.ndim) if i != self._axis % values.ndim)
            lows, highs = values.min(axis=others), values.max(axis=others)
            low, high = _extremes(tensor, np.stack([lows, highs]))
            self.peaks = np.maximum(self.peaks, np.maximum(-lows, highs))
        self.histogram.add(values, low, high)
        self._group = (min(low, self._group[0]), max(high, self._group[1])) if self._group else (low, high)

    def end_group(self) -> None:
        if self._group is not None:
            self.moving.add(*self._group)
            self._group = None


def _extremes(tensor: str, values: NDArray[np.float32]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())  # NaN where any value is NaN
    if not np.isfinite(low) or not np.isfinite(high):
        raise GraphError("activations hold NaN or infinity", tensor, "check the weights and the images")
    return low, high


def _channel_axes(layers: tuple[Layer, ...]) -> dict[str, int]:
    return {layer.activation: 1 if layer.op == "Conv" else -1 for layer in reversed(layers)}


def _check_weights(model: onnx.ModelProto, weights: set[str]) -> None:
    """Refuse NaN in any constant, and infinity or what is no weight in a layer's; elsewhere it may be a bound."""
    for tensor in model.graph.initializer:
        if tensor.data_type not in FLOATS:
            continue
        values = numpy_helper.to_array(tensor)
        if np.isnan(values).any() or (tensor.name in weights and not np.isfinite(values).all()):
            raise GraphError("a weight holds NaN or infinity", tensor.name, "repair the checkpoint")
        if tensor.name in weights and values.size and (peak := float(np.abs(values).max())) > LARGEST_WEIGHT:
            what = f"a weight is as large as {peak:.1e}, which is damage"
            raise GraphError(what, tensor.name, "repair the checkpoint")


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
                "prepare the images for this model's input size",
            )
        if not np.isfinite(batch).all():
            broken = int(np.flatnonzero(~np.isfinite(batch).all(axis=(1, 2, 3)))[0])
            raise DatasetError("an image holds NaN or infinity", f"images, number {done + broken}", "remove it")
        done += len(batch)
        yield batch


def _chunks(batches: Iterable[NDArray[np.float32]], size: int, group: int) -> Iterator[NDArray[np.float32]]:
    """Cut images to `size` at a time, however they arrive, and never across the border of two groups."""
    waiting: list[NDArray[np.float32]] = []
    taken = 0
    for batch in batches:
        for image in batch:
            waiting.append(image)
            taken += 1
            if len(waiting) == size or taken % group == 0:
                yield np.stack(waiting)
                waiting = []
    if waiting:
        yield np.stack(waiting)


def _padded(chunk: NDArray[np.float32], fixed: int | None) -> NDArray[np.float32]:
    """Fill up a batch of a graph with a fixed batch by repeating its images."""
    return chunk if fixed is None or len(chunk) == fixed else np.resize(chunk, (fixed, *chunk.shape[1:]))


def _without_padding(values: NDArray[np.float32], images: int, fixed: int | None) -> NDArray[np.float32]:
    """Take off again what the repeated images made; images lie one after the other along the first axis."""
    if fixed is None or images == fixed or values.ndim == 0 or len(values) % fixed:
        return values
    return values[: len(values) // fixed * images]
