"""Scale migration: outlier channels of a LayerNorm's output move into the weights of the layers that read it.

INT8 gives a whole activation one scale, but every output channel of a weight its own; so one loud channel costs all
others their resolution. Dividing the LayerNorm's weight and bias by a factor for each channel, and multiplying the
readers' weights by it, changes no number in float. Sources: Xiao et al. 2022, SmoothQuant (arXiv 2211.10438), equation
4; Nagel et al. 2019, cross-layer equalisation (arXiv 1906.04721).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.biases import remove_unused
from calibration.points import STANDARD, Layer, find_constants, find_layers, layer_names
from edge_lsla.errors import GraphError, UsageError
from edge_lsla.operator import DOMAIN

GRID = tuple(step / 20 for step in range(21))
LEVELS = 127
SCALED = "_scaled"  # ends the name of a tensor whose channels were rescaled
LARGEST_FACTOR = 2.0**12  # keeps what is divided by it within half precision's range
FOLLOWED = (
    "Transpose",
    "ReduceMean",
    "Identity",
)  # each channel of their result depends on that channel alone, linearly

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Migrated:
    """One LayerNorm that was rescaled.

    Attributes:
        norm: the LayerNorm's node. layers: the layers whose weights took its factors.
        strength: the exponent used. spread: the largest factor over the smallest.
        gain_db: by how much the layers' INT8 error is expected to shrink, see `_expected_error`.
    """

    norm: str
    layers: tuple[str, ...]
    strength: float
    spread: float
    gain_db: float


@dataclass(frozen=True)
class NotMigrated:
    """A layer whose input keeps its scales, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class MigrationReport:
    """What `migrate_scales` did: every layer is in one of the two, each in graph order."""

    migrated: tuple[Migrated, ...]
    left: tuple[NotMigrated, ...]


