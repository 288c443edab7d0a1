"""Asking a cut-out attention questions: chosen tokens and queries in, its scores and results out, all in windows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from edge_lsla.operator import merge, partition
from edge_lsla.surgery.cut import QUERY, View, X
from edge_lsla.surgery.topology import session

Array = NDArray[Any]


class Probe:
    """A cut-out attention in ONNX Runtime, without its optimisations, addressed by windows [N, heads, T, d].

    Args:
        model: what `cut` gives: inputs [B, H, W, C]; outputs the scores, then one tensor for each view in `results`.
        results: the views that may be y.
        batch: the only batch size that the graph takes, or None if any.
    """

    def __init__(
        self, model: ModelProto, results: tuple[View, ...], num_heads: int, window: int, batch: int | None
    ) -> None:
        self.session = session(model, optimise=False)
        self.results, self.num_heads, self.window, self.batch = results, num_heads, window, batch
        dims = model.graph.input[0].type.tensor_type
        self.map = results[0].map
        self.dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(dims.elem_type))
        height, width, channels = self.map
        self.tokens, self.head_width = window * window, channels // num_heads
        self.windows_per_image = height * width // self.tokens

    def maps(self, x: Array, query: Array) -> tuple[Array, tuple[Array, ...]]:
        """Run on x, query [B, H, W, C]; return scores [N, heads, T, T] and every possible y [B, H, W, C]."""
        step = self.batch or len(x)
        runs = [
            self.session.run(
                None, {X: x[i : i + step].astype(self.dtype), QUERY: query[i : i + step].astype(self.dtype)}
            )
            for i in range(0, len(x), step)
        ]
        scores, *results = (np.concatenate(parts) for parts in zip(*runs))
        shape = (-1, self.num_heads, self.tokens, self.tokens)
        return scores.reshape(shape), tuple(result.reshape(x.shape) for result in results)

    def windows(self, x: Array, query: Array) -> tuple[Array, tuple[Array, ...]]:
        """Run on x, query [N, heads, T, d]; return scores [N, heads, T, T] and every possible y [N, heads, T, d]."""
        count = len(x)
        whole = self.windows_per_image * (self.batch or 1)
        padding = np.zeros((-count % whole, *x.shape[1:]), x.dtype)
        x, query = np.concatenate([x, padding]), np.concatenate([query, padding])
        shape = (len(x) // self.windows_per_image, *self.map)
        scores, results = self.maps(merge(x, shape, self.window), merge(query, shape, self.window))
        cut = tuple(partition(result, self.num_heads, self.window)[:count] for result in results)
        return scores[:count], cut

    def zeros(self, count: int) -> Array:
        """Return `count` windows of zeros [count, heads, T, d]."""
        return np.zeros((count, self.num_heads, self.tokens, self.head_width), np.float32)
