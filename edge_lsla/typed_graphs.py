"""Graphs with a backend's types written in, from one fused float32 graph; each is made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_lsla.console import progress, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from edge_lsla.quantising import Quantiser
    from edge_lsla.surgery.half_measure import HalfMeasure


@dataclass(frozen=True)
class Typed:
    """A typed graph, its operators with their bodies.

    Attributes:
        graph: what the backend computes.
        layers: precision of each layer; empty where all are fp32.
        half: how near to the end of half precision's range it comes; None where nothing is half.
    """

    graph: ModelProto
    layers: dict[str, str]
    half: HalfMeasure | None = None


class TypedGraphs:
    """Makes them.

    Args:
        graph: fused, float32.
        quantiser: for INT8.
        inputs: images [N, 3, S, S] float32, normalised, on which half precision is tried.
        attention: from a backend to its form of attention, "plugin", "function" or "split".
    """

    def __init__(
        self,
        graph: ModelProto,
        quantiser: Quantiser,
        inputs: NDArray[np.float32],
        attention: Callable[[str], str],
    ) -> None:
        self._graph, self.quantiser, self._inputs, self._attention = graph, quantiser, inputs, attention
        self._made: dict[tuple[str, str, tuple[str, ...]], Typed] = {}

    def get(self, backend: str, precision: str, keep: tuple[str, ...] = ()) -> Typed:
        """Return the graph of a backend and precision; `keep` names layers that are not INT8.

        Raises:
            GraphError, AccuracyError: see `insert_qdq` and `choose_half`.
        """
        key = (backend, precision, keep)
        if key not in self._made:
            self._made[key] = self._make(backend, precision, keep)
        return self._made[key]

    def _make(self, backend: str, precision: str, keep: tuple[str, ...]) -> Typed:
        from edge_lsla.surgery.half_measure import choose_half
        from edge_lsla.surgery.split import split_attention

        on_gpu = backend != "onnxruntime"
        typed = Typed(self._graph, {})
        if precision == "int8":
            quantised, report = self.quantiser.int8("tensorrt" if on_gpu else "onnxruntime", keep)
            typed = Typed(quantised, dict(report.precision))
            say().print(f"{backend}: {len(report.quantised)} layers in INT8")
        if on_gpu and precision != "fp32":
            with progress("measuring half precision"):
                graph, halves, measured = choose_half(typed.graph, [self._inputs])
            for kept in halves.kept:
                say().print(f"stays in FP32: {kept.where}: {kept.reason}", style="yellow")
            typed = Typed(graph, dict(halves.precision), measured)
        if self._attention(backend) == "split":
            typed = Typed(split_attention(typed.graph), typed.layers, typed.half)
        return typed
