import threading
import time

import pytest
from pipeline_parts import MjpegCamera, drain

from edge_lsla.errors import SourceError
from edge_lsla.pipeline.every import EveryFrame
from edge_lsla.pipeline.newest import NewestFrame
from edge_lsla.pipeline.sources import SourceSettings, open_source

QUICK = SourceSettings(open_timeout=1.0, read_timeout=60)


def test_a_slow_consumer_gets_the_newest_frame() -> None:
    source = open_source("synthetic", SourceSettings(size=(32, 32), rate=200, frames=100))
    seen, ages = [], []
    with NewestFrame(source) as newest:
        for frame in drain(newest, pause=0.05):
            seen.append(frame.sequence)
            ages.append(time.time() - frame.time)
        dropped = newest.dropped
    assert 5 <= len(seen) <= 15
    assert seen == sorted(seen)
    assert sorted(ages)[len(ages) // 2] < 0.04  # fresh, however slow the consumer
    assert len(seen) + dropped == 100
    assert seen != list(range(seen[0], seen[0] + len(seen)))


def test_a_recording_loses_nothing(videos) -> None:
    with EveryFrame(open_source(str(videos / "plain.mp4")), ahead=2) as every:
        assert [frame.sequence for frame in drain(every, pause=0.002)] == list(range(60))
        assert every.dropped == 0
        with pytest.raises(StopIteration):
            every.take()


def test_take_gives_up_after_its_timeout() -> None:
    with NewestFrame(open_source("synthetic", SourceSettings(size=(32, 32), rate=0.5))) as newest:
        assert newest.take(5) is not None
        begin = time.monotonic()
        assert newest.take(0.1) is None
        assert time.monotonic() - begin < 0.5


def test_the_sources_error_reaches_the_consumer_after_its_frames() -> None:
    with MjpegCamera("end", after=12) as camera, EveryFrame(open_source(camera.url, QUICK), ahead=50) as every:
        time.sleep(0.6)
        frames = []
        with pytest.raises(SourceError, match="ended by the other side"):
            frames.extend(drain(every))
        assert len(frames) >= 10


def test_an_unexpected_error_reaches_the_consumer_too() -> None:
    source = open_source("synthetic", SourceSettings(size=(32, 32), rate=100))
    source._draw = None  # type: ignore[attr-defined]
    with NewestFrame(source) as newest, pytest.raises(TypeError):
        newest.take(5)


@pytest.mark.parametrize("kind", [NewestFrame, EveryFrame])
def test_stopping_does_not_wait_for_a_dead_stream(kind: type) -> None:
    with MjpegCamera("stall", after=12) as camera:
        with kind(open_source(camera.url, QUICK)) as capture:
            assert list(drain(capture, timeout=0.5))  # what there is, then silence
            begin = time.monotonic()
        assert time.monotonic() - begin < 2
        assert not capture._thread.is_alive()


def test_stopping_wakes_a_consumer_in_another_thread() -> None:
    newest = NewestFrame(open_source("synthetic", SourceSettings(size=(32, 32), rate=0.2)))
    ended = threading.Event()

    def consume() -> None:
        try:
            while True:
                newest.take()
        except StopIteration:
            ended.set()

    with newest:
        consumer = threading.Thread(target=consume)
        consumer.start()
        time.sleep(0.1)
    assert ended.wait(1)
    consumer.join()
