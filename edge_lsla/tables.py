"""Tables for people, made with rich."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from edge_lsla.bundle import Bundle
from edge_lsla.doctor import Check


def passport(bundle: Bundle) -> RenderableType:
    """Lay out a bundle's manifest."""
    manifest = bundle.manifest
    facts = Table(title=str(bundle.path), show_header=False, title_justify="left")
    labels = ", ".join(manifest.labels[:8]) + (" …" if len(manifest.labels) > 8 else "")
    rows = {
        "model": manifest.name,
        "made": f"{manifest.created} by edge-lsla {manifest.edge_lsla}",
        "classes": f"{len(manifest.labels)}: {labels}",
        "input": f"{manifest.preprocessing.image_size} px, resize {manifest.preprocessing.resize}",
        "digest": bundle.digest,
        **{f"sha256 of {name}": digest for name, digest in manifest.digests.items()},
        **{f"calibration {name}": str(value) for name, value in (manifest.calibration or {}).items()},
        **{f"fidelity {name}": str(value) for name, value in manifest.fidelity.items()},
        "golden set": f"{manifest.golden.images} images, allowed differences "
        + ", ".join(f"{name} {value.max_abs:.3g}" for name, value in manifest.golden.tolerance.items()),
    }
    for name, text in rows.items():
        facts.add_row(name, text)
    artifacts = Table(title="artifacts, preferred one first", title_justify="left")
    for column in ("name", "backend", "precision", "layers in int8", "targets", "size"):
        artifacts.add_column(column)
    for one in manifest.artifacts:
        layers = manifest.precisions.get(one.name, manifest.precisions.get(one.precision, {}))
        int8 = sum(precision == "int8" for precision in layers.values())
        targets, share = ", ".join(one.targets) or "any", f"{int8} of {len(layers)}" if layers else "-"
        artifacts.add_row(one.name, one.backend, one.precision, share, targets, f"{one.size / 1e6:.2f} MB")
    return Group(facts, artifacts)


def checks(found: Sequence[Check]) -> RenderableType:
    """Lay out the doctor's findings."""
    table = Table(title="doctor", title_justify="left")
    for column in ("", "what", "found", "what to do"):
        table.add_column(column)
    for check in found:
        mark = "[green]ok[/]" if check.found else ("[red]missing[/]" if check.needed else "[yellow]absent[/]")
        table.add_row(mark, check.name, check.detail, "" if check.found else check.remedy)
    return table
