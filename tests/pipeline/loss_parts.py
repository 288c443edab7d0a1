"""Losing a real HTTP camera once; `python -m benchmarks.camera_losses` does it a hundred times."""

import re
import time

import pytest

from benchmarks.camera_losses import Watched, lose, opening
from benchmarks.lossy_camera import LossyCamera
from benchmarks.rtsp_camera import RtspCamera
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.supervision import SupervisionSettings

OPENING = SourceSettings(open_timeout=2, read_timeout=0.5)
QUICK = SupervisionSettings(
    first_pause_seconds=0.05, longest_pause_seconds=0.5, stall_seconds=1.5, heartbeat_seconds=1.5
)


def check_loss(camera: LossyCamera | RtspCamera, stream: str, kind: str, reason: str, step: str) -> None:
    """Lose a camera and hold against what must be told: its gap, why, and what brought it back."""
    with Watched(stream, camera.url, opening(stream, OPENING), QUICK) as watched:
        before = watched.frame()
        lost, steady = time.time(), time.monotonic()
        lose(watched, camera, kind)
        after = watched.frame()
        state = watched.supervised.state
    assert after.sequence > before.sequence
    assert after.captured > before.captured
    begun, *_, ended = watched.gaps  # a slow machine is told in between that it lasts
    assert begun.ended is None
    assert (ended.began, ended.reason, ended.source) == (begun.began, begun.reason, stream)
    assert ended.began == pytest.approx(lost, abs=1)  # the last frame is at most a second old
    assert ended.ended == pytest.approx(ended.began + ended.seconds, abs=0.5)  # of two clocks
    assert 0 < ended.seconds < time.monotonic() - steady + 1
    assert re.search(reason, ended.reason), ended.reason
    assert ended.steps[0] == step
    assert state.watching
    assert state.gaps == 1
    assert state.last_error is not None


def check_resizing(camera: LossyCamera | RtspCamera, stream: str) -> None:
    """Change the size twice and hold against: frames of the new size, and no gap."""
    wanted, sizes = [camera.size], []
    with Watched(stream, camera.url, opening(stream, OPENING), QUICK) as watched:
        sizes.append(watched.frame().pixels.shape[1::-1])
        for _ in range(2):
            lose(watched, camera, "resized")
            wanted.append(camera.size)
            sizes.append(watched.frame().pixels.shape[1::-1])
    assert wanted[0] == wanted[2] != wanted[1]
    assert sizes == wanted
    assert watched.gaps == []
