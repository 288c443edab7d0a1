import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_parts import make_video


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 4
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"threads left: {left}"


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("plain.mp4", "plain.ts", "plain.mkv"):
        make_video(folder / name)
    make_video(folder / "fast.mp4", faststart=True)
    make_video(folder / "turned.mp4", frames=5, rotation=90)
    return folder
