"""Which precision a backend gets: forms of the model measured on pictures that nothing was chosen by, and a verdict.

Composes calibration, the runners and the console; reports are made of what it returns.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla.bundling import Chosen
from edge_lsla.console import progress, say
from edge_lsla.errors import AccuracyError, EdgeLslaError, UsageError
from edge_lsla.gate_pictures import Pictures, first_pictures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from calibration.costs import Costs
    from calibration.evaluations import Evaluations
    from calibration.gate import GateSettings, Verdict
    from calibration.paired import Paired
    from calibration.search import Found
    from calibration.sensitivity import Damage
    from calibration.splits import Divided, Side
    from edge_lsla.bundling import Source
    from edge_lsla.typed_graphs import TypedGraphs

REPEATS = 60  # inferences of each form whose median is its latency
PROFILED = 10  # inferences whose kernels are timed for the search
RANKED = 128  # pictures of a ranking that no search needs


@dataclass(frozen=True)
class Budget:
    """What INT8 may cost.

    Attributes:
        max_drop: points of top-1.
        sure: the whole 95 % interval must be within it.
        force: INT8 ships whatever the verdict; recorded.
        sources: a regular expression with one group that finds a picture's source in its file name; None: the name
            without its running number.
        search_images: most pictures to search with; None: all.
    """

    max_drop: float = 0.5
    sure: bool = False
    force: bool = False
    sources: str | None = None
    search_images: int | None = None


@dataclass(frozen=True)
class FormMeasured:
    """One form of the model.

    Attributes:
        name: "fp32", "fp16", "int8" (all layers that can be) or "mixed".
        precision: of its artifact. keep: layers that are not INT8. graph: typed.
        logits: of the gate pictures, float32 [N, classes]. right: which of them it names rightly, bool [N].
        latency_ms: median of one picture on this device and backend; None where that cannot run here.
        size: of the ONNX file, bytes.
    """

    name: str
    precision: str
    keep: tuple[str, ...]
    graph: ModelProto
    logits: NDArray[np.float32]
    right: NDArray[np.bool_]
    latency_ms: float | None
    size: int


@dataclass(frozen=True)
class Decision:
    """What was found out for a backend.

    Attributes:
        backend: whose.
        forms: float32 first. verdict: which ships, and why.
        pictures: that judged. labels: their classes, what float32 says where they have none.
        found: the search's result; None without one.
        damages: each layer's harm when it alone is INT8, worst first. damage_images: on how many pictures.
        notes: sentences on how pictures were divided.
    """

    backend: str
    forms: tuple[FormMeasured, ...]
    verdict: Verdict
    pictures: Pictures
    labels: NDArray[np.int64]
    found: Found | None
    damages: tuple[Damage, ...]
    damage_images: int
    notes: tuple[str, ...]

    @property
    def gate(self) -> Side:
        """Files, labels and sources of the pictures that judged."""
        return self.pictures.side

    @property
    def chosen(self) -> Chosen:
        """What ships."""
        form = next(form for form in self.forms if form.name == self.verdict.form)
        return Chosen(form.precision, form.keep)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict and the search, JSON-ready, for the passport."""
        values = self.verdict.to_dict() | {"gate_images": len(self.gate), "notes": list(self.notes)}
        return values | ({"search": self.found.to_dict()} if self.found else {})


