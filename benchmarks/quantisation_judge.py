"""What a quantised graph is worth: coverage, and logits beside those of float on pictures that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from calibration.paired import difference
from calibration.points import find_constants
from calibration.splits import clusters_of
from edge_lsla.data.folders import load_split
from edge_lsla.description import Description
from edge_lsla.errors import DatasetError
from edge_lsla.preprocessing import to_tensor

BATCH = 10
INTEGER_KERNELS = frozenset({"QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "ConvInteger",
                             "MatMulInteger", "DynamicQuantizeMatMul"})  # fmt: skip


@dataclass
class Judged:
    """Pictures, and what float says of them."""

    images: np.ndarray
    labels: np.ndarray
    clusters: Sequence[str]
    expected: np.ndarray = field(default_factory=lambda: np.empty(0))


def covered(model: onnx.ModelProto) -> set[str]:
    """Name the nodes whose activation is dequantised and whose weight is a dequantised constant."""
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    constants = find_constants(graph)

    def source(tensor: str) -> str:
        while tensor in makers and makers[tensor].op_type in ("Transpose", "Reshape", "Identity"):
            tensor = makers[tensor].input[0]
        return tensor

    def dequantised(tensor: str) -> str | None:
        node = makers.get(source(tensor))
        return source(node.input[0]) if node is not None and node.op_type == "DequantizeLinear" else None

    found = set()
    for node in graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm") or dequantised(node.input[0]) is None:
            continue
        weight = dequantised(node.input[1])
        if weight in makers and makers[weight].op_type == "QuantizeLinear":  # a float weight, quantised in the graph
            weight = source(makers[weight].input[0])
        if weight is not None and weight in constants:
            found.add(node.name)
    return found


def session(graph: Path, fusions: bool, optimised: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not fusions:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def logits(running: ort.InferenceSession, images: np.ndarray) -> np.ndarray:
    entry = running.get_inputs()[0]
    size = entry.shape[0] if isinstance(entry.shape[0], int) else BATCH
    parts = [running.run(["logits"], {entry.name: images[at : at + size]})[0] for at in range(0, len(images), size)]
    return np.concatenate(parts).astype(np.float64)


def right(found: np.ndarray, judged: Judged) -> np.ndarray:
    return found.argmax(1) == judged.labels


def judge(
    graph: Path, fusions: bool, sets: dict[str, Judged], work: dict[str, int]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The logits; coverage, and for each set of pictures how they differ from float.

    `work` is the multiply-adds of each layer. `integer_kernels` counts what ONNX Runtime computes with integers.
    """
    inside = covered(onnx.load(graph)) & set(work)
    row: dict[str, Any] = {
        "layers_int8": len(inside),
        "multiply_adds_int8": round(100 * sum(work[name] for name in inside) / sum(work.values()), 2),
    }
    optimised = graph.with_name("optimised.onnx")
    running = session(graph, fusions, optimised)
    kernels = [node for node in onnx.load(optimised).graph.node if node.op_type in INTEGER_KERNELS]
    row["integer_kernels"] = len(kernels) if fusions else None
    found = {name: logits(running, one.images) for name, one in sets.items()}
    for name, one in sets.items():
        noise = np.square(found[name] - one.expected).sum()
        row[name] = {
            "top1": round(100 * float(right(found[name], one).mean()), 2),
            "paired": difference(right(one.expected, one), right(found[name], one), one.clusters).to_dict(),
            "agreement": round(100 * float((found[name].argmax(1) == one.expected.argmax(1)).mean()), 2),
            "sqnr_db": round(float(10 * np.log10(np.square(one.expected).sum() / noise)), 2),
        }
    return found, row


def load_sets(places: dict[str, tuple[Path, str]], images: int, description: Description) -> dict[str, Judged]:
    """Pictures of some splits, at most so many of each, evenly spread."""
    sets = {}
    for name, (folder, split) in places.items():
        try:
            chosen = load_split(folder, split).ordered_as(description.labels)
        except DatasetError as error:
            print(f"not judged on {name}: {error}")
            continue
        kept = np.unique(np.linspace(0, len(chosen) - 1, min(images, len(chosen))).astype(int))
        paths = [chosen.paths[i] for i in kept]
        tensors = np.stack([to_tensor(path, description.preprocessing) for path in paths])
        sets[name] = Judged(tensors, np.array(chosen.labels)[kept], clusters_of(paths)[0])
    return sets
