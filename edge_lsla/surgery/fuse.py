"""The verb `fuse`: every light self-limited attention of a graph becomes one node of domain `edge_lsla`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import onnx
import onnx.inliner
from onnx import ModelProto, helper

from edge_lsla.errors import GraphError, UsageError
from edge_lsla.operator import NAME, QUANTISED_NAME, RESIDUAL_NAME
from edge_lsla.surgery.compare import TOLERANCE_INT8, compare
from edge_lsla.surgery.function import OLDEST_OPSET, drop_function, is_attention, is_operator, operator_functions
from edge_lsla.surgery.match import Refusal, find_candidates
from edge_lsla.surgery.quantised import Quantised, find_quantised
from edge_lsla.surgery.residual import Residual, find_residual
from edge_lsla.surgery.rewrite import write_attentions, write_quantised, write_residuals
from edge_lsla.surgery.topology import Topology, survey
from edge_lsla.surgery.verify import Attention, prove

LEVELS = ("attention", "residual")


@dataclass(frozen=True)
class FusedAttention:
    """One node of the result: its name, heads, window, feature map (H, W) and operator."""

    name: str
    num_heads: int
    window: int
    feature_map: tuple[int, int]
    op: str = NAME


@dataclass(frozen=True)
class FuseReport:
    """What was done.

    Attributes:
        fused: the operators' nodes in the result.
        refusals: what was left as it is: a softmax, or at a further level a node, each with the reason.
        nodes_before, nodes_after: of the whole graph.
        max_error: the largest of the numeric proofs of single nodes, relative to max(1, max|y|).
        graph_error: by how much the whole graph's outputs moved on a random input, relative to max(1, max|logits|).
    """

    fused: tuple[FusedAttention, ...]
    refusals: tuple[Refusal, ...]
    nodes_before: int
    nodes_after: int
    max_error: float
    graph_error: float


def fuse(
    model: ModelProto, level: str = "attention", channels: Collection[int] | None = None
) -> tuple[ModelProto, FuseReport]:
    """Replace each attention by one node, found by structure and proved by numbers; the model given is not changed.

    The result carries the operators' local functions, passes `onnx.checker` and runs in ONNX Runtime; its outputs were
    compared with the original's. What does not fit stays as it is, each with a reason in the report.

    Args:
        model: with attentions in standard operators; at level "residual" also what level "attention" made of it.
        level: "attention" for `LslaAttention` nodes; "residual" merges them with LayerNorm, query projection and
            residual Add into `LslaResidualAttention` nodes, where these are around them.
        channels: at level "residual", merge attentions of these widths only; all if None.

    Raises:
        UsageError: unknown level.
        GraphError: already fused, opset too old, the graph does not run, or it has no such attention (with reasons).
        AccuracyError: the whole graph's outputs changed.
    """
    if level not in LEVELS:
        raise UsageError(f"unknown level {level!r}", "level", f"use one of {', '.join(LEVELS)}")
    kinds = Counter(str(node.op_type) for node in model.graph.node if is_operator(node))
    if kinds and (level == "attention" or NAME not in kinds):
        counts = " and ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise GraphError(f"the graph is already fused, it has {counts} nodes", remedy="use it as it is")
    source = _prepare(model)
    steps = [] if kinds else [_fuse_attentions(source)]
    if level == "residual":
        steps.append(_merge_residuals(steps[-1].model if steps else source, channels))
    return _finish(model, source, steps)


def fuse_quantised(model: ModelProto) -> tuple[ModelProto, FuseReport]:
    """Turn DequantizeLinear -> `LslaAttention` -> QuantizeLinear into `QLslaAttention`; the model given is not changed.

    Only symmetric int8 with one scale a tensor fits, as Q/DQ for TensorRT has it. What does not fit stays as it is,
    each with a reason in the report.

    Raises:
        GraphError: the graph has no `LslaAttention` node, does not run, or its opset is too old.
        AccuracyError: the whole graph's outputs changed.
    """
    if not any(is_attention(node) for node in model.graph.node):
        raise GraphError(f"the graph has no {NAME} node", remedy="fuse it, then calibrate it with int8 attention")
    source = _prepare(model)
    return _finish(model, source, [_quantise(source)], TOLERANCE_INT8)


@dataclass(frozen=True)
class _Step:
    """One pass over a graph: its result, the operators' nodes in it, and what its proofs said."""

    model: ModelProto
    nodes: tuple[FusedAttention, ...]
    refusals: tuple[Refusal, ...]
    errors: tuple[float, ...]


