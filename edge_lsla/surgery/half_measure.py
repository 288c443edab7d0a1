"""What half precision does to a graph's activations and logits, and the choice of what stays float32 because of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from edge_lsla.errors import AccuracyError, GraphError, UsageError
from edge_lsla.surgery.half import SUFFIX, HalfReport, to_half
from edge_lsla.surgery.half_evaluator import Observed, evaluate
from edge_lsla.surgery.half_rules import LARGEST
from edge_lsla.surgery.match import Refusal

Images = Sequence[NDArray[np.float32]]
HEADROOM = 0.5  # pictures of the field reach further than those of calibration: one doubling is left to them


@dataclass(frozen=True)
class HalfTensor:
    """One half precision tensor.

    Attributes:
        name: in the half graph.
        layer: the node that makes it.
        ratio: max|value| / 65504 over all images; where half gave infinity or NaN, that of the float32 graph.
        finite: whether every value was.
    """

    name: str
    layer: str
    ratio: float
    finite: bool


@dataclass(frozen=True)
class HalfMeasure:
    """A half graph beside the float32 graph it was made from.

    Attributes:
        images: how many were run.
        tensors: every half tensor that a node makes, in graph order.
        top1_agreement: the share of images whose largest logit is of the same class.
        max_difference: of a logit, relative to max(1, max|logit| in float32); infinity where one is not finite.
    """

    images: int
    tensors: tuple[HalfTensor, ...]
    top1_agreement: float
    max_difference: float

    @property
    def layers(self) -> dict[str, float]:
        """The largest ratio of each layer's tensors, in graph order."""
        found: dict[str, float] = {}
        for tensor in self.tensors:
            found[tensor.layer] = max(found.get(tensor.layer, 0.0), tensor.ratio)
        return found

    @property
    def largest(self) -> HalfTensor:
        """The tensor that comes closest to the end of half's range, or is furthest beyond it."""
        return max(self.tensors, key=lambda tensor: tensor.ratio)

    @property
    def nonfinite(self) -> tuple[str, ...]:
        """Layers that made infinity or NaN, in graph order; the first is where it began."""
        return tuple(dict.fromkeys(tensor.layer for tensor in self.tensors if not tensor.finite))


def measure_half(float_model: ModelProto, half_model: ModelProto, batches: Images) -> HalfMeasure:
    """Run both graphs, the half one in true half precision, and compare.

    Products are summed in float32 and rounded once; every other operator rounds as onnx defines it.

    Args:
        float_model: what `to_half` was given.
        half_model: what it made.
        batches: images [n, 3, S, S] float32, normalised.

    Raises:
        UsageError: there are no images.
    """
    return _measure(_observe(float_model, batches), half_model, batches)


def choose_half(
    model: ModelProto, batches: Images, *, headroom: float = HEADROOM
) -> tuple[ModelProto, HalfReport, HalfMeasure]:
    """Convert to half, and keep float32 whatever makes or reads a tensor that leaves half's range on these images.

    Args:
        model: float32 graph, see `to_half`.
        batches: images of calibration [n, 3, S, S] float32, normalised.
        headroom: the largest max|value| / 65504 that may be half.

    Returns:
        The half graph; its report, which names the layers kept and why; its measure.

    Raises:
        UsageError: there are no images, or the headroom is not in (0, 1].
        GraphError: the float32 graph itself is not finite, or see `to_half`.
        AccuracyError: no layer can be half.
    """
    if not 0 < headroom <= 1:
        raise UsageError("headroom must be above 0 and at most 1", "headroom", f"got {headroom!r}")
    observed = _observe(model, batches)
    infinite = [name for name, peak in observed.peaks.items() if not np.isfinite(peak)]
    if infinite:
        raise GraphError("the float32 graph is not finite on these images", infinite[0], "repair the checkpoint")
    reasons: dict[str, str] = {}
    while True:
        half_model, report = to_half(model, keep_float=tuple(reasons))
        measure = _measure(observed, half_model, batches)
        beyond = {tensor.name: tensor.ratio for tensor in measure.tensors if tensor.ratio > headroom}
        if not beyond:  # then an operator overflows inside, where nobody looks, or none does
            beyond = {tensor.name: np.inf for tensor in measure.tensors if tensor.layer in measure.nonfinite[:1]}
        if not beyond and report.half:
            kept = tuple(Refusal(entry.where, reasons.get(entry.where, entry.reason)) for entry in report.kept)
            return half_model, dataclasses.replace(report, kept=kept), measure
        found = _concerned(half_model, report, beyond)
        if not found:
            raise AccuracyError("no layer stays within half precision", next(iter(reasons), None), "use fp32 or int8")
        reasons |= found


def _observe(model: ModelProto, batches: Images) -> Observed:
    if not batches:
        raise UsageError("half precision is judged on images", "batches", "give some")
    return evaluate(model, batches)


def _measure(observed: Observed, half_model: ModelProto, batches: Images) -> HalfMeasure:
    found = evaluate(half_model, batches)
    expected = observed.logits.astype(np.float64)
    finite = np.isfinite(found.logits).all(axis=1)
    same = finite & (np.argmax(found.logits, axis=1) == np.argmax(expected, axis=1))
    difference = float(np.abs(found.logits - expected).max()) / max(1.0, float(np.abs(expected).max()))
    return HalfMeasure(
        images=len(expected),
        tensors=_tensors(half_model, observed.peaks, found.peaks),
        top1_agreement=float(same.mean()),
        max_difference=difference if finite.all() else np.inf,
    )


def _tensors(half_model: ModelProto, expected: dict[str, float], found: dict[str, float]) -> tuple[HalfTensor, ...]:
    values: Any = (*half_model.graph.value_info, *half_model.graph.output)
    halves = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    tensors = []
    for node in half_model.graph.node:
        for name in halves.intersection(node.output):
            peak, finite = found[name], bool(np.isfinite(found[name]))
            if not finite:
                peak = expected.get(name, expected.get(name.removesuffix(SUFFIX[TensorProto.FLOAT16]), np.inf))
            tensors.append(HalfTensor(name, node.name, peak / LARGEST, finite))
    return tuple(tensors)


def _concerned(half_model: ModelProto, report: HalfReport, beyond: dict[str, float]) -> dict[str, str]:
    """Return the half layers that make or read such a tensor, each with the reason to keep it float32.

    Of a tensor that is in range but was not finite (infinity here) the maker alone.
    """
    halves = set(report.half)
    found: dict[str, str] = {}
    for node in half_model.graph.node:
        ratios = [beyond[name] for name in node.output if name in beyond]
        ratios += [beyond[name] for name in node.input if np.isfinite(beyond.get(name, np.inf))]
        if ratios and node.name in halves:
            peak = max(ratios)
            reach = f"activations reach {peak:.3g} of half precision's range"
            found[node.name] = reach if np.isfinite(peak) else "it makes infinity or NaN in half precision"
    return found
