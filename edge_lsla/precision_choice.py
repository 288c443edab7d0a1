"""Which precision a backend gets: forms of the model measured on pictures that nothing was chosen by, and a verdict.

Composes calibration, the runners and the console; reports are made of what it returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_lsla.bundling import Chosen
from edge_lsla.console import progress, say
from edge_lsla.errors import AccuracyError, EdgeLslaError, UsageError
from edge_lsla.gate_evaluations import open_evaluations, tell
from edge_lsla.gate_pictures import LEAST, Pictures, check_enough, first_pictures, select_pictures

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
        latency_span: between which two the middle half of its times lay, ms.
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
    latency_span: tuple[float, float] | None = None


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
        shared: how many of their sources have other pictures that were chosen by.
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
    shared: int = 0

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
        DatasetError: too few pictures are left.
    """
    from calibration.gate import GateSettings, judge
    from calibration.paired import difference

    searched, judged = _pictures(source, divided, budget, search)
    evaluations = open_evaluations(graphs, backend, searched)
    found: Found | None = None
    if search:
        found = _search(graphs, backend, evaluations, budget, searched)
        damages = found.ranking
        if found.refusal:
            say().print(found.refusal, style="yellow")
    else:
        damages = _rank(evaluations)
    tell(evaluations)
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
        verdict = replace(verdict, warnings=(*verdict.warnings, *_as_fast(forms)))
    else:
        verdict = _alone(drops, forms, GateSettings(budget.max_drop, budget.sure, need_latency=False), budget)
    notes = (*divided.notes, *judged.notes, *_unlabelled(judged.side))
    for line in (*verdict.reasons, *verdict.warnings):
        say().print(f"{backend}: {line}")
    labels = _labels(judged.side, forms[0])
    shared = len(divided.shared & set(judged.side.clusters))
    return Decision(backend, forms, verdict, judged, labels, found, damages, len(searched), notes, shared)


def _pictures(source: Source, divided: Divided, budget: Budget, search: bool) -> tuple[Pictures, Pictures]:
    """Read the pictures to search with and those that judge, and say what is left out of them."""
    from calibration.duplicates import Copies

    preprocessing, given = source.description.preprocessing, divided.search
    judging = Copies(divided.gate.paths)
    search_side = select_pictures(given, [place for place, path in enumerate(given.paths) if path not in judging])
    if len(search_side) < len(given):
        copies = len(given) - len(search_side)
        say().print(f"to search with: left out: {copies} of {len(given)} pictures, which judge", style="yellow")
    searched = Pictures(first_pictures(search_side, budget.search_images if search else RANKED), preprocessing)
    judged = Pictures(divided.gate, preprocessing)
    for what, pictures, least in (("search", searched, 1), ("judge", judged, LEAST)):
        for note in pictures.notes:
            say().print(f"to {what} with: {note}", style="yellow")
        check_enough(what, len(pictures), least)
    return searched, judged


def _alone(
    drops: Mapping[str, Paired], forms: Sequence[FormMeasured], settings: GateSettings, budget: Budget
) -> Verdict:
    """Judge INT8 by its accuracy only."""
    from calibration.gate import judge

    verdict = judge(drops, {form.name: form.latency_ms for form in forms}, settings, _forced(budget))
    if verdict.form != "int8":
        raise AccuracyError(
            "the gate refuses INT8", verdict.reasons[0], "use --precision auto, which mixes precisions, or --force"
        )
    return verdict


def _as_fast(forms: Sequence[FormMeasured]) -> Iterator[str]:
    """Say which forms with INT8 a second measurement might judge otherwise: times that overlap with float's."""
    plain = min((form for form in forms if form.precision != "int8"), key=lambda form: form.latency_ms or float("inf"))
    for form in forms:
        if form.precision == "int8" and form.latency_span and plain.latency_span:
            (low, high), (other_low, other_high) = form.latency_span, plain.latency_span
            if low <= other_high and other_low <= high:
                yield (
                    f"{form.name} takes about as long as {plain.name} here ({low:.2f} to {high:.2f} ms against "
                    f"{other_low:.2f} to {other_high:.2f}, the middle halves): another run may decide otherwise"
                )


def _forced(budget: Budget) -> str | None:
    return "int8" if budget.force else None


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
            latency_ms=latencies[name][1] if latencies else None,
            size=len(files[name]),
            latency_span=(latencies[name][0], latencies[name][2]) if latencies else None,
        )
        for name, (precision, keep) in wanted.items()
    )


def _latencies(files: Mapping[str, bytes], backend: str, image: NDArray[np.float32]) -> dict[str, list[float]]:
    """Return the quartiles of each form's times; none on GPUs, whose engines are measured there by `benchmark`."""
    import contextlib
    import functools
    import statistics

    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner
    from edge_lsla.timing import times_ms

    if backend != "onnxruntime":
        return {}
    with contextlib.ExitStack() as stack:
        runners = {name: stack.enter_context(OnnxRuntimeRunner(file)) for name, file in files.items()}
        runs = {name: functools.partial(runner.run, image) for name, runner in runners.items()}
        return {name: statistics.quantiles(times) for name, times in times_ms(runs, REPEATS).items()}


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
