"""The report of a build: what was found out about its precisions, as the page that `calibration.report` draws."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lsla import __version__
from edge_lsla.console import progress, say
from edge_lsla.timing import processor_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration.report.data import ClassChange, Curve, Flip, Form, LayerHistogram, ReportData
    from edge_lsla.bundling import Source
    from edge_lsla.precision_choice import Decision, FormMeasured
    from edge_lsla.quantising import Quantiser

HISTOGRAMS = 9  # of the layers that suffer most
CURVE_IMAGES = 16
CURVE_FORMS = ("int8", "mixed")


@contextlib.contextmanager
def precision_reports(
    source: Source, quantiser: Quantiser, decisions: Mapping[str, Decision], pages: Mapping[str, Path]
) -> Iterator[None]:
    """Write each backend's page and its JSON aside, and put them in place once what is done meanwhile is done.

    Raises:
        UsageError, EdgeLslaError, MissingComponentError: see `calibration.report.write.write_report`.
    """
    from calibration.report.write import pending_report

    with contextlib.ExitStack() as stack:
        for backend, decision in decisions.items():
            with progress("drawing the report"):
                stack.enter_context(pending_report(report_data(source, quantiser, decision), pages[backend]))
        yield
    for backend in decisions:
        say().print(f"report: {pages[backend]}")


def report_data(source: Source, quantiser: Quantiser, decision: Decision) -> ReportData:
    """Lay a decision out."""
    from calibration.naming import module_names
    from calibration.report.data import LayerDamage, Making, ReportData, SearchStep, Verdict
    from calibration.report.wording import count

    names = module_names(quantiser.graph)
    verdict, found, forms = decision.verdict, decision.found, decision.forms
    compared = _compared(decision)
    kept = set(compared.keep)
    floating = "fp32" if decision.backend == "onnxruntime" else "fp16"
    damages = tuple(
        LayerDamage(names.get(one.layer, one.layer), floating if one.layer in kept else "int8", one.snr_db, one.flips)
        for one in decision.damages
    )
    steps = found.steps if found else ()
    layers = len(decision.damages)
    return ReportData(
        model=source.description.name,
        verdict=Verdict(
            (_headline(decision), *(_sentence(line) for line in verdict.reasons if not line.endswith(" ships"))),
            verdict.form,
            verdict.max_drop,
            verdict.forced,
        ),
        forms=tuple(_form(form, decision) for form in forms),
        measured_on=f"{count(len(decision.gate), 'picture')} of {count(len(set(decision.gate.clusters)), 'source')}",
        timed_on=f"{decision.backend} on this machine's CPU, one picture at a time, {processor_name()}",
        compared=("fp32", compared.name),
        classes=_classes(decision, compared, source.description.labels),
        flips=_flips(decision, compared, source.description.labels),
        damages=damages,
        damage_images=decision.damage_images,
        histograms=_histograms(quantiser, decision, names),
        curves=_curves(quantiser, decision, names),
        search=tuple(SearchStep(step.int8 / layers, step.drop, step.accepted, None, step.tried) for step in steps),
        making=Making(
            _facts(quantiser, decision), _digests(source, quantiser), _versions(), _warnings(quantiser, decision)
        ),
    )


def _compared(decision: Decision) -> FormMeasured:
    """Return the form that the reference is compared with: what ships, or INT8 where that is the reference."""
    named = {form.name: form for form in decision.forms}
    return named[decision.verdict.form] if decision.verdict.form not in ("fp32", "fp16") else named["int8"]


def _headline(decision: Decision) -> str:
    verdict, forms = decision.verdict, {form.name: form for form in decision.forms}
    shipped = forms[verdict.form]
    name = verdict.form.upper() if verdict.form != "mixed" else "Mixed precision"
    if verdict.form not in verdict.drops:
        return f"{name} ships: INT8 did not pass the gate."
    paired = verdict.drops[verdict.form]
    lost = f"loses {paired.drop:.2f}" if paired.drop >= 0 else f"gains {-paired.drop:.2f}"
    text = f"{name} ships: it {lost} points (95 %: {_signed(paired.low)} to {_signed(paired.high)})"
    reference = forms["fp32"].latency_ms
    if shipped.latency_ms and reference:
        text += f" and is {reference / shipped.latency_ms:.2f} times as fast as FP32 on this CPU"
    return f"{text}, forced." if verdict.forced else f"{text}."


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _sentence(line: str, names: Mapping[str, str] | None = None) -> str:
    """Return a line of the gate or the search as a sentence, its layers called as `names` has them."""
    for layer in sorted(names or {}, key=len, reverse=True):
        line = re.sub(rf"\b{re.escape(layer)}\b", (names or {})[layer], line)
    line = re.sub(r"(?<=[( ])-(?=\d)", "\N{MINUS SIGN}", line)
    line = re.sub(r"\b(int8|fp16|fp32)\b", lambda found: found[1].upper(), line)
    return line[:1].upper() + line[1:] + ("" if line.endswith(".") else ".")


def _form(form: FormMeasured, decision: Decision) -> Form:
    from calibration.report.data import Form as Shown
    from edge_lsla.evaluation import wilson

    paired = decision.verdict.drops.get(form.name)
    reference = decision.forms[0]
    agreed = float((form.logits.argmax(axis=1) == reference.logits.argmax(axis=1)).mean())
    layers = len(decision.damages)
    return Shown(
        name=form.name,
        top1=100 * float(form.right.mean()),
        interval=wilson(int(form.right.sum()), len(form.right)),
        drop=None if paired is None else paired.drop,
        drop_interval=None if paired is None else (paired.low, paired.high),
        agreement=None if form is reference else 100 * agreed,
        size=form.size,
        latency_ms=form.latency_ms,
        int8_share=(layers - len(form.keep)) / layers if paired is not None else 0.0,
    )


def _classes(decision: Decision, compared: FormMeasured, labels: tuple[str, ...]) -> tuple[ClassChange, ...]:
    from calibration.report.data import ClassChange as Change

    if decision.gate.labels is None:
        return ()
    before, after = decision.forms[0].right, compared.right
    found = []
    for index, label in enumerate(labels):
        of = decision.labels == index
        if of.any():
            found.append(Change(label, int(before[of].sum()), int(after[of].sum()), int(of.sum())))
    return tuple(found)


def _flips(decision: Decision, compared: FormMeasured, labels: tuple[str, ...]) -> tuple[Flip, ...]:
    import dataclasses

    from calibration.report.answers import FLIPS_SHOWN
    from calibration.report.data import Flip as Shown
    from calibration.report.data import worst_first
    from calibration.report.pictures import thumbnail

    before, after = _probabilities(decision.forms[0].logits), _probabilities(compared.logits)
    paths = {}
    flips = []
    for place, path in enumerate(decision.gate.paths):
        old, new = int(before[place].argmax()), int(after[place].argmax())
        if old != new:
            name = f"{path.parent.name}/{path.name}"
            paths[name] = path
            figures = (labels[old], float(before[place, old]), labels[new], float(after[place, new]))
            flips.append(Shown(name, labels[int(decision.labels[place])], *figures))
    ordered = worst_first(flips)
    shown = [dataclasses.replace(flip, picture=thumbnail(paths[flip.name])) for flip in ordered[:FLIPS_SHOWN]]
    return (*shown, *ordered[FLIPS_SHOWN:])


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    import numpy as np

    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _histograms(quantiser: Quantiser, decision: Decision, names: dict[str, str]) -> tuple[LayerHistogram, ...]:
    from calibration.points import find_layers
    from calibration.report.data import LayerHistogram as Shown

    if quantiser.calibration is None:
        return ()
    activation = {layer.name: layer.activation for layer in find_layers(quantiser.graph)}
    found = []
    for damage in decision.damages[:HISTOGRAMS]:
        tensor = activation[damage.layer]
        histogram = quantiser.calibration.measured.histograms[tensor]
        chosen = quantiser.ranges_for(decision.backend).ranges[tensor]
        layer = names.get(damage.layer, damage.layer)
        extremes = (histogram.minimum, histogram.maximum)
        ends = (histogram.low, histogram.high)
        found.append(Shown.of(layer, tensor, histogram.counts.tolist(), *ends, chosen, extremes=extremes))
    return tuple(found)


def _curves(quantiser: Quantiser, decision: Decision, names: dict[str, str]) -> tuple[Curve, ...]:
    """Return the error of what each layer reads, along the network, on a few pictures."""
    from calibration.compare import compare
    from calibration.points import find_layers
    from calibration.report.data import Curve as Shown
    from calibration.report.data import CurvePoint
    from calibration.tensors import OnnxSide

    layers = {layer.activation: layer.name for layer in reversed(find_layers(quantiser.graph))}
    images = [image for image, _ in zip(decision.pictures, range(CURVE_IMAGES))]
    found = {}
    for form in decision.forms:
        if form.name in CURVE_FORMS:
            sides = (OnnxSide("fp32", lambda: quantiser.graph), OnnxSide(form.name, lambda form=form: form.graph))  # type: ignore[misc]
            found[form.name] = {
                error.name: error.sqnr_db for error in compare(*sides, images).matched if error.name in layers
            }
    common = [name for name in layers if found and all(name in errors for errors in found.values())]
    order = {layer.activation: place for place, layer in reversed(list(enumerate(find_layers(quantiser.graph))))}
    common.sort(key=lambda name: order[name])
    return tuple(
        Shown(form, tuple(CurvePoint(names.get(layers[name], layers[name]), errors[name]) for name in common))
        for form, errors in found.items()
    )


def _facts(quantiser: Quantiser, decision: Decision) -> tuple[tuple[str, str], ...]:
    from calibration.naming import module_names
    from calibration.report.wording import title

    ranges = quantiser.ranges_for(decision.backend)
    facts = [
        ("backend", decision.backend),
        ("ranges", f"{ranges.method}, {ranges.images} pictures"),
        *([("ranges chosen by", f"logits: {ranges.chosen}")] if ranges.chosen else []),
        ("layers ranked on", f"{decision.damage_images} pictures"),
        ("judged on", _judged(decision)),
    ]
    facts += [("pictures", note) for note in decision.notes]
    times = [
        f"{title(form.name)} {form.latency_span[0]:.2f} to {form.latency_span[1]:.2f} ms"
        for form in decision.forms
        if form.latency_span
    ]
    if times:
        facts.append(("middle half of the times", ", ".join(times)))
    if decision.found is not None:
        facts.append(("cost of a layer", f"counted in {decision.found.unit}: {decision.found.source}"))
        names = module_names(quantiser.graph)
        facts += [("search", _sentence(note, names)) for note in decision.found.notes]
    return tuple(facts)


def _judged(decision: Decision) -> str:
    pictures = f"{len(decision.gate)} pictures"
    if decision.shared:
        return f"{pictures}; other pictures of {decision.shared} of their sources were calibrated on or searched with"
    return f"{pictures} that nothing was chosen by"


def _digests(source: Source, quantiser: Quantiser) -> tuple[tuple[str, str], ...]:
    return (*source.digests.items(), ("calibration pictures", quantiser.data_sha256))


def _versions() -> tuple[tuple[str, str], ...]:
    import onnx
    import onnxruntime

    return (("edge-lsla", __version__), ("onnx", onnx.__version__), ("ONNX Runtime", onnxruntime.__version__))


def _warnings(quantiser: Quantiser, decision: Decision) -> tuple[str, ...]:
    calibration = quantiser.calibration.warnings if quantiser.calibration else ()
    searched = decision.found.warnings if decision.found else ()
    return tuple(_sentence(line) for line in (*decision.verdict.warnings, *calibration, *searched))