def _prepare(model: ModelProto) -> ModelProto:
    """Return a copy without local functions but those of the operators it uses, whether it had them or not."""
    source = drop_function(model)
    if source.functions:
        source = onnx.inliner.inline_local_functions(source)
    opset = next((entry.version for entry in source.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise GraphError("the graph's opset is too old", opset, f"export with opset {OLDEST_OPSET} or later, best 20")
    source.functions.extend(operator_functions(source))
    return source


def _finish(
    model: ModelProto, source: ModelProto, steps: list[_Step], tolerance: float | None = None
) -> tuple[ModelProto, FuseReport]:
    fused = steps[-1].model
    graph_error = compare(source, fused, tolerance)
    return fused, FuseReport(
        fused=steps[-1].nodes,
        refusals=tuple(refusal for step in steps for refusal in step.refusals),
        nodes_before=len(model.graph.node),
        nodes_after=len(fused.graph.node),
        max_error=max((error for step in steps for error in step.errors), default=0.0),
        graph_error=graph_error,
    )


def _fuse_attentions(source: ModelProto) -> _Step:
    topology = survey(source)
    attentions: list[Attention] = []
    refusals: list[Refusal] = []
    for candidate in find_candidates(topology):
        outcome = candidate if isinstance(candidate, Refusal) else prove(topology, candidate)
        if isinstance(outcome, Refusal):
            refusals.append(outcome)
        else:
            attentions.append(outcome)
    if not attentions:
        reasons = "; ".join(f"{refusal.where}: {refusal.reason}" for refusal in refusals)
        raise GraphError(
            "no light self-limited attention was found in the graph",
            reasons or "it has no softmax that leads to a matrix product",
            "give the ONNX of a ViT-LSLA",
        )
    names = [f"lsla_attention_{index}" for index in range(len(attentions))]
    fused = write_attentions(source, attentions, names)
    nodes = tuple(FusedAttention(name, a.num_heads, a.window, a.x.map[:2]) for name, a in zip(names, attentions))
    return _Step(fused, nodes, tuple(refusals), tuple(attention.max_error for attention in attentions))


def _merge_residuals(source: ModelProto, channels: Collection[int] | None) -> _Step:
    topology = survey(source)
    outcomes = [find_residual(topology, node, channels) for node in source.graph.node if is_attention(node)]
    found = [outcome for outcome in outcomes if isinstance(outcome, Residual)]
    merged = write_residuals(source, found) if found else source
    nodes = _nodes(topology, {residual.attention for residual in found}, RESIDUAL_NAME)
    refusals = tuple(outcome for outcome in outcomes if isinstance(outcome, Refusal))
    return _Step(merged, nodes, refusals, tuple(residual.max_error for residual in found))


def _quantise(source: ModelProto) -> _Step:
    topology = survey(source)
    outcomes = [find_quantised(topology, node) for node in source.graph.node if is_attention(node)]
    found = [outcome for outcome in outcomes if isinstance(outcome, Quantised)]
    quantised = write_quantised(source, found) if found else source
    nodes = _nodes(topology, {entry.attention for entry in found}, QUANTISED_NAME)
    return _Step(quantised, nodes, tuple(outcome for outcome in outcomes if isinstance(outcome, Refusal)), ())


def _nodes(topology: Topology, changed: set[str], op: str) -> tuple[FusedAttention, ...]:
    """Describe the operators' nodes of a graph; those that make a tensor of `changed` have become `op`."""
    nodes = []
    for node in filter(is_operator, topology.model.graph.node):
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        output = node.output[0]
        _, height, width, _ = topology.shapes[output][0]
        kind = op if output in changed else str(node.op_type)
        nodes.append(FusedAttention(node.name or output, values["num_heads"], values["window"], (height, width), kind))
    return tuple(nodes)
