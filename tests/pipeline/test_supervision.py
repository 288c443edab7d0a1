import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pipeline_parts import MjpegCamera, cut, make_video

from edge_lsla.errors import SourceError, UsageError
from edge_lsla.events import Gap
from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.supervision import CameraLost, SupervisedCamera, SupervisionSettings

SMALL = SourceSettings(size=(32, 32), rate=100, open_timeout=1, read_timeout=0.6)
LONGEST = 20.0


class Running:
    """A supervised camera that is started, and stopped at the end."""

    def __init__(self, source: str, opening: SourceSettings = SMALL, **settings: Any) -> None:
        quick = {"first_pause_seconds": 0.02, "longest_pause_seconds": 0.05, **settings}
        self.gaps: list[Gap] = []
        self.camera = SupervisedCamera("trap-1", source, opening, SupervisionSettings(**quick), self.gaps.append)

    def __enter__(self) -> "Running":
        self.camera.start()
        return self

    def __exit__(self, *_: object) -> None:
        begin = time.monotonic()
        self.camera.stop()
        assert time.monotonic() - begin < 2.5

    def frame(self) -> Frame:
        frame = self.camera.take(LONGEST)
        assert frame is not None
        return frame

    def rest(self) -> Iterator[Frame]:
        with contextlib.suppress(StopIteration):
            while True:
                yield self.frame()

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONGEST
        while not true():
            assert time.monotonic() < deadline, self.camera.state
            time.sleep(0.01)


def test_the_newest_frame_is_given_and_the_older_ones_are_counted() -> None:
    with Running("synthetic") as running:
        first = running.frame()
        running.until(lambda: running.camera.state.dropped >= 20)
        frame = running.frame()
        state = running.camera.state
        later = running.frame()
    assert time.monotonic() - frame.captured < 5
    assert frame.sequence > first.sequence + 20
    assert (frame.source, frame.live, frame.pixels.shape) == ("trap-1", True, (32, 32, 3))
    assert (state.watching, state.frames, state.gaps, state.ended) == (True, 2, 0, None)
    assert frame.sequence + 1 <= state.frames + state.dropped <= later.sequence + 1  # each is taken or counted
    assert running.camera.state.ended == "stopped"
    assert len(list(running.rest())) <= 1  # one may have been waiting


def test_frames_are_as_the_source_gave_them() -> None:
    from edge_lsla.pipeline.sources import open_source

    opening = SourceSettings(size=(64, 48), rate=30)
    with Running("synthetic", opening) as running:
        frames = [running.frame() for _ in range(5)]
    with open_source("synthetic", SourceSettings(size=(64, 48), rate=30)) as source:
        source.rate = 1e9  # their time has passed
        source._begin, source._epoch = -1e9, 0  # type: ignore[attr-defined]
        expected = {}
        for number in range(frames[-1].sequence + 1):
            source._sequence, source.rate = number, 30  # type: ignore[attr-defined]
            expected[number] = next(source).pixels
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, expected[frame.sequence])


def test_take_waits_no_longer_than_asked() -> None:
    with Running("synthetic", SourceSettings(size=(32, 32), rate=0.2)) as running:
        running.frame()
        assert running.camera.take(0) is None
        begin = time.monotonic()
        assert running.camera.take(0.2) is None
        assert 0.15 < time.monotonic() - begin < 2


def test_take_is_woken_also_before_it_waits() -> None:
    with Running("http://127.0.0.1:9/none") as watched:
        watched.camera.wake()
        assert watched.camera.take(60) is None
        timer = threading.Timer(0.2, watched.camera.wake)
        timer.start()
        assert watched.camera.take(60) is None
        timer.join()
        begin = time.monotonic()
        assert watched.camera.take(0.3) is None  # nothing is left of it
        assert time.monotonic() - begin >= 0.3


def test_a_pace_and_a_pause() -> None:
    with Running("synthetic") as running:
        running.camera.pace(10)
        running.until(lambda: running.camera.state.frames > 0 or running.camera.take(0) is not None)
        times = [running.frame().captured for _ in range(12)][2:]
        assert np.diff(times).mean() > 0.08  # a hundred a second come
        process = running.camera.state.process
        running.camera.pace(0)
        running.until(lambda: not running.camera.state.watching)
        assert running.camera.state.paused
        assert running.camera.take(0.4) is None
        running.camera.pace(None)
        times = [running.frame().captured for _ in range(5)]
        assert running.camera.state.process == process
    assert running.gaps == []


def test_a_pause_ends_a_gap_and_tries_nothing() -> None:
    with Running("http://127.0.0.1:9/none") as running:
        running.until(lambda: running.camera.state.attempts > 1)
        running.camera.pace(0)
        running.until(lambda: len(running.gaps) == 2)
        attempts = running.camera.state.attempts
        assert running.camera.take(0.3) is None
        assert running.camera.state.attempts == attempts
        running.camera.pace(5)
        running.until(lambda: len(running.gaps) == 3)
    assert [gap.ended is None for gap in running.gaps] == [True, False, True, False]
    assert [gap.steps[-1] for gap in running.gaps[1::2]] == ["paused", "stopped"]  # it never came back


