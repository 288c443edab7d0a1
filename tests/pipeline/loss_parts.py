"""Losing a real HTTP camera once; `python -m benchmarks.camera_losses` does it a hundred times."""

import re
import time

import pytest

from benchmarks.camera_losses import Watched, lose
from benchmarks.lossy_camera import LossyCamera
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.supervision import SupervisionSettings

OPENING = SourceSettings(open_timeout=2, read_timeout=0.5)
QUICK = SupervisionSettings(
    first_pause_seconds=0.05, longest_pause_seconds=0.5, stall_seconds=1.5, heartbeat_seconds=1.5
)


def check_loss(camera: LossyCamera, stream: str, kind: str, reason: str, step: str) -> None:
    """Lose a camera and hold against what must be told: its gap, why, and what brought it back."""
    with Watched(stream, camera.url, OPENING, QUICK) as watched:
        before = watched.frame()
        lost, steady = time.time(), time.monotonic()
        lose(watched, camera, kind)
        after = watched.frame()
        state = watched.supervised.state
    assert after.sequence > before.sequence
    assert after.captured > before.captured
    begun, ended = watched.gaps
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


def check_resizing(camera: LossyCamera, stream: str) -> None:
    """Change the size twice and hold against: frames of the new size, and no gap."""
    with Watched(stream, camera.url, OPENING, QUICK) as watched:
        sizes = [watched.frame().pixels.shape]
        for _ in range(2):
            lose(watched, camera, "resized")
            sizes.append(watched.frame().pixels.shape)
    assert sizes == [(120, 160, 3), (240, 320, 3), (120, 160, 3)]
    assert watched.gaps == []
