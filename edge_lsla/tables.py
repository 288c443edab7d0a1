"""Tables for people, made with rich; names in them may be a file's, and are shown by `visible`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edge_lsla.bundle import Bundle
from edge_lsla.console import visible
from edge_lsla.doctor import Check
from edge_lsla.evaluation import Score
from edge_lsla.inspecting import examine_origin, layer_precisions
from edge_lsla.layer_tables import count_precisions


def passport(bundle: Bundle) -> RenderableType:
    """Lay out a bundle's manifest, and where it comes from."""
    manifest, origin = bundle.manifest, examine_origin(bundle)
    facts = Table(title=Text(visible(bundle.path)), show_header=False, title_justify="left")
    labels = ", ".join(manifest.labels[:8]) + (" …" if len(manifest.labels) > 8 else "")
    rows = {
        "model": manifest.name,
        "made": f"{manifest.created} by edge-lsla {manifest.edge_lsla}",
        "classes": f"{len(manifest.labels)}: {labels}",
        "input": f"{manifest.preprocessing.image_size} px, resize {manifest.preprocessing.resize}",
        "signature": origin.signature,
        "built here": "yes" if origin.built_here else "no",
        **{f"sha256 of {name}": digest for name, digest in manifest.digests.items()},
        **{f"calibration {name}": _brief(value) for name, value in (manifest.calibration or {}).items()},
        **{f"fidelity {name}": _plain(value) for name, value in manifest.fidelity.items() if name != "gate"},
        **_gate(manifest.fidelity.get("gate")),
        **{f"abstention {name}": _brief(value) for name, value in (manifest.abstention or {}).items()},
        "golden set": f"{manifest.golden.images} images, allowed differences "
        + ", ".join(f"{name} {value.max_abs:.3g}" for name, value in manifest.golden.tolerance.items()),
    }
    for name, text in rows.items():
        facts.add_row(visible(name), Text(visible(text), overflow="fold"))
    artifacts = Table(title="artifacts, preferred one first", title_justify="left")
    for column in ("name", "precision", "layers", "targets", "size"):
        artifacts.add_column(column, no_wrap=column == "name")
    for one in manifest.artifacts:
        layers, targets = count_precisions(layer_precisions(manifest, one)), ", ".join(one.targets) or "any"
        row = (one.name, one.precision, layers, targets, f"{one.size / 1e6:.2f} MB")
        artifacts.add_row(*(visible(word) for word in row))
    return Group(facts, artifacts, Text("SHA-256", style="italic"), *_digests(bundle))


def _digests(bundle: Bundle) -> list[Text]:
    """Return lines as `sha256sum` writes them: a table would cut digests in pieces that nobody can search for."""
    lines = [(bundle.file_sha256, f"file {bundle.path.name}")]
    lines += [(one.sha256, f"artifact {one.name}") for one in bundle.manifest.artifacts]
    lines.append((bundle.manifest.sha256(), "manifest"))
    return [Text(visible(f"{digest}  {what}")) for digest, what in lines]


def checks(found: Sequence[Check]) -> RenderableType:
    """Lay out the doctor's findings."""
    table = Table(title="doctor", title_justify="left")
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for check in found:
        word, style = ("ok", "green") if check.found else (("missing", "red") if check.needed else ("absent", "yellow"))
        mark = Text(word, style=style)
        remedy = "" if check.found else visible(check.remedy)
        table.add_row(mark, visible(check.name), visible(check.detail), remedy)
    return table


def accuracy(score: Score) -> RenderableType:
    """Lay out accuracy: the whole, each class, and the most frequent mistakes."""
    low, high = score.interval
    table = Table(
        title=f"top-1 {score.top1:.2f} % (95 % interval {low:.1f} to {high:.1f}), top-5 {score.top5:.2f} %, "
        f"{score.images} images, {score.skipped} skipped",
        title_justify="left",
    )
    for column in ("class", "right", "of", "top-1 %"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, (right, seen) in score.per_class.items():
        table.add_row(visible(name), str(right), str(seen), f"{100 * right / seen:.1f}")
    lines = [visible(f"{true} taken for {named}: {times}") for true, named, times in score.confused]
    return Group(table, *lines)


def demo_results(rows: Sequence[Mapping[str, Any]], images: int) -> RenderableType:
    """Lay FP32 and INT8 side by side."""
    table = Table(title=f"demo model on {images} pictures of an artist it never saw", title_justify="left")
    for column in ("precision", "size", "top-1 %", "95 % interval", "= fp32 %", "latency"):
        table.add_column(column, justify="left" if column == "precision" else "right")
    for row in rows:
        low, high = row["interval"]
        table.add_row(
            row["precision"],
            f"{row['bytes'] / 1e6:.2f} MB",
            f"{row['top1']:.2f}",
            f"{low:.1f} to {high:.1f}",
            f"{row['agreement']:.2f}",
            f"{row['latency_ms']:.2f} ms",
        )
    return table


def latencies(rows: Sequence[Mapping[str, Any]], title: str) -> RenderableType:
    """Lay out times of inferences."""
    table = Table(title=title, title_justify="left")
    for column in ("precision", "batch", "median", "90 %", "99 %", "images/s", "speed"):
        table.add_column(column, justify="left" if column == "precision" else "right")
    for row in rows:
        slowest = max(other["median_ms"] for other in rows if other["batch"] == row["batch"])
        table.add_row(
            row["precision"],
            str(row["batch"]),
            *(f"{row[name]:.2f} ms" for name in ("median_ms", "p90_ms", "p99_ms")),
            f"{row['images_per_second']:.1f}",
            f"{slowest / row['median_ms']:.2f} x",
        )
    return table


def _brief(value: object) -> str:
    """Show a number or a name; of a table only how long it is: `--json` has all of it."""
    return f"{len(value)} entries" if isinstance(value, (dict, list)) else str(value)


def _gate(verdicts: object) -> dict[str, str]:
    """Show why each backend ships what it ships; whoever made the bundle wrote this."""
    rows = {}
    for backend, verdict in verdicts.items() if isinstance(verdicts, dict) else ():
        reasons = verdict.get("reasons") if isinstance(verdict, dict) else None
        if isinstance(reasons, list):
            forced = "; FORCED" if verdict.get("forced") else ""
            rows[f"gate {backend}"] = "; ".join(map(str, reasons)) + forced
    return rows


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {part}" for name, part in value.items())
    return str(value)
