"""A few images that graphs are tried on, and what becomes of the logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.activations import Activations
from calibration.points import Layer
from edge_lsla.errors import DatasetError, UsageError

Images = NDArray[np.float32]
Values = list[Images]
Means = dict[str, NDArray[np.float64]]


class TrialImages:
    """Images, and what graphs make of them.

    Args:
        model: a graph of those that will run; it says whether the batch is fixed.
        batches: float32 [n, 3, H, W]; read until there are enough.
        images: how many are taken. batch_size: how many run at once, where the graph does not fix it.

    Attributes:
        count: how many there are.

    Raises:
        DatasetError: no images, or one holds NaN or infinity.
        UsageError: `images` or `batch_size` is below 1.
    """

    def __init__(self, model: onnx.ModelProto, batches: Iterable[Images], images: int, batch_size: int) -> None:
        for name, value in (("images", images), ("batch_size", batch_size)):
            if value < 1:
                raise UsageError(f"trying a graph needs at least 1, not {value}", name, "correct it")
        side = model.graph.input[0].type.tensor_type.shape.dim[0]
        self._size = side.dim_value if side.HasField("dim_value") else batch_size
        self._fixed = bool(side.HasField("dim_value"))
        kept: list[Images] = []
        for batch in batches:
            kept.extend(batch[: images - len(kept)])
            if len(kept) >= images:
                break
        if not kept:
            raise DatasetError("no images to try a graph on", None, "give a folder or list that holds some")
        self._images = np.stack(kept)
        if not np.isfinite(self._images).all():
            raise DatasetError("an image holds NaN or infinity", "images to try a graph on", "remove it")
        self.count = len(kept)

    def logits(self, model: onnx.ModelProto, name: str, fusions: bool = True) -> NDArray[np.float64]:
        """Return the logits [N, classes]; `fusions` as for `Activations`."""
        session = Activations(model, [name], fusions)
        return np.concatenate([session.run(chunk)[name][:count] for chunk, count in self._chunks()]).astype(np.float64)

    def values(self, model: onnx.ModelProto, tensor: str, start: Values | None = None) -> Values:
        """Return a tensor of each batch; `start` is what the graph reads, where it is not the images."""
        session = Activations(model, [tensor])
        return [session.run(chunk)[tensor] for chunk, _ in self._chunks(start)]

    def means(self, model: onnx.ModelProto, layers: list[Layer], start: Values | None = None) -> Means:
        """Return the mean of each output channel of some layers, by the output's name; `start` as for `values`."""
        session = Activations(model, [layer.output for layer in layers])
        sums: Means = {}
        for chunk, count in self._chunks(start):
            values = session.run(chunk)
            for layer in layers:
                value = values[layer.output][:count]
                others = tuple(i for i in range(value.ndim) if i != (1 if layer.op == "Conv" else value.ndim - 1))
                total = value.mean(axis=others, dtype=np.float64) * count
                sums[layer.output] = sums[layer.output] + total if layer.output in sums else total
        return {name: total / self.count for name, total in sums.items()}

    def _chunks(self, values: Values | None = None) -> Iterator[tuple[Images, int]]:
        """Yield batches to run, and how many of their images count: a graph's fixed batch is filled by repeating."""
        for number, start in enumerate(range(0, self.count, self._size)):
            chunk = self._images[start : start + self._size]
            if values is not None:
                yield values[number], len(chunk)
            else:
                yield (np.resize(chunk, (self._size, *chunk.shape[1:])) if self._fixed else chunk), len(chunk)


def sqnr_db(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Return signal to quantisation noise in decibels; inf where the two are equal."""
    noise = float(np.square(wanted - found).sum())
    return float(10 * np.log10(np.square(wanted).sum() / noise)) if noise else float("inf")
