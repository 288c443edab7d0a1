"""The proof of a match: the cut-out attention against the operator's formula in float64, on random inputs."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.operator import reference
from edge_lsla.surgery.bias import recover_inner, recover_outer
from edge_lsla.surgery.cut import QUERY, Open, View, X, cut
from edge_lsla.surgery.match import Candidate, Refusal
from edge_lsla.surgery.probe import Probe
from edge_lsla.surgery.scale import float_constants, measure_scale, snap, solve_scale
from edge_lsla.surgery.topology import Topology

Array = NDArray[Any]
# Rounding of a score S moves its weight by |S| eps, and some ten roundings add up.
ROUNDINGS = 16
WINDOWS = 4  # compared at each batch size


@dataclass(frozen=True)
class Attention:
    """A proved attention: the operator's inputs and attributes, and the factor that its query needs first."""

    where: str
    x: View
    query: View
    y: View
    num_heads: int
    window: int
    query_gain: float
    scale_weight: Array
    scale_bias: Array
    inner_bias: Array
    outer_bias: Array
    max_error: float


def prove(topology: Topology, candidate: Candidate) -> Attention | Refusal:
    """Try the candidate's choices of x, query and y until one equals the operator; the refusal tells how far it got."""
    furthest, reason = -1, ""
    for x in candidate.x:
        for query in candidate.query:
            if query.map != x.map:
                continue
            outcome = _try(topology, candidate, x, query)
            if isinstance(outcome, Attention):
                return outcome
            stage, why = outcome
            if stage > furthest:
                furthest, reason = stage, why
    return Refusal(candidate.where, reason)


def _try(topology: Topology, candidate: Candidate, x: View, query: View) -> Attention | tuple[int, str]:
    """Return the attention, or how many steps were passed and why the next was not."""
    inputs = {X: x, QUERY: query}
    inner_part = cut(topology, inputs, [candidate.scores])
    if isinstance(inner_part, Open):
        return 0, f"the scores depend on another tensor than x and query: {inner_part.outside}"
    results: list[View] = []
    outside = ""
    for view in candidate.y:
        part = cut(topology, inputs, [view.tensor])
        if isinstance(part, Open):
            outside = outside or part.outside
        elif view.map == x.map and view.tensor not in (x.tensor, query.tensor):
            results.append(view)
    if not results:
        return 1, f"the result depends on another tensor than x and query: {outside}"
    model = cut(topology, inputs, [candidate.scores, *(view.tensor for view in results)])
    if isinstance(model, Open):
        return 1, f"the attention depends on another tensor than x and query: {model.outside}"
    frozen = topology.batches[0] if topology.batches[0] == topology.batches[1] else None
    probe = Probe(model, tuple(results), candidate.num_heads, candidate.window, frozen)
    if probe.dtype not in (np.float16, np.float32, np.float64):
        return 1, f"tensors of type {probe.dtype} are not supported"
    inner = recover_inner(probe)
    if isinstance(inner, str):
        return 2, inner
    scale = measure_scale(probe)
    if isinstance(scale, str):
        return 3, scale
    outers = recover_outer(probe)
    constants = float_constants(model)
    half = probe.dtype == np.float16
    best = (4, next((outer for outer in outers if isinstance(outer, str)), "the numbers are not the operator's"))
    # The factor 1 / sqrt(d) of the formula may have been merged into the query's weights.
    for gain in (1 / math.sqrt(probe.head_width), 1.0):
        weight, bias = (snap(values, constants, 2e-2 if half else 2e-5) for values in solve_scale(scale, gain))
        if not np.isfinite(weight).all():
            continue
        for index, outer in enumerate(outers):
            if isinstance(outer, str):
                continue
            dtype = probe.dtype
            attention = Attention(
                where=candidate.where,
                x=x,
                query=query,
                y=results[index],
                num_heads=candidate.num_heads,
                window=candidate.window,
                query_gain=gain * math.sqrt(probe.head_width),
                scale_weight=weight.astype(dtype),
                scale_bias=bias.astype(dtype),
                inner_bias=inner.astype(dtype),
                outer_bias=outer.astype(dtype),
                max_error=0.0,
            )
            error, allowed = measure_error(probe, index, attention)
            if error <= allowed:
                return dataclasses.replace(attention, max_error=error)
            if best[0] < 5:
                best = (5, f"its numbers differ from the operator's formula by {error:.2g}, {allowed:.1g} is allowed")
    return best


def measure_error(probe: Probe, index: int, attention: Attention) -> tuple[float, float]:
    """Compare result `index` with the formula at two batch sizes.

    Returns:
        The largest |difference| relative to max(1, max|y|), and how much rounding explains.
    """
    epsilon = float(np.finfo(probe.dtype).eps)
    worst, allowed = 0.0, 0.0
    for seed, batch in enumerate((1, 3)):
        shape = (probe.batch or batch, *probe.map)
        generator = np.random.default_rng(seed)
        x, query = (generator.standard_normal(shape).astype(probe.dtype) for _ in range(2))
        scores, results = probe.maps(x, query)
        # Windows are independent: a few of the last image, where a wrong stride shows first, stand for all here;
        # `fuse` compares the whole graph.
        chosen = generator.permutation(probe.windows_per_image)[:WINDOWS]
        windows = [_pick(array[-1], chosen, attention.window) for array in (x, query, results[index])]
        expected = reference(
            windows[0],
            windows[1].astype(np.float64) * attention.query_gain,
            attention.scale_weight,
            attention.scale_bias,
            attention.inner_bias,
            attention.outer_bias,
            num_heads=attention.num_heads,
            window=attention.window,
        )
        difference = float(np.abs(windows[2].astype(np.float64) - expected).max())
        if not np.isfinite(difference):
            return math.inf, 0.0
        worst = max(worst, difference / max(1.0, float(np.abs(expected).max())))
        allowed = max(allowed, ROUNDINGS * epsilon * (1.0 + float(np.abs(scores.astype(np.float64)).max())))
    return worst, allowed


def _pick(image: Array, chosen: Array, window: int) -> Array:
    """Take windows of an image [H, W, C] by number, row by row: [k, w, w, C]."""
    height, width, channels = image.shape
    pieces = image.reshape(height // window, window, width // window, window, channels).swapaxes(1, 2)
    picked: Array = pieces.reshape(-1, window, window, channels)[chosen]
    return picked
