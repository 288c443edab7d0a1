"""What happens to the capture process, and what becomes of it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from loss_parts import OPENING, QUICK, check_loss
from pipeline_parts import make_video

from benchmarks.camera_losses import Watched
from benchmarks.lossy_camera import LossyCamera
from edge_lsla.pipeline.capture_link import CaptureLink
from edge_lsla.pipeline.settings import SourceSettings, plain_settings
from edge_lsla.pipeline.sources import open_source

SERVICE = """
import sys, time
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.supervision import SupervisedCamera, SupervisionSettings
camera = SupervisedCamera("trap", "synthetic", SourceSettings(size=(64, 48)), SupervisionSettings(), print)
camera.start()
while camera.take(1) is None:
    pass
print(camera.state.process, flush=True)
time.sleep(60)
"""


def wait_for_end(process: psutil.Process, seconds: float = 5) -> float:
    """Return how long a process that is not our child lived on."""
    begin = time.monotonic()
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - begin < seconds
        time.sleep(0.01)
    return time.monotonic() - begin


@pytest.mark.parametrize("hung", [False, True])
def test_it_ends_with_a_service_that_is_killed_even_when_it_hangs(hung: bool) -> None:
    service = subprocess.Popen([sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    with service, service.stdout:
        capture = psutil.Process(int(service.stdout.readline()))
        if hung:
            capture.suspend()
        service.kill()
        assert wait_for_end(capture) < 2.5


def test_a_signal_to_all_processes_leaves_the_service_the_time_to_end_it() -> None:
    with LossyCamera() as camera, Watched("mjpeg", camera.url, OPENING, QUICK) as watched:
        watched.frame()
        process = watched.supervised.state.process
        assert process is not None
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGINT)
        sequence = watched.frame().sequence
        assert watched.frame().sequence > sequence
        assert watched.supervised.state.process == process
    assert watched.gaps == []
    assert not psutil.pid_exists(process)


@pytest.mark.parametrize(("kind", "reason"), [("process killed", "ended by SIGKILL"), ("process stopped", "hangs")])
def test_a_process_that_is_lost_is_replaced(kind: str, reason: str) -> None:
    with LossyCamera() as camera:
        check_loss(camera, "mjpeg", kind, reason, "new process")


def test_it_ends_by_itself_when_its_connection_does() -> None:
    link = CaptureLink()
    try:
        link.tell("open", source="synthetic", opening=plain_settings(SourceSettings()), rate=5, skip=0, frozen=None)
        said = []
        while not said or said[-1] != "frame":
            message = link.hear(10)
            assert message is not None
            said.append(message["say"])
        assert "opened" in said
    finally:
        begin = time.monotonic()
        link.end(gently=True)
    assert time.monotonic() - begin < 1.5
    assert link.last_words() == "the capture process ended with 0"


def test_neither_the_command_line_nor_an_error_shows_a_password() -> None:
    with LossyCamera() as camera:
        url = camera.url.replace("//", "//me:hunter2@") + "?token=hunter2"
        with Watched("mjpeg", url, OPENING, QUICK) as watched:
            watched.frame()
            process = watched.supervised.state.process
            shown = Path(f"/proc/{process}/cmdline").read_bytes() + Path(f"/proc/{process}/environ").read_bytes()
            camera.lose("killed")
            while not watched.ended:
                watched.frame()
            said = repr(watched.gaps) + repr(watched.supervised.state)
    assert b"capture_process" in shown
    assert b"hunter2" not in shown
    assert "hunter2" not in said
    assert "***" in said


def test_a_recording_is_given_whole_though_its_process_is_killed_again_and_again(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=80)
    with open_source(str(path)) as source:
        expected = [(frame.sequence, frame.time, frame.pixels.tobytes()) for frame in source]
    given = []
    with Watched("trap", str(path), OPENING, QUICK) as watched:
        while True:
            try:
                frame = watched.frame()
            except StopIteration:
                break
            assert not frame.live
            assert frame.source == "trap"
            given.append((frame.sequence, frame.time, frame.pixels.tobytes()))
            if frame.sequence in (20, 50):
                process = watched.supervised.state.process
                assert process is not None
                os.kill(process, signal.SIGKILL)
        state = watched.supervised.state
    assert given == expected
    assert (state.ended, state.frames, state.dropped) == ("end of file", 80, 0)
    assert [gap.ended is None for gap in watched.gaps] == [True, False, True, False]


def test_it_loads_neither_the_model_nor_the_command_line() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import edge_lsla.pipeline.capture_process"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in log.splitlines() if "import time:" in line}
    assert "numpy" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "cv2", "tensorrt", "pydantic", "typer", "rich"}


def test_settings_cross_to_the_process_and_back(tmp_path: Path) -> None:
    from edge_lsla.pipeline.settings import settings_from

    settings = SourceSettings(size=(320, 240), rate=12.5, pictures=(tmp_path / "a.png",), frames=3)
    assert settings_from(json.loads(json.dumps(plain_settings(settings)))) == settings
    assert settings_from(json.loads(json.dumps(plain_settings(SourceSettings())))) == SourceSettings()
