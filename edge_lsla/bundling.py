"""From a fused graph to a bundle: typed graphs for each backend and precision, engines, golden numbers, the passport.

Composes stages for `build-engine` and `demo` in a checkout: it uses `calibration`, which no installed wheel has.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla import __version__
from edge_lsla.console import progress, say
from edge_lsla.description import Description
from edge_lsla.engine_cache import EngineOptions
from edge_lsla.errors import GraphError, MissingComponentError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from calibration.ranges_file import Ranges
    from edge_lsla.bundle import Manifest, NewArtifact

BACKENDS = {
    "onnxruntime": ("fp32", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt-rtx": ("fp32", "fp16", "int8"),
}
ATTENTIONS = {
    "tensorrt": ("plugin", "function", "split"),
    "tensorrt-rtx": ("function", "split"),
}
GOLDEN_IMAGES = 8
# Allowed difference of a golden logit. FP32: another device adds in another order. FP16: 2e-3 of the spread was seen on
# the demo model in true half precision; ten times that. INT8: a value beside a rounding boundary may fall to the other
# side.
FP32_SLACK, FP16_SLACK, INT8_SLACK = 1e-3, 2e-2, 0.25


@dataclass(frozen=True)
class Source:
    """What a bundle is built from: the fused float32 graph, and all that is known of it."""

    path: Path
    graph: ModelProto
    description: Description
    digests: dict[str, str]


@dataclass(frozen=True)
class Calibrate:
    """How to calibrate."""

    data: Path
    method: str = "minmax"
    images: int = 256


@dataclass(frozen=True)
class Wanted:
    """What to put into a bundle.

    Attributes:
        backends: each gets an artifact for each precision that it knows.
        precisions: the preferred one first.
        targets: of tensorrt-rtx engines, "sm86"; none: the typed graph only, from which a device builds.
        options: of engines.
        attention: "auto", or its form on GPUs: "plugin", "function" or "split".
        calibrate: pictures for int8 and for the golden set.

    Raises:
        UsageError: a combination that no backend has.
    """

    backends: tuple[str, ...] = ("onnxruntime",)
    precisions: tuple[str, ...] = ("fp32",)
    targets: tuple[str, ...] = ()
    options: EngineOptions = field(default_factory=EngineOptions)
    attention: str = "auto"
    calibrate: Calibrate | None = None

    def __post_init__(self) -> None:
        for name, given in (("backend", self.backends), ("precision", self.precisions)):
            if not given or len(set(given)) != len(given):
                raise UsageError(f"a {name} is named twice, or none", f"--{name} {','.join(given)}", "name each once")
        for backend in self.backends:
            if backend not in BACKENDS:
                raise UsageError(f"no such backend {backend!r}", "--backend", f"use auto or {', '.join(BACKENDS)}")
        self._check_attention()
        for precision in self.precisions:
            if not any(precision in BACKENDS[backend] for backend in self.backends):
                raise UsageError(*_no_precision(precision, self.backends))
        if self.targets and "tensorrt-rtx" not in self.backends:
            raise UsageError(
                "only tensorrt-rtx engines are built for other GPUs", "--target", "add --backend tensorrt-rtx"
            )
        if "int8" in self.precisions and self.calibrate is None:
            raise UsageError(
                "int8 needs pictures to calibrate on", "--data", "give a folder of pictures from the field"
            )

    def _check_attention(self) -> None:
        on_gpus = [backend for backend in self.backends if backend in ATTENTIONS]
        if self.attention != "auto" and not on_gpus:
            raise UsageError("attention has one form on the CPU", "--attention", "leave it out, or add a GPU's backend")
        for backend in on_gpus:
            if self.attention not in ("auto", *ATTENTIONS[backend]):
                known = ", ".join(ATTENTIONS[backend])
                raise UsageError(f"{backend} has no attention {self.attention!r}", "--attention", f"it has {known}")

    def pairs(self) -> list[tuple[str, str]]:
        """Return (backend, precision) of each artifact, in order."""
        return [
            (one, precision) for one in self.backends for precision in self.precisions if precision in BACKENDS[one]
        ]

    def form(self, backend: str) -> str:
        """Return the form of attention for a backend."""
        if backend not in ATTENTIONS:
            return "function"
        return ATTENTIONS[backend][0] if self.attention == "auto" else self.attention


def _no_precision(precision: str, backends: tuple[str, ...]) -> tuple[str, str, str]:
    if precision == "fp16":
        why = "fp16 gains nothing on a CPU, where ONNX Runtime computes it in fp32"
        return why, "--precision fp16", "use fp32 or int8, or a --backend for GPUs"
    known = sorted({one for backend in backends for one in BACKENDS[backend]})
    return f"unknown precision {precision!r}", "--precision", f"use {', '.join(known)}"


@dataclass
class _Work:
    """What is found out on the way."""

    source: Source
    wanted: Wanted
    inputs: NDArray[np.float32]
    ranges: Ranges | None = None
    layers: dict[str, dict[str, str]] = field(default_factory=dict)
    fidelity: dict[str, Any] = field(default_factory=dict)


def build_bundle(source: Source, output: Path, wanted: Wanted) -> tuple[Manifest, dict[str, Any]]:
    """Make the artifacts, record what each computes for a few pictures, and write the bundle.

    Returns:
        The manifest, and figures of agreement with float32.

    Raises:
        GraphError: the model and its labels do not fit, or a backend refuses it.
        MissingComponentError: a backend, or the plugin library, is absent.
    """
    import numpy as np

    from calibration.measure import golden_pixels
    from edge_lsla.bundle import GoldenSet, Passport, Tolerance, remember_built_here, write_bundle
    from edge_lsla.plugin_library import find_plugin
    from edge_lsla.preprocessing import normalise
    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner

    description, labels = source.description, source.description.labels
    plugin = _plugin(find_plugin()) if "plugin" in {wanted.form(one) for one in wanted.backends} else None
    data = wanted.calibrate.data if wanted.calibrate else None
    pixels = golden_pixels(description.preprocessing, data, GOLDEN_IMAGES)
    work = _Work(source, wanted, normalise(pixels, description.preprocessing))

    def compute(model: bytes, name: str) -> NDArray[np.float32]:
        with OnnxRuntimeRunner(model, where=f"{source.path} in {name}") as runner:
            return np.concatenate([runner.run(one[None]) for one in work.inputs])

    reference = compute(source.graph.SerializeToString(), "fp32")
    if reference.shape[1] != len(labels):
        raise GraphError(
            f"model has {reference.shape[1]} classes, the labels {len(labels)}", source.path, "give --labels"
        )
    artifacts, logits = [], {}
    for backend, precision in wanted.pairs():
        typed = _typed(work, backend, precision)
        # The typed graph in ONNX Runtime, whose CPU computes halves in float32: what a GPU should come near to.
        answer = logits[backend, precision] = compute(typed.SerializeToString(), f"{backend} {precision}")
        worst = float(np.abs(answer - reference).max())
        key = precision if backend == "onnxruntime" else f"{backend}-{precision}"
        work.fidelity.setdefault(key, {})["golden_max_abs_difference_from_fp32"] = round(worst, 6)
        artifacts += _artifacts(work, typed, backend, precision)
    spread = max(float(reference.std()), 1e-3)
    slack = {"fp32": FP32_SLACK * max(1.0, spread), "fp16": FP16_SLACK * max(1.0, spread), "int8": INT8_SLACK * spread}
    passport = Passport(
        name=description.name,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        edge_lsla=__version__,
        model=description.model,
        labels=labels,
        preprocessing=description.preprocessing,
        digests=source.digests,
        precisions=work.layers,
        fidelity=work.fidelity,
        calibration={"method": work.ranges.method, "images": work.ranges.images} if work.ranges else None,
        plugin=plugin,
    )
    allowed = {precision: Tolerance(slack[precision]) for _, precision in wanted.pairs()}
    manifest = write_bundle(output, passport, artifacts, GoldenSet(pixels, logits, allowed))
    if any(artifact.kind == "engine" for artifact in manifest.artifacts):
        remember_built_here(manifest.sha256())
    return manifest, work.fidelity


def _plugin(library: Path | None) -> dict[str, Any]:
    """Describe the plugin library whose kernels the bundle will need."""
    from edge_lsla.plugin_library import read_plugin

    if library is None:
        raise MissingComponentError(
            "the plugin library is absent, whose kernels the bundle must name",
            "build/plugin",
            "make it: python cli.py plugin build; or choose --attention function",
        )
    read = read_plugin(library)
    return {"operator_version": str(read.operator_version), "cubin_index": read.index_digest}


def _typed(work: _Work, backend: str, precision: str) -> ModelProto:
    """Return the graph with this backend's types written in, operators with their bodies."""
    from calibration.qdq import insert_qdq
    from calibration.settings import QdqSettings
    from edge_lsla.surgery.half_measure import choose_half
    from edge_lsla.surgery.split import split_attention

    graph, kind = work.source.graph, "onnxruntime" if backend == "onnxruntime" else "tensorrt"
    key = precision if backend == "onnxruntime" else f"{backend}-{precision}"
    layers: dict[str, str] = {}
    if precision == "int8":
        graph, report = insert_qdq(graph, _ranges(work), QdqSettings(backend=kind))
        layers = dict(report.precision)
        say().print(f"{backend}: {len(report.quantised)} layers in INT8")
    if kind == "tensorrt" and precision != "fp32":
        with progress("measuring half precision"):
            graph, halves, measured = choose_half(graph, [work.inputs])
        layers = dict(halves.precision)
        work.fidelity.setdefault(key, {})["largest_activation_over_65504"] = round(measured.largest.ratio, 6)
        for kept in halves.kept:
            say().print(f"stays in FP32: {kept.where}: {kept.reason}", style="yellow")
    if work.wanted.form(backend) == "split":
        graph = split_attention(graph)
    if layers:
        work.layers[f"{backend}-{precision}.onnx" if kind == "tensorrt" else precision] = layers
    return graph


