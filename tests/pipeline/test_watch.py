import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from pipeline_parts import MjpegCamera, classify, cut

from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.pipeline.signals import stop_on_signals
from edge_lsla.pipeline.sources import SourceSettings, open_source
from edge_lsla.pipeline.watch import LATENCY_WINDOW, Observation, WatchSettings, watch

QUICK = SourceSettings(open_timeout=1.0, read_timeout=0.6)


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.left: list[Any] = []

    def write(self, observation: Observation) -> None:
        self.seen.append(observation)

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.left.append(kind)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_file_is_watched_to_its_end(videos: Path, batch_size: int) -> None:
    kept = Kept()
    sizes = []

    def counted(batch: Any) -> Any:
        sizes.append(len(batch))
        return classify(batch)

    settings = WatchSettings(batch_size=batch_size)
    report = watch(open_source(str(videos / "plain.mp4")), counted, [kept], settings, threading.Event())
    assert (report.ended, report.frames, report.dropped) == ("end of file", 60, 0)
    assert [o.frame.sequence for o in kept.seen] == list(range(60))
    assert set(sizes[:-1]) == {batch_size}
    assert sum(sizes) == 60
    # Frame N is 4·N bright: from 32 on it is above the middle.
    assert report.counts == {"dark": 32, "bright": 28}
    assert kept.left == [None]
    assert report.fps == pytest.approx(60 / report.seconds)
    assert 0 < report.latency_p50_ms <= report.latency_p95_ms
    as_dict = json.loads(json.dumps(report.to_dict()))
    assert as_dict["ended"] == "end of file"
    assert as_dict["counts"] == {"dark": 32, "bright": 28}
    assert all(o.fps > 0 and o.latency_ms > 0 for o in kept.seen)


def test_below_the_least_confidence_the_label_is_unknown(videos: Path) -> None:
    kept = Kept()
    settings = WatchSettings(min_confidence=0.8)
    report = watch(open_source(str(videos / "plain.mp4")), classify, [kept], settings, threading.Event())
    # Bright or dark by 0.8 is below 51 or above 204 of 255, frame N being 4·N: 13 to 50, give or take H.264's loss.
    assert 36 <= report.counts["unknown"] <= 40
    doubtful = next(o for o in kept.seen if o.label == "unknown")
    assert doubtful.predictions[0].probability < 0.8
    assert doubtful.predictions[0].label in ("bright", "dark")


def test_limits(videos: Path) -> None:
    path = str(videos / "plain.mp4")
    report = watch(open_source(path), classify, [], WatchSettings(max_frames=10, batch_size=4), threading.Event())
    assert (report.frames, report.ended) == (10, "limit")
    begin = time.monotonic()
    source = open_source("synthetic", SourceSettings(size=(32, 32), rate=100))
    report = watch(source, classify, [], WatchSettings(max_seconds=0.5), threading.Event())
    assert report.ended == "limit"
    assert 0.4 < time.monotonic() - begin < 2


def test_a_live_source_drops_what_the_model_cannot_follow() -> None:
    kept = Kept()

    def slow(batch: Any) -> Any:
        assert len(batch) == 1
        time.sleep(0.04)
        return classify(batch)

    source = open_source("synthetic", SourceSettings(size=(32, 32), rate=200, frames=100))
    report = watch(source, slow, [kept], WatchSettings(batch_size=8), threading.Event())
    assert report.ended == "end of file"
    assert report.frames + report.dropped == 100
    assert report.dropped > 70
    assert kept.seen[-1].dropped == report.dropped
    assert report.latency_p50_ms >= 40
    assert kept.seen[-1].fps == pytest.approx(report.frames / report.seconds, rel=0.3)


def test_sources_that_break_off(videos: Path) -> None:
    kept = Kept()
    source = open_source(str(cut(videos / "fast.mp4", 0.6)))
    report = watch(source, classify, [kept], WatchSettings(batch_size=8), threading.Event())
    assert report.ended.startswith("broken off: the recording breaks off after")
    assert 20 <= report.frames == len(kept.seen)
    assert kept.left == [None]  # a video of it is finished, not thrown away
    with MjpegCamera("stall", after=12) as camera:
        report = watch(open_source(camera.url, QUICK), classify, [], WatchSettings(), threading.Event())
    assert report.ended.startswith("broken off: no picture for 0.6 s")
    assert report.frames >= 5


