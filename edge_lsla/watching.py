"""Watching one source for a verb: classify its frames, show and keep what was seen, and say how it went."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla.console import say
from edge_lsla.errors import MissingComponentError, SourceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_lsla.pipeline.finding import Finding
    from edge_lsla.pipeline.settings import SourceSettings
    from edge_lsla.pipeline.watch import Sink
    from edge_lsla.predictions import Prediction
    from edge_lsla.runner.drift import DriftCounter
    from edge_lsla.runner.model import Model


def watch_source(
    model: Model,
    spec: str,
    settings: SourceSettings,
    *,
    save: Path | None = None,
    events: Path | None = None,
    min_confidence: float | None = None,
    regions: str = "full",
    batch: int = 1,
    window: bool = False,
    quiet: bool = False,
    whole: bool = False,
    max_frames: int | None = None,
    max_seconds: float | None = None,
    drift: int | None = None,
    also: Sequence[Sink] = (),
) -> dict[str, Any]:
    """Classify a source's frames and show them in a window or as lines; also into a video and a file of events.

    Ctrl-C ends a camera as it should be ended; with `whole`, for recordings, it interrupts: no output is written.
    With `drift`, drift is counted on every so many frames; `also` are more sinks. `regions` other than "full" are
    sought and classified, and individuals counted (see `FindingSettings`).
    """
    from edge_lsla.pipeline.signals import stop_on_signals
    from edge_lsla.pipeline.sources import open_source
    from edge_lsla.pipeline.watch import WatchSettings, watch
    from edge_lsla.preprocessing import to_tensor
    from edge_lsla.sinks.lines import JsonLines, Lines
    from edge_lsla.sinks.video import VideoWriter
    from edge_lsla.sinks.window import Window

    limits = WatchSettings(max_frames, max_seconds, min_confidence or 0.0, batch)
    finding = None if regions == "full" else _finding(spec, regions, min_confidence, model)
    counter = model.drift_counter(drift) if drift else None

    def classify(frames: Sequence[NDArray[np.uint8]]) -> tuple[tuple[Prediction, ...], ...]:
        if counter is not None:
            counter.look(frames, lambda frame: to_tensor(frame, model.preprocessing))
        return model(list(frames), 3)

    stopping = contextlib.nullcontext(threading.Event()) if whole else stop_on_signals()
    with stopping as stop, open_source(spec, settings) as source:
        sinks: list[Sink] = [*also]
        if window:
            available, reason = Window.available()
            if available:
                sinks.append(Window(f"edge-lsla: {source.name}", stop))
            else:
                say().print(f"no window: {reason}", style="dim")
        if len(sinks) == len(also) and not quiet:
            sinks.append(Lines(sys.stderr if say().stderr else sys.stdout))
        if save is not None:
            sinks.append(VideoWriter(save, source.rate, keep_partial=not whole))
        if events is not None:
            sinks.append(JsonLines(events))
        report = watch(source, classify, sinks, limits, stop, finding)
    most = ", ".join(f"{label} {count}" for label, count in list(report.counts.items())[:5])
    say().print(
        f"{report.frames} frames, {report.dropped} dropped, {report.fps:.1f} frames/s, latency p50 "
        f"{report.latency_p50_ms:.1f} ms p95 {report.latency_p95_ms:.1f} ms, ended: {report.ended}\n"
        f"{report.counted}: {most or 'none'}",
    )
    if save is not None and report.frames:
        say().print(f"written: {save}")
    facts = {"predictions": report.counts, **report.to_dict(), "source": source.name, **say_drift(counter)}
    if report.ended.startswith("broken off"):
        what = f"source broke off after {report.frames} frames"
        raise SourceError(what, None, report.ended.removeprefix("broken off: "), details=facts)
    return facts


def _finding(source: str, regions: str, min_confidence: float | None, model: Model) -> Finding:
    from edge_lsla.pipeline.finding import Finding, FindingSettings

    try:
        return Finding(source, FindingSettings(regions, min_confidence=min_confidence), model.manifest.threshold)
    except ImportError as error:
        raise MissingComponentError(
            "finding insects needs OpenCV and trackers", f"--regions {regions}", "install edge-lsla[service]"
        ) from error


def say_drift(counter: DriftCounter | None) -> dict[str, Any]:
    """Say what a counter found, and return it for `--json`; nothing without one."""
    if counter is None:
        return {}
    found = counter.to_dict()
    say().print(counter.sentence, style="yellow" if found["noted"] else "")
    return {"drift": found}
