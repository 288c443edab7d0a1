"""What the log says when a gap ends."""

from __future__ import annotations

import pytest

from edge_lsla.events import Gap
from edge_lsla.service.parts import end_of_gap


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (("reopen", "new process"), "watches again after 79.2 s (tried: reopen, new process)"),
        ((), "watches again after 79.2 s"),
        (("reopen", "stopped"), "watching is stopped, the camera is not back after 79.2 s (tried: reopen)"),
        (("stopped",), "watching is stopped, the camera is not back after 79.2 s"),
        (("paused",), "watching is paused, the camera is not back after 79.2 s"),
    ],
)
def test_a_gap_ends_with_its_camera_back_or_because_nobody_watches(steps: tuple[str, ...], said: str) -> None:
    assert end_of_gap(Gap("trap-1", 1e9, 1e9 + 79.2, "no such camera", steps, 79.2)) == said
