"""Which of a bundle's artifacts runs here: the first backend whose engine fits this device, else the CPU."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_lsla.bundle import Artifact, Bundle, allows_native_code, was_built_here
from edge_lsla.device import Device, describe_device
from edge_lsla.engine_cache import EngineCache, EngineKey, EngineOptions
from edge_lsla.errors import CompatibilityError, EdgeLslaError, TrustError, UsageError
from edge_lsla.preflight import check_artifact, refuse
from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner
from edge_lsla.runner.protocol import Runner

BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime")  # in the order in which `auto` takes them


# Builds an engine for this device from a typed graph of a bundle; the runner knows no builder, so it is handed one.
Rebuild = Callable[[Bundle, Artifact, Device, EngineOptions], bytes]


@dataclass(frozen=True)
class Request:
    """What is asked of `choose`.

    Attributes:
        backend: a backend's name, or "auto".
        precision: None: the bundle's preferred one.
        threads: of the CPU; None: all.
        spinning: of these threads; see `OnnxRuntimeRunner`.
        options: of an engine that is built here, or was, and lies in the cache.
        rebuild: builds one where the bundle and the cache have none that fits; None: it is not allowed.
    """

    backend: str = "auto"
    precision: str | None = None
    threads: int | None = None
    spinning: bool = True
    options: EngineOptions = field(default_factory=EngineOptions)
    rebuild: Rebuild | None = None


@dataclass(frozen=True)
class Chosen:
    """What runs, and the sentences that say why what was preferred does not."""

    artifact: Artifact
    runner: Runner
    passed_over: tuple[str, ...] = ()


def choose(bundle: Bundle, request: Request) -> Chosen:
    """Start the runner of one backend, or with "auto" of the first that can.

    Raises:
        UsageError: no such backend.
        CompatibilityError: the bundle holds nothing for it, or nothing that fits this device.
        TrustError: its engine comes from nobody whom this device trusts.
        MissingComponentError: the backend is not installed, or there is no GPU.
    """
    backend = request.backend
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"no such backend {backend!r}", "backend", f"use auto or {', '.join(BACKENDS)}")
    held = [one for one in BACKENDS if any(one == artifact.backend for artifact in bundle.manifest.artifacts)]
    if backend != "auto":
        held = [backend]
    refusals: dict[str, EdgeLslaError] = {}
    for one in held:
        try:
            chosen = _start(bundle, one, request)
        except EdgeLslaError as error:  # whatever it is: the user asked for what works
            refusals[one] = error
        else:
            return Chosen(*chosen, tuple(f"{name}: {error}" for name, error in refusals.items()))
    raise _nothing_runs(bundle, request, refusals)


def _nothing_runs(bundle: Bundle, request: Request, refusals: dict[str, EdgeLslaError]) -> EdgeLslaError:
    """Return what to raise: the one refusal, or an error with all of them, of the class of what was preferred."""
    if len(refusals) == 1:
        return next(iter(refusals.values()))
    artifacts = bundle.manifest.artifacts
    asked_of = {one.backend for one in artifacts if request.precision in (None, one.precision)}
    first = next((error for name, error in refusals.items() if name in asked_of), next(iter(refusals.values())))
    on_cpu = [one.precision for one in artifacts if one.backend == "onnxruntime"]
    if on_cpu and request.precision not in (None, *on_cpu):  # to leave the GPU alone would not help
        remedy: str | None = f"on the CPU it runs in {' or '.join(dict.fromkeys(on_cpu))}: --precision {on_cpu[0]}"
    else:
        remedy = first.remedy
    why = "; ".join(f"{name}: {error.what}" for name, error in refusals.items())
    asked = f" in {request.precision}" if request.precision else ""
    return type(first)(f"nothing in the bundle runs here{asked} ({why})", bundle.path, remedy, first.details)


def _start(bundle: Bundle, backend: str, request: Request) -> tuple[Artifact, Runner]:
    if backend == "onnxruntime":
        artifact = bundle.artifact(backend, request.precision)
        return artifact, OnnxRuntimeRunner(
            functools.partial(bundle.read, artifact),
            threads=request.threads,
            spinning=request.spinning,
            where=f"{bundle.path}: {artifact.name}",
        )
    bundle.artifact(backend, request.precision)  # says what the bundle holds, where it has nothing for this backend
    device = describe_device()
    try:
        artifact = _engine(bundle, backend, request.precision, device)
        engine = bundle.read(artifact)
    except EdgeLslaError as refusal:
        artifact, engine = _from_graph(bundle, backend, request, device, refusal)
    from edge_lsla.runner.tensorrt import TensorRtRunner

    needed = backend == "tensorrt" and artifact.versions.get("attention", "plugin") == "plugin"
    plugin = device.plugin.path if device.plugin is not None and needed else None
    where = f"{bundle.path}: {artifact.name}"
    return artifact, TensorRtRunner(engine, backend, where=where, plugin_library=plugin)


def _from_graph(
    bundle: Bundle, backend: str, request: Request, device: Device, refusal: EdgeLslaError
) -> tuple[Artifact, bytes]:
    """Return an engine that this device built from the bundle's graph, or builds now; `refusal` if it may not."""
    graphs = [
        one
        for one in bundle.manifest.artifacts
        if (one.backend, one.kind) == (backend, "onnx") and request.precision in (None, one.precision)
    ]
    if not graphs:
        raise refusal
    graph, options = graphs[0], request.options
    refuse(check_artifact(graph, bundle.manifest, device, batch=options.batch, bundle=bundle.path))
    key = EngineKey.of(
        device,
        onnx_sha256=graph.sha256,
        backend=backend,
        options=options,
        targets=(device.target,) if backend == "tensorrt-rtx" and device.target else (),
        plugin=graph.versions.get("attention") == "plugin",
    )
    with contextlib.suppress(EdgeLslaError):  # a cache that cannot be used is none; building says so
        if (engine := EngineCache().get(key)) is not None:
            return graph, engine
    if request.rebuild is None:
        raise refusal
    return graph, request.rebuild(bundle, graph, device, options)


def _engine(bundle: Bundle, backend: str, precision: str | None, device: Device) -> Artifact:
    """Return the first engine that fits this device; the first one's refusal where none does."""
    try:
        allows_native_code(bundle, was_built_here(bundle.manifest.sha256()))
        trust = None
    except TrustError as error:
        trust = error
    refusal: EdgeLslaError | None = None
    for artifact in bundle.manifest.artifacts:
        if (artifact.backend, artifact.kind) != (backend, "engine") or precision not in (None, artifact.precision):
            continue
        try:
            refuse(check_artifact(artifact, bundle.manifest, device, trust=trust, bundle=bundle.path))
        except EdgeLslaError as error:
            refusal = refusal or error
            continue
        return artifact
    raise refusal or CompatibilityError(
        f"bundle holds {backend}'s graph and no engine",
        bundle.path,
        f"allow it with --rebuild, or add one: `build-engine {shlex.quote(str(bundle.path))} --backend {backend} "
        "-o NEW.lsla`",
    )
