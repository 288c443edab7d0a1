"""Engines from a bundle's own typed graphs, on the device that will run them: no torch, no onnx."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla.console import say
from edge_lsla.errors import CompatibilityError, EdgeLslaError, UsageError

if TYPE_CHECKING:
    from edge_lsla.bundle import Artifact, Bundle, Manifest, NewArtifact
    from edge_lsla.device import Device
    from edge_lsla.engine_building import TypedGraph
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
    """Build engines from the typed graphs of a bundle and write a bundle that has both; warn of what it then lacks.

    Engines of the source are kept where this machine trusts them and no new one serves all of their targets.

    Args:
        bundle: open; it stays as it is.
        output: another file.
        backend: "tensorrt", "tensorrt-rtx", or "auto": the first whose graphs the bundle has.
        precisions: of the engines; none: all that the bundle has graphs for.
        targets: of tensorrt-rtx, "sm86"; none: this device's GPU.
        options: the user's choice.

    Raises:
        UsageError: `output` is the bundle itself; no such backend or precision; or a target for tensorrt.
        CompatibilityError: the bundle has no such graph, or it does not fit this device.
        MissingComponentError: the backend, the plugin library or a GPU is absent.
    """
    from edge_lsla.bundle import GoldenSet, Passport, write_bundle
    from edge_lsla.bundle.trust import try_to_remember
    from edge_lsla.device import describe_device
    from edge_lsla.engine_building import engine_artifact
    from edge_lsla.preflight import check_artifact, check_graph, refuse

    if output.exists() and output.samefile(bundle.path):
        raise UsageError("the output would overwrite what is read", output, "choose another name")
    graphs = _graphs(bundle, backend, precisions, targets)
    device = describe_device()
    if graphs[0].backend == "tensorrt-rtx":
        targets = targets or _own_target(device)
    for graph in graphs:
        if graph.backend == "tensorrt":  # which builds for the GPU of this machine only
            refuse(check_artifact(graph, bundle.manifest, device, batch=options.batch, bundle=bundle.path))
        else:
            refuse(check_graph(graph, bundle.manifest, device.tensorrt_rtx, bundle=bundle.path))
    built = [engine_artifact(_checked(bundle, graph), targets, options, device) for graph in graphs]
    kept = _kept(bundle, built)
    logits = {(one.backend, one.precision): bundle.golden_logits(one) for one in bundle.manifest.artifacts}
    golden = GoldenSet(bundle.golden_inputs(), logits, bundle.manifest.golden.tolerance)
    passport: dict[str, Any] = {name: getattr(bundle.manifest, name) for name in Passport.__dataclass_fields__}
    held = {part for one in kept for part in (one.name, one.precision)} | {one.precision for one in built}
    passport["precisions"] = {name: layers for name, layers in passport["precisions"].items() if name in held}
    manifest = write_bundle(output, Passport(**passport), [*built, *kept], golden)
    if bundle.signature is not None:
        sign = f"`bundle sign {shlex.quote(str(output))} --key KEY.pem`"
        _warn(f"{output} is not signed, unlike {bundle.path}; to run its engines elsewhere, sign it: {sign}")
    # Every engine in it was built by this machine, or is trusted by it.
    if problem := try_to_remember(manifest.sha256(), output):
        _warn(problem)
    return manifest


def _own_target(device: Device) -> tuple[str, ...]:
    if device.target is None:
        raise UsageError("this machine has no GPU to build for", "--target", "name one, such as --target sm86")
    return (device.target,)


def _checked(bundle: Bundle, graph: Artifact) -> TypedGraph:
    """Read a graph, and refuse one that does not fit the bundle's own manifest."""
    from edge_lsla.build.tensorrt.outline import check_border, read_outline
    from edge_lsla.engine_building import TypedGraph

    typed, manifest = TypedGraph.of(bundle, graph), bundle.manifest
    size, classes = manifest.preprocessing.image_size, len(manifest.labels)
    check_border(read_outline(typed.data), 1, 1, image_size=size, classes=classes)
    return typed


def _graphs(bundle: Bundle, backend: str, precisions: tuple[str, ...], targets: tuple[str, ...]) -> list[Artifact]:
    """Return the graphs to build from: of one backend, one of each precision, in the order that was asked for."""
    from edge_lsla.bundle import BACKENDS, PRECISIONS

    if backend != "auto" and backend not in ENGINES:
        what = f"{backend} runs graphs as they are" if backend in BACKENDS else f"no such backend {backend!r}"
        raise UsageError(what, "--backend", f"engines are of {' or '.join(ENGINES)}: name one, or auto")
    found: dict[str, dict[str, Artifact]] = {}
    for one in bundle.manifest.artifacts:
        if one.kind == "onnx" and one.backend in ENGINES:
            found.setdefault(one.backend, {}).setdefault(one.precision, one)
    held = "; ".join(f"for {name}: {', '.join(found[name])}" for name in ENGINES if name in found)
    wanted = [name for name in ENGINES if name in found and backend in ("auto", name)]
    if not wanted:
        names = f"graphs {held}" if held else ", ".join(one.name for one in bundle.manifest.artifacts)
        remedy = f"it holds {names}; rebuild it from the checkpoint with --backend tensorrt or tensorrt-rtx"
        raise CompatibilityError("bundle holds no typed graph to build such an engine from", bundle.path, remedy)
    if targets:
        if wanted == ["tensorrt"]:
            remedy = "leave the target out; tensorrt-rtx builds for other GPUs"
            raise UsageError("TensorRT builds only for this machine", f"--target {','.join(targets)}", remedy)
        wanted = ["tensorrt-rtx"]
    for name in wanted:
        if set(precisions) <= set(found[name]):
            return [found[name][precision] for precision in dict.fromkeys(precisions or found[name])]
    lacking = [one for one in precisions if not any(one in found[name] for name in wanted)] or list(precisions)
    for precision in lacking:
        if precision not in PRECISIONS:
            raise UsageError(f"unknown precision {precision!r}", "--precision", f"the bundle has graphs {held}")
    what = f"bundle has no graph in {' and '.join(lacking)} to build an engine from"
    raise CompatibilityError(what, bundle.path, f"it has graphs {held}: choose among these with --precision")


def _kept(bundle: Bundle, built: Sequence[NewArtifact]) -> list[NewArtifact]:
    """Return what goes over into the new bundle: graphs, and engines that are not replaced and are trusted here.

    The new bundle counts as built here, so that an engine of unknown origin in it would be run.
    """
    from edge_lsla.bundle import NewArtifact, allows_native_code, was_built_here

    artifacts = bundle.manifest.artifacts
    engines = [one for one in artifacts if one.kind == "engine" and not any(_replaces(new, one) for new in built)]
    if engines:
        try:
            allows_native_code(bundle, was_built_here(bundle.manifest.sha256()))
        except EdgeLslaError as error:
            left = f"{len(engines)} engine{'s' if len(engines) > 1 else ''} of {bundle.path}"
            _warn(f"not kept: {left} ({', '.join(one.name for one in engines)}): {error.what}")
            engines = []
    return [
        NewArtifact(bundle.read(one), one.backend, one.precision, one.kind, one.versions, one.targets, one.name)
        for one in artifacts
        if one.kind != "engine" or one in engines
    ]


def _replaces(new: NewArtifact, old: Artifact) -> bool:
    """Say whether a new engine serves all GPUs that an old one does; an old one without targets serves any."""
    covered = set(old.targets) <= set(new.targets) if old.targets else not new.targets
    return (new.backend, new.precision) == (old.backend, old.precision) and covered


def _warn(line: str) -> None:
    say().print(line, style="yellow")
