import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_lsla.errors import SourceError
from edge_lsla.pipeline.frame_ring import SLOT_BYTES, SLOTS, FrameRing, create_ring

WRITER = """
import sys
import numpy as np
from edge_lsla.pipeline.frame_ring import FrameRing
ring = FrameRing(int(sys.argv[1]))
for slot, (height, width) in enumerate([(4, 6), (480, 640), (9, 3)]):
    ring.write(slot, np.full((height, width, 3), slot + 1, np.uint8))
"""


def test_frames_of_any_size_cross_from_one_process_to_another() -> None:
    memory = create_ring()
    subprocess.run([sys.executable, "-c", WRITER, str(memory)], pass_fds=(memory,), check=True)
    ring = FrameRing(memory)
    for slot, (height, width) in enumerate([(4, 6), (480, 640), (9, 3)]):
        np.testing.assert_array_equal(ring.read(slot, height, width), np.full((height, width, 3), slot + 1, np.uint8))


def test_a_frame_that_was_read_is_a_copy() -> None:
    ring = FrameRing(create_ring())
    ring.write(0, np.ones((8, 8, 3), np.uint8))
    frame = ring.read(0, 8, 8)
    ring.write(0, np.zeros((8, 8, 3), np.uint8))
    assert frame.min() == 1


def test_memory_is_taken_by_frames_alone_and_goes_with_the_ring() -> None:
    def shared() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in status if line.startswith("RssShmem")).split()[1])

    files, before = len(os.listdir("/proc/self/fd")), shared()  # noqa: PTH208
    ring = FrameRing(create_ring())
    for slot in range(SLOTS):
        ring.write(slot, np.zeros((1080, 1920, 3), np.uint8))
    taken = shared() - before  # kB
    assert SLOTS * 1080 * 1920 * 3 / 1024 <= taken < SLOTS * 1080 * 1920 * 3 / 1024 + 200
    del ring
    assert shared() - before < 200
    assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208


def test_a_frame_that_does_not_fit_is_refused() -> None:
    ring = FrameRing(create_ring())
    whole = np.broadcast_to(np.zeros(1, np.uint8), (SLOT_BYTES // 3 + 1, 1, 3))
    with pytest.raises(SourceError, match="too large"):
        ring.write(0, whole)
