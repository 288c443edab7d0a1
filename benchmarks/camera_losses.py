"""Losing cameras a hundred times in one run, in every way: is each brought back, and each gap recorded?

Five cameras of this machine are watched at once, and lost in turn: by what the camera does, and by killing or stopping
the capture process. Two speak HTTP: motion JPEG, and H.264 in a transport stream. Three speak RTSP: H.264 and motion
JPEG over TCP, and H.264 over UDP. Usage: python -m benchmarks.camera_losses [LOSSES]
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.lossy_camera import LOSSES, LossyCamera
from benchmarks.machine import keep
from benchmarks.rtsp_camera import RTSP_LOSSES, RtspCamera, lacking
from edge_lsla.errors import EdgeLslaError
from edge_lsla.events import Gap
from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.supervision import SupervisedCamera, SupervisionSettings

KINDS = {**LOSSES, **RTSP_LOSSES}
PROCESS_LOSSES = ("process killed", "process stopped")
# Shorter than the defaults, so that a hundred losses take minutes; the order of the steps is the same.
OPENING = SourceSettings(open_timeout=2.0, read_timeout=1.0)
QUICK = SupervisionSettings(
    first_pause_seconds=0.2, longest_pause_seconds=2, settled_seconds=0.5, stall_seconds=2.5, heartbeat_seconds=2.5
)
LONGEST_SECONDS = 40.0  # for one recovery
LATENCY_FRAMES = 300


class Watched:
    """A camera, its supervision, and every gap that was told."""

    def __init__(
        self, stream: str, url: str, opening: SourceSettings = OPENING, settings: SupervisionSettings = QUICK
    ) -> None:
        self.stream = stream
        self.gaps: list[Gap] = []
        self.supervised = SupervisedCamera(stream, url, opening, settings, self.gaps.append)

    def __enter__(self) -> Watched:
        self.supervised.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.supervised.stop()

    @property
    def ended(self) -> list[Gap]:
        """The gaps that are over."""
        return [gap for gap in self.gaps if gap.ended is not None]

    def frame(self, seconds: float = LONGEST_SECONDS) -> Frame:
        """Return the next frame.

        Raises:
            EdgeLslaError: none came, or the camera was given up.
        """
        frame = self.supervised.take(seconds)
        if frame is None:
            raise EdgeLslaError(f"no frame for {seconds:g} s", self.stream, str(self.supervised.state))
        return frame


def lose(watched: Watched, camera: LossyCamera | RtspCamera, kind: str) -> float:
    """Lose a camera once; return the seconds until a frame of after the loss was taken.

    Raises:
        EdgeLslaError: it did not come back.
    """
    before, begun = len(watched.ended), time.monotonic()
    if kind in PROCESS_LOSSES:
        process = watched.supervised.state.process
        assert process is not None
        os.kill(process, signal.SIGKILL if kind == "process killed" else signal.SIGSTOP)
    else:
        camera.lose(kind)
    while time.monotonic() - begun < LONGEST_SECONDS:
        frame = watched.frame()
        back = frame.pixels.shape[1::-1] == camera.size if kind == "resized" else len(watched.ended) > before
        if back:
            return time.monotonic() - begun
    raise EdgeLslaError(f"not back within {LONGEST_SECONDS:g} s", f"{watched.stream}, {kind}", "see the gaps")


def run(losses: int) -> dict[str, Any]:
    """Lose the cameras in turn, those that speak RTSP where their server is installed; return the figures.

    Raises:
        EdgeLslaError: a camera did not come back.
    """
    rows: dict[str, list[tuple[float, int]]] = {}
    with contextlib.ExitStack() as stack:
        cameras: dict[str, LossyCamera | RtspCamera] = {
            **{stream: stack.enter_context(LossyCamera(stream)) for stream in LOSSES},
            **{stream: stack.enter_context(RtspCamera(stream)) for stream in ({} if lacking() else RTSP_LOSSES)},
        }
        watching = [
            stack.enter_context(Watched(stream, camera.url, opening(stream))) for stream, camera in cameras.items()
        ]
        for watched in watching:
            watched.frame()
        plans = [plan(watched.stream) for watched in watching]
        resources: list[dict[str, int]] = []
        for number in range(losses):
            watched, kind = watching[number % len(watching)], next(plans[number % len(watching)])
            before = len(watched.gaps)
            seconds = lose(watched, cameras[watched.stream], kind)
            settle(watched)
            told = sum(gap.ended is not None for gap in watched.gaps[before:])
            rows.setdefault(f"{watched.stream}: {kind}", []).append((seconds, told))
            resources.append(used(watching))
            print(f"{number + 1:4}  {watched.stream:9} {kind:16} {seconds:6.2f} s  {told} gap(s)", flush=True)
        warm = resources[min(len(resources) - 1, 3 * len(watching))]
        gaps = [gap for watched in watching for gap in watched.gaps]
        steps: dict[str, int] = {}
        for gap in [gap for gap in gaps if gap.ended is not None]:
            for step in gap.steps:
                steps[step] = steps.get(step, 0) + 1
        return {
            "losses": losses,
            "recovered": sum(len(row) for row in rows.values()),
            "gaps_begun": sum(gap.ended is None and not gap.seconds for gap in gaps),
            "gaps_ended": sum(gap.ended is not None for gap in gaps),
            "steps": steps,
            "by_source": {
                stream: _figures([one for kind in rows if kind.split(": ")[0] == stream for one in rows[kind]])
                for stream in cameras
            },
            "by_kind": {kind: _figures(row) for kind, row in sorted(rows.items())},
            "frames": sum(watched.supervised.state.frames for watched in watching),
            "used_after_warm_up": warm,
            "used_at_the_end": resources[-1],
        }


def plan(stream: str) -> Iterator[str]:
    """Return the kinds of loss in turn, for ever."""
    return itertools.cycle((*KINDS[stream], *PROCESS_LOSSES))


def opening(stream: str, settings: SourceSettings = OPENING) -> SourceSettings:
    """Return how a stream's camera is opened."""
    return replace(settings, rtsp_transport="udp" if stream == "rtsp udp" else "tcp")


