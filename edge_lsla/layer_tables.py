"""Tables of layers, operators and times, made with rich; names in them are a file's, and shown by `visible`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edge_lsla.console import visible
from edge_lsla.inspecting import ArtifactContents
from edge_lsla.layer_times import Measured

SHOWN = 20  # of the slowest layers


def contents(artifacts: Sequence[ArtifactContents]) -> RenderableType:
    """Lay out what is in each artifact: graphs, then engines, then what cannot be said."""
    parts: list[RenderableType] = []
    graphs = [one for one in artifacts if one.graph is not None]
    if graphs:
        parts += [_graphs(graphs), operators(graphs)]
    engines = [one for one in artifacts if one.artifact.kind == "engine"]
    if engines:
        parts.append(_engines(engines))
    parts += [Text(visible(f"{one.artifact.name}: {note}"), style="yellow") for one in artifacts for note in one.notes]
    return Group(*parts)


def operators(artifacts: Sequence[ArtifactContents]) -> RenderableType:
    """Lay out the nodes of each graph by operator."""
    counts = {one.artifact.name: one.graph.operators for one in artifacts if one.graph is not None}
    table = _table("nodes by operator", "operator", *counts)
    every = {name: max(count.get(name, 0) for count in counts.values()) for count in counts.values() for name in count}
    for name in sorted(every, key=lambda name: (-every[name], name)):
        table.add_row(visible(name), *(str(count.get(name, "-")) for count in counts.values()))
    return table


def layers(artifacts: Sequence[ArtifactContents]) -> RenderableType:
    """Lay out the precision of each layer, side by side; then the layers of engines that were opened."""
    parts: list[RenderableType] = []
    known = {one.artifact.name: one.precisions for one in artifacts if one.precisions}
    if known:
        table = _table("precision by layer", "layer", *known)
        for layer in dict.fromkeys(layer for precisions in known.values() for layer in precisions):
            table.add_row(visible(layer), *(precisions.get(layer, "-") for precisions in known.values()))
        parts.append(table)
    silent = [one.artifact.name for one in artifacts if not one.precisions]
    if silent:
        parts.append(Text(visible(f"the passport lists no layers for {', '.join(silent)}"), style="dim"))
    for one in artifacts:
        if one.engine_layers:
            columns = ("layer", "type", "precision", "plugin", "output", "tactic")
            table = _table(f"{one.artifact.name}: layers as TensorRT tells them", *columns)
            for told in one.engine_layers:
                output = told.outputs[0] if told.outputs else ""
                row = (told.name, told.kind, told.precision, told.plugin, output, told.tactic)
                table.add_row(*(visible(word) for word in row))
            parts.append(table)
    return Group(*parts)


def times(measured: Measured) -> RenderableType:
    """Lay out the slowest layers, and the time by precision."""
    total = measured.total_ms
    table = _table(
        f"{measured.artifact}: {total:.3f} ms in {len(measured.layers)} layers; {measured.inference_ms:.3f} ms an "
        f"inference of {measured.batch} when not profiled; medians of {measured.repeats}",
        "layer", "operator", "precision", "ms", "%", "kernels",
    )  # fmt: skip
    for column in table.columns[3:]:
        column.justify = "right"
    for layer in measured.slowest[:SHOWN]:
        share = 100 * layer.milliseconds / total if total else 0.0
        style = "" if layer.nodes else "dim"
        figures = (f"{layer.milliseconds:.3f}", f"{share:.1f}", str(layer.calls))
        names = (visible(word) for word in (layer.name, layer.kind, layer.precision))
        table.add_row(*names, *figures, style=style)
    rest = measured.slowest[SHOWN:]
    if rest:
        taken = sum(layer.milliseconds for layer in rest)
        table.add_row(f"{len(rest)} others", "", "", f"{taken:.3f}", f"{100 * taken / total if total else 0:.1f}", "")
    by_precision: dict[str, float] = {}
    for layer in measured.slowest:
        by_precision[layer.precision] = by_precision.get(layer.precision, 0.0) + layer.milliseconds
    split = ", ".join(f"{visible(name) or 'unknown'} {value:.3f} ms" for name, value in by_precision.items())
    own = [layer for layer in measured.layers if not layer.nodes]
    lines = [f"by precision: {split}"]
    if own:
        taken = sum(layer.milliseconds for layer in own)
        lines.append(f"{len(own)} steps of the runtime's own, {taken:.3f} ms, belong to no node of the graph")
    return Group(table, *lines)


def _graphs(artifacts: Sequence[ArtifactContents]) -> RenderableType:
    table = _table("graphs", "name", "nodes", "attention", "weights", "layers")
    for one in artifacts:
        graph = one.graph
        assert graph is not None  # the caller chose them
        named = [f"{len(names)} {operator}" for operator, names in graph.attention_nodes.items()]
        named += [f"{count} nodes in the body of {name.rpartition(':')[2]}" for name, count in graph.functions.items()]
        attention = f"{graph.attention}: {', '.join(named)}" if named else graph.attention
        row = (
            one.artifact.name,
            str(graph.nodes),
            attention,
            _weights(graph.weights),
            count_precisions(one.precisions),
        )
        table.add_row(*(visible(word) for word in row))
    return table


def _engines(artifacts: Sequence[ArtifactContents]) -> RenderableType:
    table = _table("engines", "name", "targets", "batches", "GPU memory", "made by", "layers")
    for one in artifacts:
        artifact = one.artifact
        batches = ", ".join(f"{low} to {high}, best {best}" for low, best, high in one.profiles)
        memory = f"{one.memory_bytes / 1e6:.2f} MB" if one.memory_bytes is not None else "-"
        version = artifact.versions.get(artifact.backend, "-")
        made = ", ".join(artifact.targets) or "any"
        counts = count_precisions(one.precisions)
        row = (artifact.name, made, batches or "-", memory, f"{artifact.backend} {version}", counts)
        table.add_row(*(visible(word) for word in row))
    return table


def _weights(weights: dict[str, dict[str, int]]) -> str:
    return ", ".join(
        f"{name} {total['bytes'] / 1e6:.2f} MB" for name, total in weights.items() if total["bytes"] >= 5000
    )


def count_precisions(precisions: Mapping[str, str] | None) -> str:
    """Return how many layers have each precision, the commonest first: "26 int8, 7 fp16"."""
    counts = sorted(Counter((precisions or {}).values()).items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{count} {precision}" for precision, count in counts) or "-"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(visible(title)), title_justify="left")
    for column in columns:
        table.add_column(visible(column), overflow="fold")
    return table
