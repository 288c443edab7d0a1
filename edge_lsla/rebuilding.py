"""Engines from a bundle's own typed graphs, on the device that will run them: no torch, no onnx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_lsla.console import progress, say
from edge_lsla.errors import CompatibilityError, UsageError

if TYPE_CHECKING:
    from edge_lsla.bundle import Artifact, Bundle, Manifest, NewArtifact
    from edge_lsla.device import Device

ENGINES = ("tensorrt", "tensorrt-rtx")


def add_engines(
    bundle: Bundle, output: Path, backend: str, precisions: tuple[str, ...], targets: tuple[str, ...], batch: int
) -> Manifest:
    """Build engines from the typed graphs of a bundle and write a bundle that has both.

    Args:
        bundle: open; what it holds is kept, but for engines that are built anew.
        backend: "tensorrt", "tensorrt-rtx", or "auto": the first whose graphs the bundle has.
        precisions: of the engines; none: all that the bundle has graphs for.
        targets: of tensorrt-rtx, "sm86"; none: this device's GPU.
        batch: the largest that an engine takes.

    Raises:
        CompatibilityError: the bundle has no such graph, or it does not fit this device.
        MissingComponentError: the backend, the plugin library or a GPU is absent.
    """
    from edge_lsla.bundle import GoldenSet, NewArtifact, Passport, remember_built_here, write_bundle
    from edge_lsla.device import describe_device

    device = describe_device()
    graphs = _graphs(bundle, backend, precisions)
    backend = graphs[0].backend
    if backend == "tensorrt-rtx" and not targets:
        if device.target is None:
            raise UsageError("this machine has no GPU to build for", "--target", "name one, such as --target sm86")
        targets = (device.target,)
    built = [_build(bundle, graph, device, targets, batch) for graph in graphs]
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


def _build(bundle: Bundle, graph: Artifact, device: Device, targets: tuple[str, ...], batch: int) -> NewArtifact:
    from edge_lsla.build.tensorrt.builder import build_engine
    from edge_lsla.build.tensorrt.settings import BuildSettings, batch_profiles
    from edge_lsla.bundle import NewArtifact
    from edge_lsla.preflight import check_artifact, engine_versions, refuse

    here = graph.backend == "tensorrt"  # which builds for the GPU of this machine only
    if here:
        refuse(check_artifact(graph, bundle.manifest, device, batch=batch, bundle=bundle.path))
    plugin = device.plugin.path if here and device.plugin and graph.versions.get("attention") == "plugin" else None
    profiles = batch_profiles(batch)
    tied = f"{device.gpu} {device.driver} {device.l4t}" if here else ""
    settings = BuildSettings(graph.backend, () if here else targets, profiles, plugin_library=plugin, device=tied)
    with progress(f"building {graph.backend} {graph.precision}") as step:
        engine = build_engine(bundle.read(graph), settings, step, lambda line: say().print(line, style="yellow"))
    facts = engine.facts
    versions = engine_versions(
        device if here else None, graph.backend, facts.version, profiles, facts.activation_bytes or 0
    )
    versions |= {key: graph.versions[key] for key in ("attention",) if key in graph.versions}
    made_for = settings.targets or ((device.target,) if device.target else ())
    say().print(f"{graph.backend} {graph.precision} for {', '.join(made_for)}: {facts.plan_bytes / 1e6:.2f} MB")
    return NewArtifact(engine.data, graph.backend, graph.precision, "engine", versions, made_for)