def settle(watched: Watched) -> None:
    """Watch until the camera counts as well again, so that every loss starts with the first step."""
    while watched.supervised.state.attempts:
        watched.frame()


def used(watching: list[Watched]) -> dict[str, int]:
    """Count what could leak, in this process and in its capture processes."""
    me = psutil.Process()
    children = me.children(recursive=True)
    captures = [psutil.Process(pid) for pid in (w.supervised.state.process for w in watching) if pid is not None]
    return {
        "files": me.num_fds(),
        "threads": me.num_threads(),
        "shared_memories": sum("memfd:edge-lsla" in line for line in Path("/proc/self/maps").read_text().splitlines()),
        "processes": len(children),
        "capture_files": sum(process.num_fds() for process in captures),
        "capture_threads": sum(process.num_threads() for process in captures),
    }


def latency() -> dict[str, float]:
    """Measure what the capture process adds, from capture to `take`, 640x480 at 30 frames a second."""
    opening = SourceSettings(size=(640, 480), rate=30)
    camera = SupervisedCamera("synthetic", "synthetic", opening, SupervisionSettings(), lambda gap: None)
    camera.start()
    try:
        times = []
        while len(times) < LATENCY_FRAMES:
            frame = camera.take(10)
            if frame is not None:
                times.append((time.monotonic() - frame.captured) * 1000)
        dropped = camera.state.dropped
    finally:
        camera.stop()
    times = sorted(times[30:])
    return {
        "median_ms": round(statistics.median(times), 2),
        "p95_ms": round(times[int(len(times) * 0.95)], 2),
        "p99_ms": round(times[int(len(times) * 0.99)], 2),
        "dropped": dropped,
    }


def main() -> int:
    """Lose cameras, measure, keep the figures; return the exit code."""
    if lacking():
        print(f"no RTSP: {lacking()}", file=sys.stderr)
    try:
        figures = {"process": os.getpid(), **run(int(sys.argv[1]) if len(sys.argv) > 1 else 100)}
    except EdgeLslaError as error:
        print(f"not recovered: {error}", file=sys.stderr)
        return 1
    print(f"\n{'loss':26} losses recovered  median s  max s  gaps")
    for kind, row in (*figures["by_kind"].items(), *figures["by_source"].items()):
        print(
            f"{kind:26} {row['losses']:6} {row['losses']:9} {row['median_s']:9.2f} {row['max_s']:6.2f} {row['gaps']:5}"
        )
    figures["added_latency"] = latency()
    keep("camera_losses", figures)
    wrong = problems(figures)
    for problem in wrong:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if wrong else 0


def problems(figures: dict[str, Any]) -> list[str]:
    """Say what is not as it must be."""
    wrong = []
    resized = sum(row["losses"] for kind, row in figures["by_kind"].items() if kind.endswith("resized"))
    expected = figures["losses"] - resized  # a camera that changes its size goes on
    if not figures["gaps_begun"] == figures["gaps_ended"] == expected:
        wrong.append(f"{figures['gaps_begun']} gaps began and {figures['gaps_ended']} ended, of {expected}")
    # The cameras are in this process too, and a connection of theirs may be about to end. A leak would be dozens.
    grown = [k for k, v in figures["used_at_the_end"].items() if v > figures["used_after_warm_up"][k] + 2]
    if grown:
        wrong.append(f"grown: {', '.join(grown)}")
    return wrong


def _figures(row: list[tuple[float, int]]) -> dict[str, float]:
    seconds = [one for one, _ in row]
    return {
        "losses": len(row),
        "median_s": round(statistics.median(seconds), 2),
        "max_s": round(max(seconds), 2),
        "gaps": sum(told for _, told in row),
    }


if __name__ == "__main__":
    sys.exit(main())