def migrate_scales(
    model: onnx.ModelProto, peaks: Mapping[str, NDArray[np.float32]], strength: float | None = 0.5
) -> tuple[onnx.ModelProto, MigrationReport]:
    """Return a copy with the same float numbers whose LayerNorms give INT8 layers more even channels.

    A channel's factor is s = peak ** strength / weight_peak ** (1 - strength), scaled to a geometric mean of 1: the
    LayerNorm is divided by s, the layers' weights are multiplied. That is exact only where nothing but layers reads
    the LayerNorm, directly or past transposes and mean pools. It is not where a GELU lies between, which does not
    scale, nor where attention reads it too: x is key and value, so y would need a multiplication of its own.

    Args:
        model: float32 graph, fused or not; not changed.
        peaks: the largest |value| of each channel of every layer's activation, float [C], by the tensor's name.
        strength: from 0 (even weights) to 1 (even activations). None chooses for each LayerNorm the strength of a grid
            with the smallest expected error, and leaves it alone where none expects less than it has.

    Raises:
        GraphError: quantised already, or a weight is not finite.
        UsageError: `strength` is not from 0 to 1, or `peaks` lacks a tensor, or has one that does not fit.
    """
    if strength is not None and not 0 <= strength <= 1:
        raise UsageError(f"migration strength {strength!r} is not from 0 to 1", "strength", "correct it")
    layers = find_layers(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    search = _Search(result.graph, layers)
    migrated: list[Migrated] = []
    left: dict[str, str] = {}
    reached: set[str] = set()
    for norm in [node for node in result.graph.node if node.op_type == "LayerNormalization"]:
        below, obstacle = search.readers(norm)
        reached.update(layer.name for layer in below)
        if not below:
            continue
        done = obstacle or _migrate(search, norm, below, peaks, strength)
        if isinstance(done, Migrated):
            migrated.append(done)
            search.rename(norm.output[0])
        else:
            left.update({layer.name: done for layer in below})
    left.update({layer.name: search.maker_reason(layer) for layer in layers if layer.name not in reached})
    remove_unused(result.graph)
    reasons = tuple(NotMigrated(layer.name, left[layer.name]) for layer in layers if layer.name in left)
    return result, MigrationReport(tuple(migrated), reasons)


class _Search:
    """Follows the channels of a LayerNorm through one graph."""

    def __init__(self, graph: onnx.GraphProto, layers: tuple[Layer, ...]) -> None:
        self.graph = graph
        self.names = layer_names(graph)
        self.constants = find_constants(graph)
        self.layers = {layer.name: layer for layer in layers}
        self.makers = {output: node for node in graph.node for output in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in graph.output}
        self.ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.value_info, *graph.output)}

    def readers(self, norm: onnx.NodeProto) -> tuple[list[Layer], str | None]:
        """List the layers that read a LayerNorm, in graph order, and what forbids to rescale it, if anything does."""
        found: list[Layer] = []
        obstacles: list[str] = []
        if any(name and name not in self.constants for name in norm.input[1:]):
            obstacles.append("the LayerNorm above it has a weight or bias that is computed")
        todo = [(norm.output[0], -1)]  # a tensor, and which of its axes holds the channels, counted from the end
        while todo:
            tensor, axis = todo.pop()
            if tensor in self.outputs:
                obstacles.append(f"{tensor} is an output of the graph")
            for node in self.consumers.get(tensor, []):
                layer = self.layers.get(self.names[node.output[0]])
                if node.op_type == "Shape":
                    continue
                if layer is not None and layer.activation == tensor:
                    found.append(layer)
                    obstacles.extend(_unlike(node, layer, axis, self.constants))
                elif node.op_type in FOLLOWED and node.domain in STANDARD:
                    moved = self._moved(node, axis)
                    if isinstance(moved, int):
                        todo.append((node.output[0], moved))
                    else:
                        obstacles.append(moved)
                else:
                    obstacles.append(self._reader_reason(tensor, node))
        order = {name: index for index, name in enumerate(self.layers)}
        return sorted(found, key=lambda layer: order[layer.name]), "; ".join(dict.fromkeys(obstacles)) or None

    def rename(self, tensor: str) -> None:
        """Give a rescaled tensor, and what is made of it before a layer, another name: its values are others now."""
        for node in self.consumers.get(tensor, []):
            if node.op_type in FOLLOWED and node.domain in STANDARD:
                self.rename(node.output[0])
        for node in (*self.consumers.get(tensor, []), self.makers[tensor]):
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == tensor:
                        names[index] = tensor + SCALED
        for value in self.graph.value_info:
            if value.name == tensor:
                value.name = tensor + SCALED

    def _moved(self, node: onnx.NodeProto, axis: int) -> int | str:
        """Return where a node leaves the channels, or why that cannot be told."""
        if node.op_type == "Identity":
            return axis
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Transpose":
            order = attributes.get("perm")
            return order.index(axis + len(order)) - len(order) if order else "a Transpose without an order"
        rank = self.ranks.get(node.output[0])
        axes = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        if rank is None or axes is None:
            return "a ReduceMean whose axes or shape are not known"
        pooled = [int(value) for value in numpy_helper.to_array(axes).reshape(-1)]
        kept = attributes.get("keepdims", 1)
        rank += 0 if kept else len(pooled)
        pooled = [value if value < 0 else value - rank for value in pooled]
        if axis in pooled or not pooled:
            return "a ReduceMean over channels"
        return axis if kept else axis + sum(value > axis for value in pooled)

    def _reader_reason(self, tensor: str, node: onnx.NodeProto) -> str:
        name = self.names[node.output[0]]
        if node.domain == DOMAIN:
            return f"{tensor} is x of {name} too, key and value: its y would have to be multiplied back"
        return f"{tensor} is read by {node.op_type} {name} too"

    def maker_reason(self, layer: Layer) -> str:
        node = self.makers.get(layer.activation)
        while node is not None and node.op_type in FOLLOWED:
            node = self.makers.get(node.input[0])
        if node is None:
            return "its input is the graph's own"
        if node.op_type == "Gelu":
            return "its input is made by a GELU, which does not scale"
        return f"its input is made by {node.op_type}, not by a LayerNorm"


