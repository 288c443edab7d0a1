"""Engines from a bundle's own typed graphs, on the device that will run them: no torch, no onnx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_lsla.errors import CompatibilityError, UsageError

if TYPE_CHECKING:
    from edge_lsla.bundle import Artifact, Bundle, Manifest
    from edge_lsla.engine_cache import EngineOptions

ENGINES = ("tensorrt", "tensorrt-rtx")


def add_engines(
    bundle: Bundle,
    output: Path,
    backend: str,
    precisions: tuple[str, ...],
    targets: tuple[str, ...],
    options: EngineOptions,
) -> Manifest:
    """Build engines from the typed graphs of a bundle and write a bundle that has both.

    Args:
        bundle: open; what it holds is kept, but for engines that are built anew.
        backend: "tensorrt", "tensorrt-rtx", or "auto": the first whose graphs the bundle has.
        precisions: of the engines; none: all that the bundle has graphs for.
        targets: of tensorrt-rtx, "sm86"; none: this device's GPU.
        options: the user's choice.

    Raises:
        CompatibilityError: the bundle has no such graph, or it does not fit this device.
        MissingComponentError: the backend, the plugin library or a GPU is absent.
    """
    from edge_lsla.bundle import GoldenSet, NewArtifact, Passport, remember_built_here, write_bundle
    from edge_lsla.device import describe_device
    from edge_lsla.engine_building import TypedGraph, engine_artifact
    from edge_lsla.preflight import check_artifact, refuse

    device = describe_device()
    graphs = _graphs(bundle, backend, precisions)
    backend = graphs[0].backend
    if backend == "tensorrt-rtx" and not targets:
        if device.target is None:
            raise UsageError("this machine has no GPU to build for", "--target", "name one, such as --target sm86")
        targets = (device.target,)
    for graph in graphs:
        if graph.backend == "tensorrt":  # which builds for the GPU of this machine only
            refuse(check_artifact(graph, bundle.manifest, device, batch=options.batch, bundle=bundle.path))
    built = [engine_artifact(TypedGraph.of(bundle, graph), targets, options, device) for graph in graphs]
    anew = {(one.backend, one.precision, one.targets) for one in built}
    kept = [
        NewArtifact(bundle.read(one), one.backend, one.precision, one.kind, one.versions, one.targets, one.name)
        for one in bundle.manifest.artifacts
        if one.kind != "engine" or (one.backend, one.precision, one.targets) not in anew
    ]
    logits = {(one.backend, one.precision): bundle.golden_logits(one) for one in bundle.manifest.artifacts}
    golden = GoldenSet(bundle.golden_inputs(), logits, bundle.manifest.golden.tolerance)
    passport = Passport(**{name: getattr(bundle.manifest, name) for name in Passport.__dataclass_fields__})
    manifest = write_bundle(output, passport, [*built, *kept], golden)
    remember_built_here(manifest.sha256())
    return manifest


def _graphs(bundle: Bundle, backend: str, precisions: tuple[str, ...]) -> list[Artifact]:
    if backend not in ("auto", *ENGINES):
        raise UsageError(f"{backend} runs graphs as they are", "--backend", f"engines are of {' or '.join(ENGINES)}")
    for one in ENGINES if backend == "auto" else (backend,):
        found = [a for a in bundle.manifest.artifacts if (a.backend, a.kind) == (one, "onnx")]
        graphs = [artifact for artifact in found if not precisions or artifact.precision in precisions]
        if graphs:
            return graphs
    held = ", ".join(one.name for one in bundle.manifest.artifacts)
    raise CompatibilityError(
        "bundle holds no typed graph to build such an engine from",
        bundle.path,
        f"it holds {held}; rebuild it from the checkpoint with --backend tensorrt or tensorrt-rtx",
    )