def test_a_camera_that_is_not_there_at_first_is_a_gap_until_it_comes() -> None:
    camera = MjpegCamera()
    camera.server.server_close()
    with Running(camera.url) as running:
        running.until(lambda: running.camera.state.attempts > 2)
        assert "nothing listens" in str(running.camera.state.last_error)
        assert not running.camera.state.watching
        with MjpegCamera(port=camera.server.server_port):
            running.frame()
            running.until(lambda: len(running.gaps) == 2)
            assert running.camera.state.step is None
    assert "nothing listens" in running.gaps[1].reason


def test_when_the_budget_is_spent_take_raises_after_the_resets(tmp_path: Path) -> None:
    mark = "import sys; open(sys.argv[1], 'a').write('reset ')"
    commands = ((sys.executable, "-c", mark, str(tmp_path / "done")), ("/no/such/usbreset",))
    settings = {"reopens": 1, "processes": 1, "resets_per_hour": 2, "reset_commands": commands}
    with Running("http://127.0.0.1:9/none", **settings) as running:
        with pytest.raises(CameraLost, match=r"nothing brings it back: trap-1; nothing listens"):
            running.camera.take(LONGEST)
        with pytest.raises(SourceError):  # whoever asks again hears it again
            running.camera.take(0)
        assert running.camera.state.process is None
    assert (tmp_path / "done").read_text() == "reset reset "
    begun, ended = running.gaps
    assert begun.ended is None
    failed = "reset (usbreset cannot be started (No such file or directory))"
    round_ = ("reopen", "new process", "reopen")
    assert ended.steps == (*round_, failed, *round_, failed, *round_, "restart", "stopped")


def test_what_the_listener_of_gaps_raises_comes_out_of_take() -> None:
    def full(gap: Gap) -> None:
        raise OSError("disk full")

    camera = SupervisedCamera("trap-1", "http://127.0.0.1:9/none", SMALL, SupervisionSettings(), full)
    camera.start()
    with pytest.raises(OSError, match="disk full"):
        camera.take(LONGEST)
    camera.stop()


def test_a_picture_that_never_changes_is_a_loss_where_asked_for() -> None:
    class Frozen(MjpegCamera):
        @staticmethod
        def part(number: int) -> bytes:
            return MjpegCamera.part(min(number, 20))

    with Frozen() as camera, Running(camera.url, frozen_seconds=0.5) as running:
        running.until(lambda: len(running.gaps) >= 2)
    assert "the same picture for 0.5 s" in running.gaps[0].reason


@pytest.mark.parametrize(
    ("source", "message"),
    [("no-such.mp4", "no such video"), ("concat:a|b", "not a kind of source"), ("empty", "no picture in the folder")],
)
def test_a_recording_that_cannot_be_read_is_final(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with Running(source) as running, pytest.raises(CameraLost, match=message):
        running.camera.take(LONGEST)
    assert running.gaps == []


def test_a_recording_that_breaks_off_gives_its_frames_first(tmp_path: Path) -> None:
    path = cut(make_video(tmp_path / "clip.mp4", faststart=True), 0.6)
    with Running(str(path)) as running:
        frames: list[Frame] = []
        with pytest.raises(CameraLost, match="breaks off"):
            frames.extend(running.rest())
    assert len(frames) > 20


def test_a_folder_is_given_picture_by_picture_across_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        Image.new("RGB", (16 + number, 16), (8 * number, 0, 0)).save(tmp_path / f"{number:02}.png")
    monkeypatch.chdir(tmp_path.parent)
    with Running(tmp_path.name) as running:  # the path is relative, and the process stands elsewhere
        frames = [running.frame() for _ in range(5)]
        running.camera.pace(0)
        running.until(lambda: not running.camera.state.watching)
        running.camera.pace(None)
        frames.extend(running.rest())
        state = running.camera.state
    assert [frame.sequence for frame in frames] == list(range(30))
    assert [frame.pixels.shape[1] for frame in frames] == list(range(16, 46))
    assert [round(frame.time, 6) for frame in frames] == [number / 100 for number in range(30)]
    assert (state.ended, state.dropped, running.gaps) == ("end of file", 0, [])


def test_a_pace_must_be_a_rate() -> None:
    with pytest.raises(UsageError, match="frame rate"):
        SupervisedCamera("x", "synthetic", SMALL, SupervisionSettings(), print).pace(-1)


def test_stop_ends_a_take_in_another_thread_and_a_gap_that_is_open() -> None:
    running = Running("http://127.0.0.1:9/none", first_pause_seconds=60, longest_pause_seconds=60)
    raised = threading.Event()

    def wait() -> None:
        with pytest.raises(StopIteration):
            running.camera.take(60)
        raised.set()

    with running:
        thread = threading.Thread(target=wait)
        thread.start()
        running.until(lambda: bool(running.gaps))
    assert raised.wait(2)
    thread.join()
    assert [gap.ended is None for gap in running.gaps] == [True, False]