def _ranges(work: _Work) -> Ranges:
    """Measure ranges once, on the fused float32 graph."""
    assert work.wanted.calibrate is not None  # `Wanted` refuses int8 without
    if work.ranges is None:
        work.ranges = measure_ranges(work.source.graph, work.source.description, work.wanted.calibrate)
        work.source.digests["calibration"] = work.ranges.data_sha256
        say().print(f"calibrated on {work.ranges.images} pictures")
    return work.ranges


def measure_ranges(graph: ModelProto, description: Description, wanted: Calibrate) -> Ranges:
    """Measure a graph's ranges on pictures, with progress; pictures that cannot be read are named and left out."""
    from calibration.measure import measure_folder
    from calibration.settings import CalibrationSettings

    settings = CalibrationSettings(method=wanted.method)
    with progress("calibrating") as step:
        ranges, skipped = measure_folder(
            graph, description.preprocessing, wanted.data, wanted.images, settings, lambda done, of: step(done, of, "")
        )
    for error in skipped:
        say().print(f"skipped: {error}", style="yellow")
    return ranges


def _artifacts(work: _Work, typed: ModelProto, backend: str, precision: str) -> list[NewArtifact]:
    """Return what a bundle holds of one backend and precision: an engine where one is built, then its typed graph."""
    from edge_lsla.build.onnxruntime import build
    from edge_lsla.bundle import NewArtifact
    from edge_lsla.device import describe_device
    from edge_lsla.engine_building import TypedGraph, engine_artifact
    from edge_lsla.runner.onnxruntime import import_onnxruntime
    from edge_lsla.surgery.function import drop_function
    from edge_lsla.surgery.split import inline_functions, mark_decomposable

    if backend == "onnxruntime":
        return [build(typed, precision, import_onnxruntime().__version__)]
    form = work.wanted.form(backend)
    final = drop_function(typed) if form == "plugin" else inline_functions(typed)
    if form == "split":
        final = mark_decomposable(final)  # last: onnx.checker does not know the attribute
    data = final.SerializeToString(deterministic=True)
    made = [NewArtifact(data, backend, precision, versions={"attention": form})]
    if backend == "tensorrt-rtx" and work.wanted.targets:
        graph = TypedGraph(data, backend, precision, form)
        made.insert(0, engine_artifact(graph, work.wanted.targets, work.wanted.options, describe_device()))
    return made
