"""From a checkpoint or an ONNX file to the fused float32 graph that everything else is made from."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lsla.bundling import Source
from edge_lsla.console import progress, say
from edge_lsla.errors import DatasetError, GraphError, UsageError
from edge_lsla.operator import DOMAIN, NAME, QUANTISED_NAME, RESIDUAL_NAME

if TYPE_CHECKING:
    from onnx import ModelProto

    from edge_lsla.description import Description
    from edge_lsla.surgery.fuse import FuseReport

# What `fuse --level` makes.
OPERATORS = {"attention": NAME, "residual": RESIDUAL_NAME, "int8": QUANTISED_NAME}


def read_source(
    source: Path, model: str | None = None, key_map: Path | None = None, labels: Path | None = None
) -> Source:
    """Read a checkpoint (exporting it on the way) or an ONNX file, and fuse it.

    Raises:
        CheckpointError, GraphError: the file is not what it should be, or nothing in it could be fused.
        UsageError: it is a bundle, or no such model.
    """
    from edge_lsla.description import describe
    from edge_lsla.export.onnx_export import export_onnx
    from edge_lsla.model.checkpoint import file_sha256, open_checkpoint
    from edge_lsla.surgery.function import is_operator
    from edge_lsla.surgery.onnx_file import read_onnx

    digests = {}
    if source.suffix == ".onnx":
        graph = read_onnx(source)
        try:
            description = describe(graph, source, labels)
        except UsageError as error:  # of a setting that the graph decides, not the user
            raise GraphError(
                "the graph's image size cannot be used", f"{source}: {error.what}", "export it again"
            ) from error
        _check_graph(graph, source, description)
        digests["onnx"] = file_sha256(source)
    elif source.suffix == ".lsla":
        raise UsageError("a bundle is built from a checkpoint or an ONNX file", source, "give one of these")
    else:
        loaded = open_checkpoint(source, model, key_map, labels)
        description = loaded.description
        with tempfile.TemporaryDirectory() as folder, progress("exporting"):
            path = Path(folder) / "model.onnx"
            report = export_onnx(loaded.model, loaded.image_size, path, description=description)
            graph = read_onnx(path)
        digests["onnx"] = report.sha256
        say().print(f"exported: {report.nodes} nodes, difference from PyTorch {report.max_abs_difference:.2g}")
    if description.checkpoint:
        digests["checkpoint"] = description.checkpoint
    if not any(is_operator(node) for node in graph.graph.node):
        graph, _ = fuse_graph(graph, source)
    return Source(source, graph, description, digests)


def _check_graph(graph: ModelProto, path: Path, description: Description) -> None:
    """Refuse what would only be found out when the graph runs, in ONNX Runtime's words."""
    bodies = {(function.domain, function.name) for function in graph.functions}
    for node in graph.graph.node:
        if node.domain == DOMAIN and (node.domain, node.op_type) not in bodies:
            raise GraphError(
                f"the graph's {node.op_type} has no function body",
                f"{path}: node {node.name or 'without a name'}",
                "give the fused graph with its local functions (fuse without --for-plugin)",
            )
    check_input_size(graph, path, description)


def check_input_size(graph: ModelProto, path: Path, description: Description) -> None:
    """Refuse a graph that takes pictures of another size than its description says.

    Raises:
        GraphError: it does.
    """
    side = description.preprocessing.image_size
    for tensor in graph.graph.input:
        sizes = [size.dim_value for size in tensor.type.tensor_type.shape.dim[2:]]
        if tensor.name == "images" and sizes != [side, side]:
            written = " x ".join(str(size or "?") for size in sizes) or "no size"
            what = f"the graph takes pictures of {written} pixels and its description says {side}"
            raise GraphError(what, path, "export it again")


def with_class_names(source: Source, data: Path | None) -> Source:
    """Take class names from the data set where the model came without any and the counts agree."""
    from edge_lsla.data.folders import load_split

    labels = source.description.labels
    if labels != tuple(f"class {index}" for index in range(len(labels))):
        return source
    found: tuple[str, ...] = ()
    if data is not None:
        with contextlib.suppress(DatasetError):  # unlabelled pictures have no names to give
            found = load_split(data, "train").classes
    if len(found) != len(labels):
        say().print("no class names: they are called class 0, class 1, …; give --labels FILE", style="yellow")
        return source
    say().print(f"class names taken from {data}: {', '.join(found[:5])}, …; give --labels FILE if their order differs")
    return dataclasses.replace(source, description=dataclasses.replace(source.description, labels=found))


def fuse_graph(graph: ModelProto, path: Path, level: str = "attention") -> tuple[ModelProto, FuseReport]:
    """Fuse a graph and say what became of it.

    Args:
        graph: read from `path`.
        path: named in errors.
        level: a key of `OPERATORS`.

    Raises:
        GraphError: nothing could be fused.
    """
    from edge_lsla.surgery.fuse import fuse as run
    from edge_lsla.surgery.fuse import fuse_quantised

    try:
        with progress("fusing"):
            fused, report = fuse_quantised(graph) if level == "int8" else run(graph, level)
        made = sum(one.op == OPERATORS[level] for one in report.fused)
        if not made:
            reasons = "; ".join(f"{refusal.where}: {refusal.reason}" for refusal in report.refusals)
            raise GraphError(f"nothing became {OPERATORS[level]}", reasons, "choose another --level")
    except GraphError as error:  # it knows the graph, not the file
        raise GraphError(error.what, path if error.where is None else f"{path}: {error.where}", error.remedy) from error
    say().print(
        f"fused: {made} {OPERATORS[level]}, {report.nodes_before} -> {report.nodes_after} nodes, "
        f"largest error of their proofs {report.max_error:.2g}"
    )
    for refusal in report.refusals:
        say().print(f"left alone: {refusal.where}: {refusal.reason}", style="yellow")
    return fused, report
