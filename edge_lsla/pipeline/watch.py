"""Classifying a video or a camera frame by frame, or what is found in its frames, and handing the results on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import EdgeLslaError, SourceError, UsageError
from edge_lsla.pipeline.capture import Capture
from edge_lsla.pipeline.every import EveryFrame
from edge_lsla.pipeline.frames import Frame, Source
from edge_lsla.pipeline.individuals import UNKNOWN, Detection, Track
from edge_lsla.pipeline.newest import NewestFrame
from edge_lsla.predictions import Prediction

if TYPE_CHECKING:
    from edge_lsla.pipeline.finding import Finding

NOTHING = "nothing"  # the label of a frame in which no region is
POLL_SECONDS = 0.1  # how late a stop is seen while no frame comes
RATE_WINDOW = 60  # frames over which the rolling frame rate is taken
LATENCY_WINDOW = 2000  # frames over which the percentiles are taken

Classify = Callable[[Sequence[NDArray[np.uint8]]], Sequence[tuple[Prediction, ...]]]


@dataclass(frozen=True)
class WatchSettings:
    """How long to watch, and how sure to be.

    Attributes:
        max_frames: end after so many classified frames.
        max_seconds: end after so long.
        min_confidence: below it a frame's label is "unknown"; where regions are sought, `FindingSettings` has its own.
        batch_size: frames of a recording that are classified at once; a live source takes one at a time, and where
            regions are sought, those of one frame are a batch.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    max_frames: int | None = None
    max_seconds: float | None = None
    min_confidence: float = 0.0
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name in ("max_frames", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError("at least one frame is needed", name, "correct it")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise UsageError("the time must be above 0 seconds", "max_seconds", "correct it")
        if not 0 <= self.min_confidence <= 1:
            raise UsageError("a confidence is from 0 to 1", "min_confidence", "correct it")


@dataclass(frozen=True, eq=False)
class Observation:
    """What was seen in one frame.

    Attributes:
        frame: the frame.
        predictions: likeliest first, as the model gave them; where regions are sought, of the surest one.
        label: the likeliest class, or "unknown" where it is below the least confidence; where regions are sought, of
            the surest one, and "nothing" without any.
        latency_ms: from handing the frame's batch to the model to having its predictions, milliseconds; where regions
            are sought, of finding and following as well.
        fps: frames a second that are classified, over the last 60.
        dropped: frames of the source left out so far.
        detections: what each region of the frame shows; empty where the whole frame is classified.
        tracks: individuals that have arrived and not left; empty where the whole frame is classified.
    """

    frame: Frame
    predictions: tuple[Prediction, ...]
    label: str
    latency_ms: float
    fps: float
    dropped: int = 0
    detections: tuple[Detection, ...] = ()
    tracks: tuple[Track, ...] = ()


class Sink(Protocol):
    """Where observations go; a context manager, entered and left by `watch`."""

    def write(self, observation: Any, /) -> None:
        """Take one `Observation`."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


@dataclass(frozen=True)
class WatchReport:
    """How watching went.

    Attributes:
        frames: classified frames.
        dropped: frames of a live source that were left out for newer ones.
        seconds: how long it took.
        fps: frames / seconds.
        latency_p50_ms, latency_p95_ms: over the last 2000 frames.
        counts: what was counted, by label, most frequent first.
        ended: "end of file", "stopped", "limit", or "broken off: " and why.
        counted: "frames", or "individuals" where regions were sought.
    """

    frames: int
    dropped: int
    seconds: float
    fps: float
    latency_p50_ms: float
    latency_p95_ms: float
    counts: dict[str, int]
    ended: str
    counted: str = "frames"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        rounded = {
            name: round(getattr(self, name), 3) for name in ("seconds", "fps", "latency_p50_ms", "latency_p95_ms")
        }
        return {
            "frames": self.frames,
            "dropped": self.dropped,
            **rounded,
            "counted": self.counted,
            "counts": dict(self.counts),
            "ended": self.ended,
        }


def watch(
    source: Source,
    classify: Classify,
    sinks: Sequence[Sink],
    settings: WatchSettings,
    stop: threading.Event,
    finding: Finding | None = None,
) -> WatchReport:
    """Classify a source's frames until it ends, a limit is reached or `stop` is set.

    Of a live source the newest frame is taken and older ones are dropped and counted; of a recording every frame is
    taken, in order. A source that breaks off ends the watch, and the report says so. The source is closed.

    Args:
        source: see `open_source`.
        classify: frames, or crops of one, uint8 [H, W, 3] to predictions, likeliest first, one tuple each.
        sinks: each gets every observation; entered before the first and left after the last.
        settings: see `WatchSettings`.
        stop: seen within 0.1 s; see `stop_on_signals`.
        finding: classify the regions that it finds, and count the individuals that it follows; None classifies whole
            frames.

    Raises:
        EdgeLslaError: from `classify` or a sink; a source that cannot be read is in the report instead.
    """
    capture: Capture = NewestFrame(source) if source.live else EveryFrame(source, ahead=settings.batch_size + 2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(capture)  # left last, so that no sink waits for a dead stream
        for sink in sinks:
            stack.enter_context(sink)
        run = _Run(capture, classify, sinks, settings, stop, finding)
        ended = run.to_the_end(1 if source.live or finding is not None else settings.batch_size)
        return run.report(ended)


class _Run:
    """The numbers of one watch; none of them grows with its length, the labels' counts aside."""

    def __init__(
        self,
        capture: Capture,
        classify: Classify,
        sinks: Sequence[Sink],
        settings: WatchSettings,
        stop: threading.Event,
        finding: Finding | None = None,
    ) -> None:
        self.capture, self.classify, self.sinks, self.settings, self.stop = capture, classify, sinks, settings, stop
        self.finding = finding
        self.begin = time.perf_counter()
        self.frames = 0
        self.counts: Counter[str] = Counter()
        self.latencies: deque[float] = deque(maxlen=LATENCY_WINDOW)
        self.ends: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)

    def to_the_end(self, batch_size: int) -> str:
        while True:
            batch, ended = self.gather(batch_size)
            if self.finding is not None:
                for frame in batch:
                    self.look(frame, self.finding)
            elif batch:
                self.observe(batch)
            if ended is not None:
                return ended

    def gather(self, batch_size: int) -> tuple[list[Frame], str | None]:
        """Take up to `batch_size` frames; also say how the watch ends, where it does."""
        batch: list[Frame] = []
        while len(batch) < batch_size:
            if self.stop.is_set():
                return batch, "stopped"
            limit = self.settings.max_seconds
            if limit is not None and time.perf_counter() - self.begin >= limit:
                return batch, "limit"
            if self.frames + len(batch) == self.settings.max_frames:
                return batch, "limit"
            try:
                frame = self.capture.take(POLL_SECONDS)
            except StopIteration:
                return batch, "end of file"
            except SourceError as error:
                return batch, f"broken off: {error}"
            if frame is not None:
                batch.append(frame)
        return batch, None

    def observe(self, batch: list[Frame]) -> None:
        """Classify whole frames."""
        begin = time.perf_counter()
        results = self.answers([frame.pixels for frame in batch])
        end = time.perf_counter()
        self.ends.append((end, self.frames + len(batch)))
        for frame, predictions in zip(batch, results):
            sure = bool(predictions) and predictions[0].probability >= self.settings.min_confidence
            label = predictions[0].label if sure else UNKNOWN
            self.counts[label] += 1
            self.write(frame, predictions, label, (end - begin) * 1000)

    def look(self, frame: Frame, finding: Finding) -> None:
        """Find what is in a frame, and classify that."""
        begin = time.perf_counter()
        boxes = finding.regions(frame)
        results = self.answers(finding.crops(frame, boxes)) if boxes else ()
        found = finding.conclude(frame, boxes, results)
        end = time.perf_counter()
        self.ends.append((end, self.frames + 1))
        self.counts.update(track.label for track in found.left)
        best = max(found.detections, key=lambda one: (one.label != UNKNOWN, one.confidence), default=None)
        predictions, label = (best.predictions, best.label) if best else ((), NOTHING)
        self.write(frame, predictions, label, (end - begin) * 1000, found.detections, found.live)
        finding.learn(frame)

    def answers(self, pictures: Sequence[NDArray[np.uint8]]) -> Sequence[tuple[Prediction, ...]]:
        results = self.classify(pictures)
        if len(results) != len(pictures):
            raise EdgeLslaError(f"the model answered {len(results)} frames of {len(pictures)}", None, "report this")
        return results

    def write(
        self,
        frame: Frame,
        predictions: tuple[Prediction, ...],
        label: str,
        latency: float,
        detections: tuple[Detection, ...] = (),
        tracks: tuple[Track, ...] = (),
    ) -> None:
        self.frames += 1
        self.latencies.append(latency)
        rate, dropped = self.rate(), self.capture.dropped
        observation = Observation(frame, predictions, label, latency, rate, dropped, detections, tracks)
        for sink in self.sinks:
            sink.write(observation)

    def rate(self) -> float:
        (first, before), (last, after) = self.ends[0], self.ends[-1]
        if last == first:
            elapsed = last - self.begin
            return after / elapsed if elapsed > 0 else 0.0
        return (after - before) / (last - first)

    def report(self, ended: str) -> WatchReport:
        seconds = time.perf_counter() - self.begin
        p50, p95 = (float(p) for p in np.percentile(self.latencies, (50, 95))) if self.latencies else (0.0, 0.0)
        if self.finding is not None:
            self.counts.update(track.label for track in self.finding.finish())
        counts = dict(self.counts.most_common())
        fps = self.frames / seconds if seconds > 0 else 0.0
        counted = "frames" if self.finding is None else "individuals"
        return WatchReport(self.frames, self.capture.dropped, seconds, fps, p50, p95, counts, ended, counted)
