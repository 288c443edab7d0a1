import sys
from pathlib import Path

import numpy as np
import pytest
from observations import observation

from edge_lsla.errors import EdgeLslaError, Interrupted, MissingComponentError, UsageError
from edge_lsla.sinks.video import VideoWriter

av = pytest.importorskip("av")


def read(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = list(container.decode(stream))
    return [float(f.time) for f in frames], [f.to_ndarray(format="rgb24") for f in frames]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_and_their_times_come_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    times = [1000.0, 1000.04, 1000.3, 1000.31, 1002.0]  # a camera that hesitates
    with VideoWriter(path, 25, draw=False) as writer:
        for number, seconds in enumerate(times):
            writer.write(observation(10 * number, time=seconds))
        assert not path.exists()  # not before it is complete
    shown, pixels = read(path)
    np.testing.assert_allclose(shown, np.array(times) - 1000, atol=1e-3)  # Matroska keeps milliseconds
    np.testing.assert_allclose([p.mean() for p in pixels], 40 * np.arange(5), atol=3)  # what H.264 loses
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_clocks_that_stand_still_or_are_set(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 25, draw=False) as writer:
        for number, seconds in enumerate([5.0, 5.0, 4.0, 1.7e9, 1.7e9 + 0.1]):
            writer.write(observation(number, time=seconds))
    np.testing.assert_allclose(read(path)[0], [0, 0.04, 0.08, 0.12, 0.22], atol=1e-3)


def test_drawn_frames_are_large_enough_to_read(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 25) as writer:
        for number in range(3):
            writer.write(observation(number))
    pixels = read(tmp_path / "out.mp4")[1]
    assert pixels[0].shape == (288, 480, 3)
    assert pixels[0].max() > 200  # the panel's text on a dark frame


def test_odd_sizes_are_padded_and_others_fitted_in(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 25, draw=False) as writer:
        writer.write(observation(30, size=(161, 97)))
        writer.write(observation(30, size=(97, 161)))
    first, second = read(tmp_path / "out.mp4")[1]
    assert first.shape == second.shape == (98, 162, 3)
    assert first[:, -1].mean() == pytest.approx(120, abs=4)  # padded with its own edge
    assert second[:, :20].mean() < 5  # black beside the upright picture
    assert second[:, 81].mean() == pytest.approx(120, abs=6)
    with VideoWriter(tmp_path / "fixed.mp4", 25, (320, 240), draw=False) as writer:
        writer.write(observation(30))
    assert read(tmp_path / "fixed.mp4")[1][0].shape == (240, 320, 3)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stopped")])
def test_an_interrupted_video_is_finished(tmp_path: Path, error: BaseException) -> None:
    def film() -> None:
        with VideoWriter(tmp_path / "out.mp4", 25) as writer:
            for number in range(9):
                writer.write(observation(number))
            raise error

    with pytest.raises(type(error)):
        film()
    assert len(read(tmp_path / "out.mp4")[0]) == 9


def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("before")

    def film() -> None:
        with VideoWriter(path, 25) as writer:
            writer.write(observation())
            raise EdgeLslaError("model failed")

    with pytest.raises(EdgeLslaError, match="model failed"):
        film()
    assert path.read_text() == "before"
    with VideoWriter(path, 25):
        pass  # not one frame
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.mp4"

    def film() -> None:
        with VideoWriter(path, 25, draw=False) as writer:
            writer._temporary = Path("/dev/full")  # a device that is always full
            rng = np.random.default_rng(0)
            for number in range(200):
                writer.add(rng.integers(0, 255, (240, 320, 3)).astype(np.uint8), number / 25)

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(EdgeLslaError, match="cannot be written"):
        film()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_work_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="must end in"):
        VideoWriter(tmp_path / "out.avi", 25)
    with pytest.raises(UsageError, match="frame rate"):
        VideoWriter(tmp_path / "out.mp4", -1)
    with pytest.raises(UsageError, match="two sides"):
        VideoWriter(tmp_path / "out.mp4", 25, (0, 5))
    with pytest.raises(UsageError, match="no such folder"), VideoWriter(tmp_path / "no" / "out.mp4", 25):
        pass
    monkeypatch.setitem(sys.modules, "av", None)
    with (
        pytest.raises(MissingComponentError, match=r"pip install av opencv-python"),
        VideoWriter(tmp_path / "out.mp4", 25),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
