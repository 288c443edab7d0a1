"""A bundle's INT8 made anew from pictures of the field, where it is at least as good as the one it replaces.

Composes `calibration`, the gate and the bundle's parts, for `calibrate --update` in a checkout.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla import __version__
from edge_lsla.bundling import Source
from edge_lsla.console import progress, say
from edge_lsla.counting import with_counters
from edge_lsla.description import Description
from edge_lsla.errors import AccuracyError, CompatibilityError, DatasetError, GraphError
from edge_lsla.gate_pictures import divide_pictures
from edge_lsla.precision_choice import Budget, Decision, decide
from edge_lsla.precision_report import precision_reports
from edge_lsla.quantising import Calibrate, Quantiser
from edge_lsla.runner.drift import BASELINE
from edge_lsla.typed_graphs import TypedGraphs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from calibration.splits import Divided
    from edge_lsla.bundle import Artifact, Bundle, Manifest, Passport

BACKEND = "onnxruntime"
REBUILD = "build it again from the checkpoint, with --precision int8,fp32 and --data"


@dataclass(frozen=True)
class Update:
    """How to make a bundle's INT8 anew.

    Attributes:
        calibrate: pictures of the field, such as a reservoir, and the method.
        evaluate: labelled pictures that judge; None: some of those of the field do, by agreement with float.
        max_drop: points of top-1, or of agreement, that INT8 may lose.
        sources: a regular expression that tells a picture's source, see `calibration.splits.clusters_of`.
    """

    calibrate: Calibrate
    evaluate: Path | None = None
    max_drop: float = 0.5
    sources: str | None = None


def recalibrate(bundle: Bundle, output: Path, wanted: Update, report: Path) -> tuple[Manifest, dict[str, Any]]:
    """Write a bundle whose INT8 is calibrated on other pictures, and the gate's report, if the gate lets it.

    The new INT8 may lose at most `max_drop`, and may not be right on fewer of the judging pictures than the old one.
    Everything else in the bundle stays as it is.

    Args:
        bundle: open; holds INT8 of onnxruntime and float32 beside it.
        output: the new bundle. report: the page.

    Returns:
        The manifest, and the gate's figures.

    Raises:
        CompatibilityError: the bundle lacks one of them, or has INT8 that cannot be made anew from it.
        AccuracyError: the gate refuses; nothing is written.
        DatasetError: the pictures cannot be used.
    """
    from calibration.counters import counted_names
    from edge_lsla.preprocessing import normalise

    artifact, source = _artifact(bundle, "int8"), _source(bundle)
    _refuse_other_int8(bundle, source)
    preprocessing = source.description.preprocessing
    divided, calibrate = _divide(source, wanted)
    quantiser = Quantiser(source.graph, source.description, calibrate)
    inputs = normalise(bundle.golden_inputs(), preprocessing)
    graphs = TypedGraphs(source.graph, quantiser, inputs, lambda backend: "function")
    old = bundle.read(artifact)
    decision, figures = _judge(source, graphs, divided, wanted.max_drop, old)
    typed, counted = graphs.get(BACKEND, "int8"), {}
    if counted_names(_parsed(old, bundle, artifact)):
        graph, shares = with_counters(typed.graph, (quantiser.graph, source.graph), calibrate, preprocessing)
        typed, counted = dataclasses.replace(typed, graph=graph), {BASELINE: shares}
    passport = _passport(bundle.manifest, quantiser, typed.layers, counted, figures)
    with precision_reports(source, quantiser, {BACKEND: decision}, {BACKEND: report}):
        manifest = _write(bundle, output, passport, typed.graph, inputs)
    return manifest, figures


def _artifact(bundle: Bundle, precision: str) -> Artifact:
    for one in bundle.manifest.artifacts:
        if (one.backend, one.precision, one.kind) == (BACKEND, precision, "onnx"):
            return one
    what = "float32 graph to calibrate from" if precision == "fp32" else "INT8 of onnxruntime to replace"
    raise CompatibilityError(f"the bundle holds no {what}", bundle.path, REBUILD)


def _source(bundle: Bundle) -> Source:
    manifest, artifact = bundle.manifest, _artifact(bundle, "fp32")
    graph = _parsed(bundle.read(artifact), bundle, artifact)
    checkpoint = manifest.digests.get("checkpoint")
    description = Description(manifest.model, manifest.labels, manifest.preprocessing, checkpoint)
    digests = {name: digest for name, digest in manifest.digests.items() if name != "calibration"}
    return Source(bundle.path, graph, description, digests)


def _parsed(data: bytes, bundle: Bundle, artifact: Artifact) -> ModelProto:
    import onnx

    try:
        return onnx.load_from_string(data)
    except Exception as error:  # DecodeError of whichever protobuf implementation is installed
        raise GraphError("not an ONNX file", f"{bundle.path}: {artifact.name}", REBUILD) from error


def _refuse_other_int8(bundle: Bundle, source: Source) -> None:
    """Refuse what would stay as it was calibrated before, and a choice of layers that was searched for."""
    from calibration.points import find_layers

    for one in bundle.manifest.artifacts:
        if one.precision == "int8" and one.backend != BACKEND:
            raise CompatibilityError(
                f"the bundle also holds INT8 of {one.backend}, which would keep its old ranges",
                f"{bundle.path}: {one.name}",
                "build it again from the checkpoint, with pictures of the field as --data",
            )
    precisions = bundle.manifest.precisions.get("int8", {})
    kept = [layer.name for layer in find_layers(source.graph) if precisions.get(layer.name, "int8") != "int8"]
    if kept:
        raise CompatibilityError(
            f"a search left {len(kept)} layers in float, and would have to be done again",
            bundle.path,
            "build it again from the checkpoint with --precision auto",
        )


def _divide(source: Source, wanted: Update) -> tuple[Divided, Calibrate]:
    """Return the pictures that judge, and calibration without them."""
    from calibration.pictures import choose_pictures
    from calibration.splits import beside, divide

    data = wanted.calibrate.data
    if wanted.evaluate is not None:
        divided = divide_pictures(wanted.evaluate, source.description.labels, wanted.sources)
        divided = beside(divided, choose_pictures(data, wanted.calibrate.images), wanted.sources)
    elif data.is_dir():
        divided = divide(data, pattern=wanted.sources, labelled=False)
    else:
        raise DatasetError("the pictures are no folder that could be divided", data, "give --evaluate too")
    for note in divided.notes:
        say().print(note)
    return divided, dataclasses.replace(wanted.calibrate, exclude=divided.gate.paths)


def _judge(
    source: Source, graphs: TypedGraphs, divided: Divided, max_drop: float, old: bytes
) -> tuple[Decision, dict[str, Any]]:
    """Judge the new INT8 by float and by the old one; return the decision, and its figures for the passport."""
    import numpy as np

    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner

    remedy = "keep the bundle as it is, or give more pictures of the place"
    try:
        decision = decide(source, graphs, BACKEND, divided, Budget(max_drop), search=False)
    except AccuracyError as error:
        raise AccuracyError("the gate refuses the new INT8", error.where, remedy) from error
    with OnnxRuntimeRunner(old, where="the INT8 before") as runner, progress("judging the INT8 before") as step:
        answers = []
        for image in decision.pictures:
            answers.append(int(runner.run(image).argmax()))
            step(len(answers), len(decision.gate), "")
    before = int((np.array(answers) == decision.labels).sum())
    after = int(next(form for form in decision.forms if form.name == "int8").right.sum())
    kind = "agrees with float on" if decision.gate.labels is None else "is right on"
    note = f"the new INT8 {kind} {after} of {len(answers)} pictures, the one before on {before}"
    say().print(note)
    if after < before:
        raise AccuracyError("the new INT8 is worse than the one before", note, remedy)
    decision = dataclasses.replace(decision, notes=(*decision.notes, note))
    figures = decision.to_dict() | {"right": after, "right_before": before}
    return decision, figures


def _passport(
    manifest: Manifest,
    quantiser: Quantiser,
    layers: dict[str, str],
    counted: dict[str, Any],
    figures: dict[str, Any],
) -> Passport:
    from edge_lsla.bundle import Passport as New

    fields: dict[str, Any] = {name: getattr(manifest, name) for name in New.__dataclass_fields__}
    return New(
        **fields
        | {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "edge_lsla": __version__,
            "digests": manifest.digests | {"calibration": quantiser.data_sha256},
            "precisions": manifest.precisions | {"int8": layers},
            "fidelity": manifest.fidelity | {"gate": {BACKEND: figures}},
            "calibration": quantiser.recorded([BACKEND]) | counted,
        }
    )


def _write(
    bundle: Bundle, output: Path, passport: Passport, graph: ModelProto, inputs: NDArray[np.float32]
) -> Manifest:
    """Write the bundle with another INT8 graph in the place of the old one."""
    import numpy as np

    from edge_lsla.build.onnxruntime import build
    from edge_lsla.bundle import GoldenSet, NewArtifact, remember_built_here, was_built_here, write_bundle
    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner, import_onnxruntime

    held = bundle.manifest.artifacts
    replaced = _artifact(bundle, "int8")
    artifacts = [
        build(graph, "int8", import_onnxruntime().__version__)
        if one == replaced
        else NewArtifact(bundle.read(one), one.backend, one.precision, one.kind, one.versions, one.targets, one.name)
        for one in held
    ]
    logits = {(one.backend, one.precision): bundle.golden_logits(one) for one in held}
    with OnnxRuntimeRunner(graph.SerializeToString(), where="the new INT8") as runner:
        logits[BACKEND, "int8"] = np.concatenate([runner.run(one[None]) for one in inputs])
    difference = float(np.abs(logits[BACKEND, "int8"] - logits[BACKEND, "fp32"]).max())
    agreement = {"int8": {"golden_max_abs_difference_from_fp32": round(difference, 6)}}
    passport = dataclasses.replace(passport, fidelity=passport.fidelity | agreement)
    golden = GoldenSet(bundle.golden_inputs(), logits, bundle.manifest.golden.tolerance)
    manifest = write_bundle(output, passport, artifacts, golden)
    if was_built_here(bundle.manifest.sha256()):  # its engines, if it has any, are the same
        remember_built_here(manifest.sha256())
    return manifest