def decide(
    source: Source, graphs: TypedGraphs, backend: str, divided: Divided, budget: Budget, *, search: bool
) -> Decision:
    """Measure the forms of a model and judge which of them ships.

    Args:
        source: the model.
        graphs: makes its forms.
        backend: whose forms.
        divided: pictures.
        budget: what INT8 may cost.
        search: choose among all forms, mixed ones too, and by latency as well; without it INT8 is judged alone, by its
            accuracy.

    Raises:
        AccuracyError: without search, INT8 loses more than the budget and is not forced.
        DatasetError: no picture can be read.
    """
    from calibration.gate import GateSettings, judge
    from calibration.paired import difference

    preprocessing = source.description.preprocessing
    searched = Pictures(first_pictures(divided.search, budget.search_images if search else RANKED), preprocessing)
    judged = Pictures(divided.gate, preprocessing)
    evaluations = _evaluations(graphs, backend, searched)
    found: Found | None = None
    if search:
        found = _search(graphs, backend, evaluations, budget, searched)
        damages = found.ranking
        if found.refusal:
            say().print(found.refusal, style="yellow")
    else:
        damages = _rank(evaluations)
    on_gpu = backend != "onnxruntime"
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {"fp32": ("fp32", ())}
    if on_gpu and search:
        wanted["fp16"] = ("fp16", ())
    wanted["int8"] = ("int8", ())
    if found is not None and found.int8 and found.kept:
        wanted["mixed"] = ("int8", found.kept)
    forms = _measure(graphs, backend, wanted, judged)
    drops = {form.name: _drop(difference, forms[0], form, judged.side) for form in forms if form.precision == "int8"}
    if search:
        settings = GateSettings(budget.max_drop, budget.sure)
        verdict = judge(drops, {form.name: form.latency_ms for form in forms}, settings, _forced(budget))
    else:
        verdict = _alone(drops, forms, GateSettings(budget.max_drop, budget.sure, need_latency=False), budget)
    notes = (*divided.notes, *_unlabelled(judged.side))
    for line in (*verdict.reasons, *verdict.warnings):
        say().print(f"{backend}: {line}")
    labels = _labels(judged.side, forms[0])
    return Decision(backend, forms, verdict, judged, labels, found, damages, len(searched), notes)


def _alone(
    drops: Mapping[str, Paired], forms: Sequence[FormMeasured], settings: GateSettings, budget: Budget
) -> Verdict:
    """Judge INT8 by its accuracy only."""
    from dataclasses import replace

    from calibration.gate import judge

    measured = {form.name: form.latency_ms for form in forms}
    verdict = judge(drops, dict.fromkeys(measured), settings, _forced(budget))
    verdict = replace(verdict, latencies=measured)
    if verdict.form != "int8":
        raise AccuracyError(
            "the gate refuses INT8", verdict.reasons[0], "use --precision auto, which mixes precisions, or --force"
        )
    return verdict


def _forced(budget: Budget) -> str | None:
    return "int8" if budget.force else None