def _unlike(node: onnx.NodeProto, layer: Layer, axis: int, constants: Mapping[str, onnx.TensorProto]) -> list[str]:
    """Say why a layer's weight cannot take a factor for each input channel."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    channels = 1 - len(constants[layer.weight].dims) if layer.op == "Conv" else -1
    if axis != channels:
        return [f"{layer.name} sums over another axis than the LayerNorm's channels"]
    if attributes.get("group", 1) != 1 or attributes.get("transA", 0):
        return [f"{layer.name} has groups or a transposed input"]
    return []


def _migrate(
    search: _Search,
    norm: onnx.NodeProto,
    layers: list[Layer],
    peaks: Mapping[str, NDArray[np.float32]],
    strength: float | None,
) -> Migrated | str:
    """Rescale one LayerNorm and its readers in place, or say why not."""
    parameters = [_finite(search.constants, name) for name in norm.input[1:] if name]
    if any(value.ndim != 1 for value in parameters):
        return "the LayerNorm above it is over more than its last axis"
    weights = [_by_channel(_finite(search.constants, layer.weight), layer) for layer in layers]
    channels = len(weights[0])
    if any(len(value) != channels for value in (*weights, *parameters)):
        return "the LayerNorm above it has another number of channels"
    reach = [_peaks(peaks, layer.activation, channels) for layer in layers]
    energy = sum(np.square(value) for value in parameters)  # of weight * n + bias, where n has mean 0 and variance 1
    parts = [(weight, peak, np.minimum(energy, peak**2)) for weight, peak in zip(weights, reach)]
    before = _expected_error(parts, np.ones(channels))
    loudest = np.max(reach, axis=0)
    heaviest = np.max([np.abs(weight).max(axis=(1, 2)) for weight in weights], axis=0)
    candidates = [(_expected_error(parts, _factors(loudest, heaviest, a)), a) for a in
                  (GRID if strength is None else (strength,))]  # fmt: skip
    after, chosen = min(candidates)
    if strength is None and not after < before:
        return "no strength expects a smaller error"
    factors = _factors(loudest, heaviest, chosen)
    for index, name in enumerate(norm.input[1:], 1):
        if name:
            norm.input[index] = _store(search, f"{norm.output[0]}_parameter{index}_migrated", name, 1 / factors)
    for layer in layers:
        node = search.makers[layer.output]
        shape = [1] * len(search.constants[layer.weight].dims)
        shape[_input_axis(layer)] = -1
        node.input[1] = _store(search, f"{layer.output}_weight_migrated", layer.weight, factors.reshape(shape))
    return Migrated(
        norm=search.names[norm.output[0]],
        layers=tuple(layer.name for layer in layers),
        strength=chosen,
        spread=float(factors.max() / factors.min()),
        gain_db=float(10 * np.log10(before / after)) if before > 0 and after > 0 else 0.0,
    )


def _factors(peaks: Array, weight_peaks: Array, strength: float) -> Array:
    """Return s [C]; 1 for a channel that is dead on either side."""
    alive = (peaks > 0) & (weight_peaks > 0)
    logs = np.zeros(len(peaks))
    logs[alive] = strength * np.log(peaks[alive]) - (1 - strength) * np.log(weight_peaks[alive])
    logs[alive] -= logs[alive].mean() if alive.any() else 0
    return np.exp(np.clip(logs, -np.log(LARGEST_FACTOR), np.log(LARGEST_FACTOR)))


def _expected_error(parts: list[tuple[Array, Array, Array]], factors: Array) -> float:
    """Return the variance that INT8 adds to the layers' results, times 12, for activations divided by `factors` [C].

    Rounding to a step d adds an error of variance d**2 / 12. A result sums activation * weight, so an activation's
    error is multiplied by its weights, and a weight's by the activation's mean square.
    """
    total = 0.0
    for weight, peak, energy in parts:
        scaled = weight * factors[:, None, None]
        activation_step = float((peak / factors).max()) / LEVELS
        weight_steps = np.abs(scaled).max(axis=(0, 2)) / LEVELS  # one for each output channel
        total += activation_step**2 * float((scaled**2).sum())
        total += float((energy / factors**2).sum()) * float((weight_steps**2).sum()) * weight.shape[2]
    return total


def _by_channel(weight: Array, layer: Layer) -> Array:
    """Return a weight as [input channels, output channels, kernel positions]."""
    ordered = np.moveaxis(weight, (_input_axis(layer), layer.axis), (0, 1))
    return ordered.reshape(*ordered.shape[:2], -1)


def _input_axis(layer: Layer) -> int:
    return 1 - layer.axis  # of a convolution's [out, in, …] as well


def _peaks(peaks: Mapping[str, NDArray[np.float32]], tensor: str, channels: int) -> Array:
    if tensor not in peaks:
        raise UsageError("migration lacks the channels' peaks of a tensor", tensor, "measure them on this model")
    values = np.asarray(peaks[tensor], np.float64)
    if values.shape != (channels,) or not np.isfinite(values).all() or (values < 0).any():
        raise UsageError(f"migration needs {channels} peaks, finite and not negative", tensor, "measure them again")
    return values


def _finite(constants: Mapping[str, onnx.TensorProto], name: str) -> Array:
    value: Array = numpy_helper.to_array(constants[name]).astype(np.float64)
    if not np.isfinite(value).all():
        raise GraphError("a weight holds NaN or infinity", name, "repair the checkpoint")
    return value


def _store(search: _Search, name: str, source: str, factors: Array) -> str:
    """Keep a constant times `factors` under a name of its own: other nodes may read the old one."""
    value = (numpy_helper.to_array(search.constants[source]) * factors).astype(np.float32)
    search.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name