def test_stop_within_two_seconds_while_the_stream_stalls() -> None:
    stop = threading.Event()
    with MjpegCamera("stall", after=12) as camera:
        source = open_source(camera.url, SourceSettings(read_timeout=3.5))
        times: list[float] = []
        timer = threading.Timer(1.0, lambda: (times.append(time.monotonic()), stop.set()))
        timer.start()
        report = watch(source, classify, [], WatchSettings(), stop)
        assert time.monotonic() - times[0] < 2
        timer.join()
    assert report.ended == "stopped"


def test_an_error_of_model_or_sink_goes_up_and_every_sink_learns_of_it(videos: Path) -> None:
    class Full(Kept):
        def write(self, observation: Observation) -> None:
            raise EdgeLslaError("disk full")

    kept = Kept()
    with pytest.raises(EdgeLslaError, match="disk full"):
        watch(open_source(str(videos / "plain.mp4")), classify, [kept, Full()], WatchSettings(), threading.Event())
    assert kept.left == [EdgeLslaError]
    with pytest.raises(EdgeLslaError, match="answered 0 frames of 1"):
        watch(open_source(str(videos / "plain.mp4")), lambda _: [], [], WatchSettings(), threading.Event())


def test_memory_does_not_grow_with_time() -> None:
    marks = []

    class Marks(Kept):
        def write(self, observation: Observation) -> None:
            if observation.frame.sequence in (LATENCY_WINDOW + 100, LATENCY_WINDOW + 2100):
                gc.collect()  # garbage of the tests before, and of the moment, is no growth
                marks.append(tracemalloc.get_traced_memory()[0])

    source = open_source("synthetic", SourceSettings(size=(16, 16), rate=10_000, frames=LATENCY_WINDOW + 2200))
    # Every frame, as of a recording, so that the number of frames is certain.
    source.live = False  # type: ignore[misc]
    tracemalloc.start()
    try:
        report = watch(source, classify, [Marks()], WatchSettings(), threading.Event())
    finally:
        tracemalloc.stop()
    assert report.frames == LATENCY_WINDOW + 2200
    # Five small frames are in flight at most; 2000 floats would be 64 KB.
    assert marks[1] - marks[0] < 30_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_watch_in_good_order(number: signal.Signals, tmp_path: Path) -> None:
    script = """
import json, sys
from edge_lsla.pipeline.signals import stop_on_signals
from edge_lsla.pipeline.sources import SourceSettings, open_source
from edge_lsla.pipeline.watch import WatchSettings, watch
from edge_lsla.predictions import Prediction
from edge_lsla.sinks.video import VideoWriter

class First(VideoWriter):
    def write(self, observation):
        super().write(observation)
        if self.frames == 10:
            print("ten", flush=True)

with stop_on_signals() as stop:
    source = open_source("synthetic", SourceSettings(size=(96, 64), rate=50))
    sinks = [First(sys.argv[1], source.rate)]
    report = watch(source, lambda b: [(Prediction(0, "ant", 1.0),)] * len(b), sinks, WatchSettings(), stop)
print(json.dumps(report.to_dict()))
"""
    video = tmp_path / "out.mp4"
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(video)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ten"
    begin = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - begin < 4
    assert (process.returncode, err) == (0, "")
    report = json.loads(out)
    assert report["ended"] == "stopped"
    with open_source(str(video)) as source:
        assert len(list(source)) == report["frames"] >= 10
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_a_process_ends_cleanly_although_its_stream_is_dead() -> None:
    script = """
import sys, threading
from edge_lsla.pipeline.sources import SourceSettings, open_source
from edge_lsla.pipeline.watch import WatchSettings, watch
stop = threading.Event()
source = open_source(sys.argv[1], SourceSettings(read_timeout=60))
threading.Timer(0.7, stop.set).start()
print(watch(source, lambda b: [()] * len(b), [], WatchSettings(), stop).ended)
"""
    root = Path(__file__).resolve().parents[2]
    with MjpegCamera("stall", after=12) as camera:
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script, camera.url],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "PYTHONPATH": str(root)},
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
    assert time.monotonic() - begin < 10


def test_handlers_come_back_and_a_second_ctrl_c_insists() -> None:
    former = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        signal.raise_signal(signal.SIGTERM)  # a supervisor may repeat it
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == former


def test_outside_the_main_thread_there_are_no_handlers() -> None:
    given: list[threading.Event] = []

    def work() -> None:
        with stop_on_signals() as stop:
            given.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not given[0].is_set()


@pytest.mark.parametrize("field", [{"max_frames": 0}, {"max_seconds": 0}, {"min_confidence": 1.5}, {"batch_size": 0}])
def test_settings_name_the_field(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        WatchSettings(**field)
