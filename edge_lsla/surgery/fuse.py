"""The verb `fuse`: every light self-limited attention of a graph becomes one `edge_lsla::LslaAttention` node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import ModelProto, helper

from edge_lsla.errors import AccuracyError, GraphError
from edge_lsla.operator import DOMAIN, NAME, VERSION
from edge_lsla.surgery.cut import View
from edge_lsla.surgery.function import OLDEST_OPSET, attention_function, is_attention
from edge_lsla.surgery.match import Refusal, find_candidates
from edge_lsla.surgery.topology import random_inputs, session, survey
from edge_lsla.surgery.verify import Attention, prove

OLDEST_IR = 10
TOLERANCE = {np.dtype(np.float16): 1e-2}  # of the whole graph; ORT rounds to float16 between fewer operators once fused
TOLERANCE_FLOAT = 1e-4


@dataclass(frozen=True)
class FusedAttention:
    """One node that was written: its name, heads, window and feature map (H, W)."""

    name: str
    num_heads: int
    window: int
    feature_map: tuple[int, int]


@dataclass(frozen=True)
class FuseReport:
    """What `fuse` did; `max_error` is the largest of the numeric proofs, relative to max(1, max|y|)."""

    fused: tuple[FusedAttention, ...]
    refusals: tuple[Refusal, ...]
    nodes_before: int
    nodes_after: int
    max_error: float


def fuse(model: ModelProto) -> tuple[ModelProto, FuseReport]:
    """Replace each attention by one node, found by structure and proved by numbers; the model given is not changed.

    The result carries the operator's local function, passes `onnx.checker` and runs in ONNX Runtime; its outputs were
    compared with the original's. Attentions that do not fit stay as they are, each with a reason in the report.

    Raises:
        GraphError: already fused, opset too old, the graph does not run, or it has no such attention (with reasons).
        AccuracyError: the whole graph's outputs changed.
    """
    count = sum(is_attention(node) for node in model.graph.node)
    if count:
        raise GraphError(f"the graph is already fused, it has {count} {NAME} nodes", remedy="use it as it is")
    source = ModelProto()
    source.CopyFrom(model)
    if source.functions:
        source = onnx.inliner.inline_local_functions(source)
    opset = next((entry.version for entry in source.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise GraphError("the graph's opset is too old", opset, f"export with opset {OLDEST_OPSET} or later, best 20")
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
    fused = _rewrite(source, attentions, opset)
    _compare(source, fused)
    nodes = tuple(
        FusedAttention(_name(index), a.num_heads, a.window, a.x.map[:2]) for index, a in enumerate(attentions)
    )
    report = FuseReport(
        fused=nodes,
        refusals=tuple(refusals),
        nodes_before=len(model.graph.node),
        nodes_after=len(fused.graph.node),
        max_error=max(attention.max_error for attention in attentions),
    )
    return fused, report


def _name(index: int) -> str:
    return f"lsla_attention_{index}"


def _rewrite(source: ModelProto, attentions: list[Attention], opset: int) -> ModelProto:
    graph = gs.import_onnx(source)
    for index, attention in enumerate(attentions):
        _replace(graph, attention, _name(index))
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    fused: ModelProto = gs.export_onnx(graph, do_type_check=False)
    fused.ir_version = max(OLDEST_IR, source.ir_version)
    fused.producer_name, fused.producer_version = source.producer_name, source.producer_version
    properties = {entry.key: entry.value for entry in source.metadata_props} | {"edge_lsla.stage": "fuse"}
    helper.set_model_props(fused, properties)
    imports = {entry.domain: entry.version for entry in source.opset_import} | {DOMAIN: VERSION}
    del fused.opset_import[:]
    fused.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(imports.items()))
    fused.functions.append(attention_function(opset))
    try:
        fused = onnx.shape_inference.infer_shapes(fused)
        onnx.checker.check_model(fused, full_check=True)
    except Exception as error:  # the checker and shape inference have classes of their own, defined in C++
        raise GraphError(
            "the fused graph is not valid ONNX", str(error).splitlines()[0][:200], "report this"
        ) from error
    return fused


def _replace(graph: Any, attention: Attention, name: str) -> None:
    """Put the node where y was made; cleanup removes what nothing reads any more."""
    tensors = graph.tensors()
    batch = graph.inputs[0].shape[0] if graph.inputs else "batch"
    dtype = attention.inner_bias.dtype

    def as_map(view: View, label: str) -> Any:
        tensor = tensors[view.tensor]
        if view.is_map:
            tensor.dtype, tensor.shape = dtype, (batch, *view.map)
            return tensor
        reshaped = gs.Variable(f"{name}.{label}", dtype, (batch, *view.map))
        shape = gs.Constant(f"{name}.{label}_shape", np.array((-1, *view.map), np.int64))
        graph.nodes.append(gs.Node("Reshape", f"{name}.{label}_reshape", {}, [tensor, shape], [reshaped]))
        return reshaped

    x, query = as_map(attention.x, "x"), as_map(attention.query, "query")
    if abs(attention.query_gain - 1) > 1e-9:
        gained = gs.Variable(f"{name}.query_scaled", dtype, (batch, *attention.x.map))
        gain = gs.Constant(f"{name}.query_gain", np.array(attention.query_gain, dtype))
        graph.nodes.append(gs.Node("Mul", f"{name}.query_scale", {}, [query, gain], [gained]))
        query = gained
    weights = [
        gs.Constant(f"{name}.{label}", np.ascontiguousarray(getattr(attention, label)))
        for label in ("scale_weight", "scale_bias", "inner_bias", "outer_bias")
    ]
    y = tensors[attention.y.tensor]
    y.inputs.clear()
    result = y
    if attention.y.is_map:
        y.dtype, y.shape = dtype, (batch, *attention.y.map)
    else:
        result = gs.Variable(f"{name}.y", dtype, (batch, *attention.y.map))
        shape = gs.Constant(f"{name}.y_shape", np.array(attention.y.shape, np.int64))
        graph.nodes.append(gs.Node("Reshape", f"{name}.y_reshape", {}, [result, shape], [y]))
    attributes = {
        "num_heads": attention.num_heads,
        "window": attention.window,
        "plugin_version": str(VERSION),
        "plugin_namespace": "",
    }
    graph.nodes.append(gs.Node(NAME, name, attributes, [x, query, *weights], [result], domain=DOMAIN))


def _compare(source: ModelProto, fused: ModelProto) -> None:
    """Run both graphs on the same random input and refuse if any output moved."""
    feed = random_inputs(source, batch=2, seed=3)
    before, after = (session(model).run(None, feed) for model in (source, fused))
    for value, old, new in zip(source.graph.output, before, after):
        difference = float(np.abs(old.astype(np.float64) - new.astype(np.float64)).max())
        relative = difference / max(1.0, float(np.abs(old).max()))
        allowed = TOLERANCE.get(old.dtype, TOLERANCE_FLOAT)
        if not relative <= allowed:  # written so that nan is refused too
            raise AccuracyError(
                f"fusion moved an output by {relative:.3g} of its largest value, {allowed:g} is allowed",
                value.name,
                "nothing was written; the graph may be too sensitive to rounding",
            )
