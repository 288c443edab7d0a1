"""Recovering the relative position tables, bit for bit, in whatever form the exporter left them.

Questions whose answer is the bias itself work for a Gather, a GatherND, a folded constant or any rearrangement of one:
with a query of zero the scores are the inner bias; where the softmax gives a key exactly zero, its weight is the outer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.operator import relative_index
from edge_lsla.surgery.probe import Probe

Array = NDArray[Any]


def expand_table(table: Array, window: int) -> Array:
    """Look a table [(2w-1)^2, heads] up as [heads, T, T]."""
    expanded: Array = table[relative_index(window)].transpose(2, 0, 1)
    return expanded


def table_from_expansion(expansion: Array, window: int) -> Array | None:
    """Return the table [(2w-1)^2, heads] that expands to exactly `expansion` [heads, T, T]; None if there is none."""
    index = relative_index(window)
    table = np.zeros(((2 * window - 1) ** 2, len(expansion)), expansion.dtype)
    table[index] = expansion.transpose(1, 2, 0)
    return table if np.array_equal(expand_table(table, window), expansion) else None


def recover_inner(probe: Probe) -> Array | str:
    """Return the inner table [(2w-1)^2, heads], zeros where none is added, or why there is no such table."""
    generator = np.random.default_rng(1)
    count = 2 * probe.windows_per_image * (probe.batch or 1)
    x = generator.standard_normal(probe.zeros(count).shape).astype(np.float32)
    scores, _ = probe.windows(x, probe.zeros(count))
    if not np.isfinite(scores).all():
        return "the scores are masked"
    if not (scores == scores[:1]).all():
        return "what is added to the scores differs from window to window or depends on the input"
    table = table_from_expansion(scores[0], probe.window)
    return "what is added to the scores is not a table of relative positions" if table is None else table


def recover_outer(probe: Probe) -> list[Array | str]:
    """Return, for each possible y, the outer table [(2w-1)^2, heads], zeros where none is added, or why there is none.

    Channel k carries token j_k; a query that prefers the last channel by far gives every such token a softmax of
    exactly zero, so that channel k of y_i is the outer bias of (i, j_k) and nothing else.
    """
    width, tokens = probe.head_width, probe.tokens
    if width < 2:
        return ["heads of one channel cannot be recognised"] * len(probe.results)
    chunk = min(width - 1, tokens - 1)
    starts = list(range(0, tokens, chunk))
    x, query = probe.zeros(len(starts)), probe.zeros(len(starts))
    x[..., -1] = 1
    for row, start in enumerate(starts):
        for channel, token in enumerate(range(start, min(start + chunk, tokens))):
            x[row, :, token, :] = 0
            x[row, :, token, channel] = 1
    query[..., :-1] = -1
    query[..., -1] = 1
    query *= 2e4 if probe.dtype == np.float16 else 1e6
    _, results = probe.windows(x, query)
    return [_outer_table(result, starts, chunk, probe) for result in results]


def _outer_table(result: Array, starts: list[int], chunk: int, probe: Probe) -> Array | str:
    expansion = np.zeros((probe.num_heads, probe.tokens, probe.tokens), result.dtype)
    for row, start in enumerate(starts):
        stop = min(start + chunk, probe.tokens)
        expansion[:, :, start:stop] = result[row, :, :, : stop - start]
    table = table_from_expansion(expansion, probe.window) if np.isfinite(expansion).all() else None
    return "what is added after the softmax is not a table of relative positions" if table is None else table