def _evaluations(graphs: TypedGraphs, backend: str, pictures: Pictures) -> Evaluations:
    import numpy as np

    from calibration.evaluations import Evaluations
    from calibration.identity import DataDigest, model_sha256
    from calibration.settings import QdqSettings
    from calibration.switches import SwitchedSession

    quantiser = graphs.quantiser
    settings = QdqSettings(backend="onnxruntime" if backend == "onnxruntime" else "tensorrt")
    session = SwitchedSession(quantiser.graph, quantiser.ranges, settings)
    digest = DataDigest()
    for image in pictures:
        digest.update(image)
    key = {
        "model": model_sha256(quantiser.graph),
        "ranges": hashlib.sha256(repr(sorted(quantiser.ranges.ranges.items())).encode()).hexdigest(),
        "settings": repr(settings),
        "data": digest.hexdigest(),
        "labels": hashlib.sha256(repr(pictures.side.labels).encode()).hexdigest(),
    }

    def evaluate(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.concatenate([session.logits(image, mask) for image in pictures])

    labels = pictures.side.labels
    named = None if labels is None else np.array(labels)
    evaluations = Evaluations(session.names, evaluate, named, _state(key), key)
    if evaluations.notice:
        say().print(evaluations.notice, style="yellow")
    return evaluations


def _state(key: Mapping[str, str]) -> Path | None:
    """Name the file that an interrupted search goes on from; None where the cache cannot be written."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-lsla" / "search"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return base / f"{hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:16]}.json"


def _search(graphs: TypedGraphs, backend: str, evaluations: Evaluations, budget: Budget, pictures: Pictures) -> Found:
    from calibration.search import SearchSettings
    from calibration.search import search as run

    fallback = "fp32" if backend == "onnxruntime" else "fp16"
    costs = _costs(graphs, backend, next(iter(pictures)))
    with progress("searching precisions") as step:
        return run(evaluations, costs, SearchSettings(budget.max_drop, fallback), step)


def _rank(evaluations: Evaluations) -> tuple[Damage, ...]:
    from calibration.sensitivity import rank_layers

    with progress("ranking layers") as step:
        return rank_layers(evaluations, step)


def _costs(graphs: TypedGraphs, backend: str, image: NDArray[np.float32]) -> Costs:
    """Return measured latencies of layers where the backend is here and tells all of them, else estimates."""
    from calibration.costs import estimated_costs, measured_costs
    from calibration.points import find_layers
    from edge_lsla.layer_times import costs, measure_layers

    graph = graphs.quantiser.graph
    if backend != "onnxruntime":
        return estimated_costs(graph, "tensorrt")
    layers = {layer.name: layer for layer in find_layers(graph)}
    floats = costs(measure_layers(graph.SerializeToString(), image, PROFILED), layers)
    quantised = measure_layers(graphs.get(backend, "int8").graph.SerializeToString(), image, PROFILED)
    int8 = costs(quantised, layers)
    readers = [layer.activation for layer in layers.values()]
    rows = {row.name: row.milliseconds for row in quantised}
    for name, layer in layers.items():  # what writes a layer's integers is part of its price
        writing = rows.get(f"{layer.activation}_quantized_QuantizeLinear", 0.0)
        int8[name] = int8.get(name, 0.0) + writing / readers.count(layer.activation)
    try:
        return measured_costs(graph, {name: {"fp32": floats.get(name, 0.0), "int8": int8[name]} for name in layers})
    except UsageError:  # a layer too small for the clock, or one that ONNX Runtime does not tell
        return estimated_costs(graph, backend)


def _measure(
    graphs: TypedGraphs, backend: str, wanted: Mapping[str, tuple[str, tuple[str, ...]]], pictures: Pictures
) -> tuple[FormMeasured, ...]:
    """Run each form on the gate pictures in ONNX Runtime, and time it on the backend where that is here."""
    import numpy as np

    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner

    made = {name: graphs.get(backend, precision, keep) for name, (precision, keep) in wanted.items()}
    files = {name: typed.graph.SerializeToString(deterministic=True) for name, typed in made.items()}
    latencies = _latencies(files, backend, next(iter(pictures)))
    logits = {}
    for name, file in files.items():
        with OnnxRuntimeRunner(file, where=f"{backend} {name}") as runner, progress(f"judging {name}") as step:
            rows = []
            for image in pictures:
                rows.append(runner.run(image))
                step(len(rows), len(pictures), "")
        logits[name] = np.concatenate(rows)
        if not np.isfinite(logits[name]).all():
            raise EdgeLslaError("logits hold NaN or infinity", f"{backend} {name}", "check the checkpoint")
    truth = pictures.side.labels
    labels = logits["fp32"].argmax(axis=1) if truth is None else np.array(truth)
    return tuple(
        FormMeasured(
            name=name,
            precision=precision,
            keep=keep,
            graph=made[name].graph,
            logits=logits[name],
            right=logits[name].argmax(axis=1) == labels,
            latency_ms=latencies[name],
            size=len(files[name]),
        )
        for name, (precision, keep) in wanted.items()
    )


def _latencies(files: Mapping[str, bytes], backend: str, image: NDArray[np.float32]) -> dict[str, float | None]:
    """Return each form's median latency; None on GPUs, whose engines are measured on the device by `benchmark`."""
    import contextlib
    import functools

    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner
    from edge_lsla.timing import medians_ms

    if backend != "onnxruntime":
        return dict.fromkeys(files)
    with contextlib.ExitStack() as stack:
        runners = {name: stack.enter_context(OnnxRuntimeRunner(file)) for name, file in files.items()}
        runs = {name: functools.partial(runner.run, image) for name, runner in runners.items()}
        return dict(medians_ms(runs, REPEATS))


def _drop(difference: Any, first: FormMeasured, second: FormMeasured, side: Side) -> Paired:
    paired: Paired = difference(first.right, second.right, side.clusters)
    return paired


def _labels(side: Side, reference: FormMeasured) -> NDArray[np.int64]:
    import numpy as np

    return reference.logits.argmax(axis=1) if side.labels is None else np.array(side.labels)


def _unlabelled(side: Side) -> tuple[str, ...]:
    if side.labels is not None:
        return ()
    return ("the pictures have no classes: agreement with float stands for top-1",)
