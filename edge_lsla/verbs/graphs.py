"""The verbs `export` and `fuse`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_lsla.atomic import check_output, write_bytes
from edge_lsla.console import progress, say
from edge_lsla.errors import UsageError
from edge_lsla.sources import OPERATORS, fuse_graph
from edge_lsla.verbs.options import KeyMap, Labels, ModelName


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Weights: .safetensors, or a state dict.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    model: ModelName = None,
    key_map: KeyMap = None,
    labels: Labels = None,
    opset: Annotated[int, typer.Option(help="ONNX opset.")] = 20,
    tolerance: Annotated[float, typer.Option(help="Largest difference from PyTorch, relative to the logits.")] = 1e-4,
) -> dict[str, Any]:
    """Export a checkpoint to ONNX, and refuse when the numbers differ from PyTorch's."""
    from edge_lsla.export.onnx_export import ExportSettings, export_onnx
    from edge_lsla.model.checkpoint import open_checkpoint

    settings = ExportSettings(opset=opset, tolerance=tolerance)
    check_output(output)
    loaded = open_checkpoint(checkpoint, model, key_map, labels)
    with progress("exporting"):
        report = export_onnx(loaded.model, loaded.image_size, output, settings, description=loaded.description)
    say().print(
        f"{output}: opset {report.opset}, {report.nodes} nodes, {report.bytes / 1e6:.2f} MB, "
        f"largest difference from PyTorch {report.max_abs_difference:.2g}"
    )
    return {"output": str(output), **dataclasses.asdict(report)}


def fuse(
    model: Annotated[Path, typer.Argument(help="An ONNX file with LSLA attention in standard operators.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The fused ONNX file to write.")],
    level: Annotated[
        str,
        typer.Option(
            help="attention; residual: with its LayerNorm, projection and addition; "
            "int8: of a file that `calibrate --attention int8` wrote."
        ),
    ] = "attention",
    precision: Annotated[str, typer.Option(help="fp32, or fp16: types written into the graph, for GPUs.")] = "fp32",
    for_plugin: Annotated[
        bool,
        typer.Option("--for-plugin", help="Leave the operators' function bodies out, as TensorRT's parser needs it."),
    ] = False,
) -> dict[str, Any]:
    """Replace every LSLA attention of an ONNX graph by one operator, each proved by numbers."""
    from edge_lsla.surgery.function import drop_function, is_operator
    from edge_lsla.surgery.half import to_half
    from edge_lsla.surgery.onnx_file import read_onnx
    from plugins.needed import needed
    from plugins.variants import shipped

    if level not in OPERATORS:
        raise UsageError("there is no such level", f"--level {level}", "use attention, residual or int8")
    if precision not in ("fp32", "fp16"):
        raise UsageError("a graph's floats are fp32 or fp16", f"--precision {precision}", "int8: see `calibrate`")
    check_output(output)
    graph = read_onnx(model)
    result: dict[str, Any] = {"output": str(output)}
    if level == "attention" and (precision == "fp16" or for_plugin) and any(map(is_operator, graph.graph.node)):
        fused = graph  # only its types or functions are to change
    else:
        fused, report = fuse_graph(graph, model, level)
        result |= {
            "fused": len(report.fused),
            "refused": [{"where": r.where, "reason": r.reason} for r in report.refusals],
            "nodes_before": report.nodes_before,
            "nodes_after": report.nodes_after,
            "max_error": report.max_error,
        }
    if precision == "fp16":
        fused, halves = to_half(fused)
        result["float32"] = list(halves.float32)
        say().print(f"fp16: {len(halves.half)} layers, {len(halves.float32)} stay in float32, {halves.casts} casts")
    result["operators"] = dict(Counter(node.op_type for node in fused.graph.node if is_operator(node)))
    if for_plugin:
        fused = drop_function(fused)
        kernels = [variant.name for variant in needed(fused)]
        more = [name for name in kernels if name not in {variant.name for variant in shipped()}]
        say().print(f"kernels: {', '.join(kernels)}")
        if more:
            say().print(f"not shipped: build the plugin with --variants {','.join(more)}", style="yellow")
        result |= {"kernels": kernels, "not_shipped": more}
    write_bytes(output, fused.SerializeToString(deterministic=True))
    say().print(f"written: {output}")
    return result
