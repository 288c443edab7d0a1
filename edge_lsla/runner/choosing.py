"""Which of a bundle's artifacts runs here: the first backend whose engine fits this device, else the CPU."""

from __future__ import annotations

from dataclasses import dataclass

from edge_lsla.bundle import Artifact, Bundle, allows_native_code, was_built_here
from edge_lsla.device import Device, describe_device
from edge_lsla.errors import CompatibilityError, EdgeLslaError, GateError, MissingComponentError, TrustError, UsageError
from edge_lsla.preflight import check_artifact, refuse
from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner
from edge_lsla.runner.protocol import Runner

BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime")  # in the order in which `auto` takes them


@dataclass(frozen=True)
class Chosen:
    """What runs, and the sentences that say why what was preferred does not."""

    artifact: Artifact
    runner: Runner
    passed_over: tuple[str, ...] = ()


def choose(bundle: Bundle, backend: str, precision: str | None, threads: int | None) -> Chosen:
    """Start the runner of one backend, or with "auto" of the first that can.

    Raises:
        UsageError: no such backend.
        CompatibilityError: the bundle holds nothing for it, or nothing that fits this device.
        TrustError: its engine comes from nobody whom this device trusts.
        MissingComponentError: the backend is not installed, or there is no GPU.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"no such backend {backend!r}", "backend", f"use auto or {', '.join(BACKENDS)}")
    held = [one for one in BACKENDS if any(one == artifact.backend for artifact in bundle.manifest.artifacts)]
    if backend != "auto" or len(held) == 1:
        return Chosen(*_start(bundle, held[0] if backend == "auto" else backend, precision, threads))
    passed_over: list[str] = []
    for one in held[:-1]:
        try:
            return Chosen(*_start(bundle, one, precision, threads), tuple(passed_over))
        except (GateError, MissingComponentError) as error:
            passed_over.append(f"{one}: {error}")
    return Chosen(*_start(bundle, held[-1], precision, threads), tuple(passed_over))


def _start(bundle: Bundle, backend: str, precision: str | None, threads: int | None) -> tuple[Artifact, Runner]:
    if backend == "onnxruntime":
        artifact = bundle.artifact(backend, precision)
        return artifact, OnnxRuntimeRunner(
            bundle.read(artifact), threads=threads, where=f"{bundle.path}: {artifact.name}"
        )
    bundle.artifact(backend, precision)  # says what the bundle holds, where it has nothing for this backend
    device = describe_device()
    artifact = _engine(bundle, backend, precision, device)
    from edge_lsla.runner.tensorrt import TensorRtRunner

    plugin = device.plugin.path if device.plugin is not None and backend == "tensorrt" else None
    where = f"{bundle.path}: {artifact.name}"
    return artifact, TensorRtRunner(bundle.read(artifact), backend, where=where, plugin_library=plugin)


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
        f"build one on this device: build-engine {bundle.path} --backend {backend} -o NEW.lsla",
    )
