"""From a fused graph to a bundle: typed graphs for each backend and precision, engines, golden numbers, the passport.

Composes stages for `build-engine` and `demo` in a checkout: it uses `calibration`, which no installed wheel has.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla import __version__
from edge_lsla.console import say
from edge_lsla.counting import with_counters
from edge_lsla.description import Description
from edge_lsla.engine_cache import EngineOptions
from edge_lsla.errors import GraphError, MissingComponentError, UsageError
from edge_lsla.quantising import Calibrate, Quantiser
from edge_lsla.typed_graphs import TypedGraphs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

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
class Chosen:
    """What a search for precision chose for a backend: "int8", "fp16" or "fp32", and the layers that are not INT8."""

    precision: str
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What to put into a bundle.

    Attributes:
        backends: each gets an artifact for each precision that it knows, or fp32 where it knows none of them.
        precisions: the preferred one first.
        targets: of tensorrt-rtx engines, "sm86"; none: the typed graph only, from which a device builds.
        options: of engines.
        attention: "auto", or its form on GPUs: "plugin", "function" or "split".
        calibrate: pictures for int8 and for the golden set.
        chosen: for each backend what was chosen for it, instead of `precisions`.
        counters: INT8 of onnxruntime counts saturation where it is asked to.

    Raises:
        UsageError: a combination that no backend has.
    """

    backends: tuple[str, ...] = ("onnxruntime",)
    precisions: tuple[str, ...] = ("fp32",)
    targets: tuple[str, ...] = ()
    options: EngineOptions = field(default_factory=EngineOptions)
    attention: str = "auto"
    calibrate: Calibrate | None = None
    chosen: Mapping[str, Chosen] = field(default_factory=dict)
    counters: bool = False

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
        if self.counters and not ("onnxruntime" in self.backends and "int8" in self.precisions):
            raise UsageError(
                "only INT8 of onnxruntime counts saturation", "--counters", "add int8 to --precision, or leave it out"
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
        if self.chosen:
            return [(one, self.chosen[one].precision) for one in self.backends]
        return [(one, precision) for one in self.backends for precision in self._precisions(one)]

    def _precisions(self, backend: str) -> tuple[str, ...]:
        """Return what is built for a backend; one that knows none of those asked for gets float32, not nothing."""
        return tuple(one for one in self.precisions if one in BACKENDS[backend]) or ("fp32",)

    def keep(self, backend: str) -> tuple[str, ...]:
        """Return the layers that are not INT8 on a backend, where INT8 was chosen."""
        return self.chosen[backend].keep if backend in self.chosen else ()

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


def open_graphs(source: Source, wanted: Wanted) -> TypedGraphs:
    """Return what makes the typed graphs of a source.

    Raises:
        DatasetError: no picture of the data can be read.
    """
    from calibration.measure import golden_pixels
    from edge_lsla.preprocessing import normalise

    preprocessing = source.description.preprocessing
    pixels = golden_pixels(preprocessing, wanted.calibrate.data if wanted.calibrate else None, GOLDEN_IMAGES)
    quantiser = Quantiser(source.graph, source.description, wanted.calibrate)
    return TypedGraphs(source.graph, quantiser, normalise(pixels, preprocessing), wanted.form)


def build_bundle(
    source: Source,
    output: Path,
    wanted: Wanted,
    graphs: TypedGraphs | None = None,
    gate: dict[str, Any] | None = None,
) -> tuple[Manifest, dict[str, Any]]:
    """Make the artifacts, record what each computes for a few pictures, and write the bundle.

    Args:
        source: the model.
        output: the bundle.
        wanted: what to put into it.
        graphs: from `open_graphs`, where they were needed before.
        gate: the verdict by backend, for the passport.

    Returns:
        The manifest, and figures of agreement with float32.

    Raises:
        GraphError: the model and its labels do not fit, or a backend refuses it.
        MissingComponentError: a backend, or the plugin library, is absent.
    """
    import numpy as np

    from calibration.measure import golden_pixels
    from edge_lsla.bundle import GoldenSet, Passport, Tolerance, write_bundle
    from edge_lsla.bundle.trust import try_to_remember
    from edge_lsla.preprocessing import normalise
    from edge_lsla.runner.drift import BASELINE
    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner

    description, labels = source.description, source.description.labels
    plugin = describe_plugin() if "plugin" in {wanted.form(one) for one in wanted.backends} else None
    data = wanted.calibrate.data if wanted.calibrate else None
    pixels = golden_pixels(description.preprocessing, data, GOLDEN_IMAGES)
    inputs = normalise(pixels, description.preprocessing)
    graphs = graphs or open_graphs(source, wanted)

    def compute(model: bytes, name: str) -> NDArray[np.float32]:
        with OnnxRuntimeRunner(model, where=f"{source.path} in {name}") as runner:
            return np.concatenate([runner.run(one[None]) for one in inputs])

    reference = compute(source.graph.SerializeToString(), "fp32")
    if reference.shape[1] != len(labels):
        raise GraphError(
            f"model has {reference.shape[1]} classes, the labels {len(labels)}", source.path, "give --labels"
        )
    artifacts, logits = [], {}
    layers: dict[str, dict[str, str]] = {}
    fidelity: dict[str, Any] = {}
    counted: dict[str, Any] = {}
    for backend, precision in wanted.pairs():
        typed = graphs.get(backend, precision, wanted.keep(backend))
        if wanted.counters and wanted.calibrate and (backend, precision) == ("onnxruntime", "int8"):
            of = (graphs.quantiser.graph, source.graph)
            counting, shares = with_counters(typed.graph, of, wanted.calibrate, description.preprocessing)
            typed, counted[BASELINE] = replace(typed, graph=counting), shares
        # The typed graph in ONNX Runtime, whose CPU computes halves in float32: what a GPU should come near to.
        answer = logits[backend, precision] = compute(typed.graph.SerializeToString(), f"{backend} {precision}")
        on_cpu = backend == "onnxruntime"
        figures = fidelity.setdefault(precision if on_cpu else f"{backend}-{precision}", {})
        figures["golden_max_abs_difference_from_fp32"] = round(float(np.abs(answer - reference).max()), 6)
        if typed.half is not None:
            figures["largest_activation_over_65504"] = round(typed.half.largest.ratio, 6)
        if typed.layers:
            layers[precision if on_cpu else f"{backend}-{precision}.onnx"] = typed.layers
        artifacts += _artifacts(wanted, typed.graph, backend, precision)
    if gate:
        fidelity["gate"] = gate
    quantised = [backend for backend, precision in wanted.pairs() if precision == "int8"]
    digests = dict(source.digests) | ({"calibration": graphs.quantiser.data_sha256} if quantised else {})
    spread = max(float(reference.std()), 1e-3)
    slack = {"fp32": FP32_SLACK * max(1.0, spread), "fp16": FP16_SLACK * max(1.0, spread), "int8": INT8_SLACK * spread}
    passport = Passport(
        name=description.name,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        edge_lsla=__version__,
        model=description.model,
        labels=labels,
        preprocessing=description.preprocessing,
        digests=digests,
        precisions=layers,
        fidelity=fidelity,
        calibration=graphs.quantiser.recorded(quantised) | counted if quantised else None,
        plugin=plugin,
        abstention=_abstention(graphs, source.description, wanted),
    )
    allowed = {precision: Tolerance(slack[precision]) for _, precision in wanted.pairs()}
    manifest = write_bundle(output, passport, artifacts, GoldenSet(pixels, logits, allowed))
    engines = any(artifact.kind == "engine" for artifact in manifest.artifacts)
    if engines and (problem := try_to_remember(manifest.sha256(), output)):
        say().print(problem, style="yellow")
    return manifest, fidelity


def _abstention(graphs: TypedGraphs, description: Description, wanted: Wanted) -> dict[str, Any] | None:
    """Return the least confidence of an answer of the preferred artifact, where pictures were held out to choose it."""
    from edge_lsla.abstention import held_out_abstention
    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner

    if wanted.calibrate is None:
        return None
    backend, precision = wanted.pairs()[0]
    typed = graphs.get(backend, precision, wanted.keep(backend)).graph
    with OnnxRuntimeRunner(typed.SerializeToString(), where=f"{backend} {precision}") as runner:
        found = held_out_abstention(runner.run, description.labels, description.preprocessing, wanted.calibrate.data)
    if found is None:
        return None
    say().print(
        f"answers below a confidence of {found.threshold:.4f} had better be unknown: {found.right:.1%} of the "
        f"{found.coverage:.1%} above it are right on {found.images} pictures of val"
    )
    return found.recorded()


def describe_plugin() -> dict[str, Any]:
    """Describe the plugin library whose kernels the bundle will need.

    Raises:
        MissingComponentError: there is none.
    """
    from edge_lsla.plugin_library import find_plugin, read_plugin

    library = find_plugin()
    if library is None:
        raise MissingComponentError(
            "the plugin library is absent, whose kernels the bundle must name",
            "build/plugin",
            "make it: python cli.py plugin build; or choose --attention function",
        )
    read = read_plugin(library)
    return {"operator_version": str(read.operator_version), "cubin_index": read.index_digest}


def _artifacts(wanted: Wanted, typed: ModelProto, backend: str, precision: str) -> list[NewArtifact]:
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
    form = wanted.form(backend)
    final = drop_function(typed) if form == "plugin" else inline_functions(typed)
    if form == "split":
        final = mark_decomposable(final)  # last: onnx.checker does not know the attribute
    data = final.SerializeToString(deterministic=True)
    made = [NewArtifact(data, backend, precision, versions={"attention": form})]
    if backend == "tensorrt-rtx" and wanted.targets:
        graph = TypedGraph(data, backend, precision, form)
        made.insert(0, engine_artifact(graph, wanted.targets, wanted.options, describe_device()))
    return made
