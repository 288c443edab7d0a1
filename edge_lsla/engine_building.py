"""Engines for whoever needs one: from this device's cache where it has built the same before, else built and kept.

Composes the builder, the cache and the console; neither torch nor onnx is imported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lsla.bundle.trust import make_private_folder
from edge_lsla.console import progress, say
from edge_lsla.engine_cache import VARIABLE, EngineCache, EngineKey, EngineOptions
from edge_lsla.errors import EdgeLslaError

if TYPE_CHECKING:
    from edge_lsla.build.tensorrt.builder import BuiltEngine
    from edge_lsla.build.tensorrt.settings import BuildSettings
    from edge_lsla.bundle import Artifact, Bundle, NewArtifact
    from edge_lsla.device import Device


@dataclass(frozen=True)
class TypedGraph:
    """What an engine is built from.

    Attributes:
        data: the ONNX file.
        backend: "tensorrt" or "tensorrt-rtx".
        precision: "fp32", "fp16" or "int8".
        attention: "plugin", "function" or "split".
    """

    data: bytes
    backend: str
    precision: str
    attention: str

    @classmethod
    def of(cls, bundle: Bundle, artifact: Artifact) -> TypedGraph:
        """Read the graph of a bundle's artifact."""
        form = artifact.versions.get("attention", "function")
        return cls(bundle.read(artifact), artifact.backend, artifact.precision, form)


def engine_artifact(graph: TypedGraph, targets: tuple[str, ...], options: EngineOptions, device: Device) -> NewArtifact:
    """Return a bundle's entry with an engine.

    Args:
        graph: what it is built from.
        targets: of tensorrt-rtx, "sm86"; tensorrt builds for this device.
        options: the user's choice.
        device: this one.

    Raises:
        EdgeLslaError: see `builder.build_engine`.
    """
    from edge_lsla.bundle import NewArtifact
    from edge_lsla.engine_facts import engine_versions

    facts = (engine := obtain_engine(graph, targets, options, device)).facts
    here = device if graph.backend == "tensorrt" else None
    versions = engine_versions(here, graph.backend, facts.version, facts.profiles, facts.activation_bytes or 0)
    made_for = facts.targets or ((device.target,) if device.target else ())
    versions["attention"] = graph.attention
    return NewArtifact(engine.data, graph.backend, graph.precision, "engine", versions, made_for)


def rebuild_here(bundle: Bundle, artifact: Artifact, device: Device, options: EngineOptions) -> bytes:
    """Build an engine for this device from a bundle's graph; it goes into the cache, and the bundle stays as it is.

    Raises:
        EdgeLslaError: see `builder.build_engine`.
    """
    targets = (device.target,) if artifact.backend == "tensorrt-rtx" and device.target else ()
    say().print(f"{artifact.name}: building an engine for this device, once")
    return obtain_engine(TypedGraph.of(bundle, artifact), targets, options, device).data


def obtain_engine(graph: TypedGraph, targets: tuple[str, ...], options: EngineOptions, device: Device) -> BuiltEngine:
    """Take an engine from the cache, or build it and keep it there; says which.

    Raises:
        EdgeLslaError: see `builder.build_engine`.
    """
    from edge_lsla.build.tensorrt.builder import describe_runtime
    from edge_lsla.build.tensorrt.settings import BuildSettings

    plugin = device.plugin.path if graph.attention == "plugin" and device.plugin is not None else None
    settings = BuildSettings(
        graph.backend,
        targets,
        options.profiles,
        options.workspace_bytes,
        options.optimisation_level,
        plugin_library=plugin,
    )
    # What the builder's process finds may lie where this one does not look.
    version = describe_runtime(graph.backend).version
    if graph.backend == "tensorrt":
        device = dataclasses.replace(device, tensorrt=device.tensorrt or version)
    else:
        device = dataclasses.replace(device, tensorrt_rtx=device.tensorrt_rtx or version)
    key = EngineKey.of(
        device,
        onnx_sha256=hashlib.sha256(graph.data).hexdigest(),
        backend=graph.backend,
        options=options,
        targets=settings.targets,
        plugin=plugin is not None,
    )
    cache = _open_cache()
    where = f"{graph.backend} {graph.precision} for {', '.join(settings.targets) or device.gpu or 'this device'}"
    if cache is not None and (engine := _cached(cache, key)) is not None:
        say().print(f"{where}: {engine.facts.plan_bytes / 1e6:.2f} MB, built before and kept in {cache.folder}")
        return engine
    if cache is not None and graph.backend == "tensorrt":
        settings = dataclasses.replace(settings, timing_cache=_timing_cache(cache, device))
    engine = _build(graph, settings, where, None if cache is None else _folder(cache, "work"))
    facts = engine.facts
    say().print(
        f"{where}: {facts.plan_bytes / 1e6:.2f} MB in {facts.build_seconds:.1f} s, "
        f"at most {facts.peak_bytes / 1e9:.2f} GB of memory"
    )
    if cache is not None:
        try:
            cache.put(key, engine.data, {"facts": json.dumps(facts.to_json())})
        except EdgeLslaError as error:
            _warn(str(error))
    return engine


def _build(graph: TypedGraph, settings: BuildSettings, where: str, work: Path | None) -> BuiltEngine:
    """Build in a folder of the cache; where that is full or cannot be used, among the system's temporary files."""
    from edge_lsla.build.tensorrt.builder import build_engine
    from edge_lsla.build.tensorrt.work import UnwritableError

    with progress(f"building {where}") as step:
        if work is not None:
            try:
                return build_engine(graph.data, settings, step, _warn, work=work)
            except UnwritableError as error:
                _warn(f"{error}, or set {VARIABLE}; building among the system's temporary files")
        return build_engine(graph.data, settings, step, _warn)


def _open_cache() -> EngineCache | None:
    try:
        return EngineCache(notice=_warn)
    except EdgeLslaError as error:
        _warn(f"engines are not kept: {error}")
        return None


def _cached(cache: EngineCache, key: EngineKey) -> BuiltEngine | None:
    from edge_lsla.build.tensorrt.builder import BuiltEngine
    from edge_lsla.build.tensorrt.facts import EngineFacts

    found = cache.load(key)
    if found is None:
        return None
    try:
        facts = EngineFacts.from_json(json.loads(found.facts["facts"]))
        if facts.plan_bytes != len(found.data):
            raise ValueError("facts of another engine")
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError):
        _warn(f"facts of a cached engine cannot be used: {cache.folder}; it is built again")
        return None
    return BuiltEngine(found.data, facts)


def _timing_cache(cache: EngineCache, device: Device) -> Path | None:
    """Name the file of TensorRT's measurements: they hold for one GPU, driver and version."""
    decides = (device.gpu, device.capability, device.driver, device.l4t, device.tensorrt)
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
    folder = _folder(cache, "timing")
    return None if folder is None else folder / f"{digest[:16]}.timing"


def _folder(cache: EngineCache, name: str) -> Path | None:
    try:
        return make_private_folder(cache.folder / name, f"engine cache's folder {name!r}", VARIABLE)
    except EdgeLslaError as error:
        _warn(f"a folder of the engine cache is not used: {error}")
        return None


def _warn(line: str) -> None:
    say().print(line, style="yellow")
