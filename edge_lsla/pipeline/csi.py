"""CSI cameras of a Jetson, through a GStreamer pipeline in a process of its own.

The pipeline writes raw RGBA frames into a pipe. It gets one of its own, not its standard output: NVIDIA's Argus library
prints there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import MissingComponentError, SourceError
from edge_lsla.pipeline.address import Address
from edge_lsla.pipeline.frames import Frame, Source
from edge_lsla.pipeline.settings import SourceSettings

SIZE = (1280, 720)
RATE = 30.0
CHANNELS = 4  # what nvvidconv writes; RGB would cost a conversion on the processor
PIPE_BYTES = 2**20  # the most that Linux gives to everybody
POLL_SECONDS = 0.2
END_SECONDS = 1.0  # for the pipeline to let go of the sensor


def open_csi(address: Address, settings: SourceSettings) -> Source:
    """Open a CSI sensor through nvarguscamerasrc, which only a Jetson has.

    Raises:
        MissingComponentError: GStreamer's tools are not installed.
        SourceError: the pipeline gives no frame; its own words are in the message.
    """
    width, height = settings.size or SIZE
    rate = settings.rate or RATE
    over, under = Fraction(rate).limit_denominator(1001).as_integer_ratio()
    elements = (
        ("nvarguscamerasrc", f"sensor-id={int(address.target)}"),
        (f"video/x-raw(memory:NVMM),width={width},height={height},framerate={over}/{under}",),
        ("nvvidconv",),
    )
    return GStreamerSource(address.name, elements, (width, height), rate, settings)


class GStreamerSource(Source):
    """A live source that ends in raw frames of one size; its first frame is read on opening.

    Args:
        elements: what comes before the frames, an element and its properties a tuple; none from a user's text.
        size: width and height that the elements were asked for, pixels.

    Raises:
        MissingComponentError: GStreamer's tools are not installed.
        SourceError: the pipeline gives no frame within the timeouts.
    """

    live = True

    def __init__(
        self,
        name: str,
        elements: Sequence[tuple[str, ...]],
        size: tuple[int, int],
        rate: float,
        settings: SourceSettings,
    ) -> None:
        self.name, self.size, self.rate = name, size, rate
        self._settings = settings
        self._sequence = 0
        self._closed = threading.Event()
        self._reading = threading.Lock()
        self._buffer = bytearray(size[0] * size[1] * CHANNELS)
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the source
        self._pipe, into = os.pipe()
        try:
            self._process = subprocess.Popen(
                _command(elements, size, into),
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                pass_fds=(into,),
            )
        except BaseException:
            os.close(self._pipe)
            self._words.close()
            raise
        finally:
            os.close(into)
        with contextlib.suppress(OSError):  # a machine that allows less is slower, and right
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # a frame then comes in few pieces
        try:
            self._first: Frame | None = self._read(settings.open_timeout)
        except BaseException:
            self.close()
            raise

    def __next__(self) -> Frame:
        if self._first is not None and not self._closed.is_set():
            frame, self._first = self._first, None
            return frame
        try:
            return self._read(self._settings.read_timeout)
        finally:
            if self._closed.is_set():
                self.close()

    def close(self) -> None:
        """End the pipeline and wait a second for it; the memory goes when no thread reads any more."""
        self._closed.set()
        self._process.send_signal(signal.SIGINT)  # on which gst-launch stops its elements one by one
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reading.acquire(blocking=False):
            try:
                if self._pipe >= 0:
                    os.close(self._pipe)
                    self._pipe = -1
                self._words.close()
            finally:
                self._reading.release()

    def _read(self, timeout: float) -> Frame:
        with self._reading:
            if self._closed.is_set():
                raise StopIteration
            captured, epoch = self._fill(time.monotonic() + timeout, timeout)
            width, height = self.size
            rgba = np.frombuffer(self._buffer, np.uint8).reshape(height, width, CHANNELS)
            pixels: NDArray[np.uint8] = np.ascontiguousarray(rgba[..., :3])
            frame = Frame(pixels, epoch, self._sequence, self.name, self.live, captured)
            self._sequence += 1
            return frame

    def _fill(self, deadline: float, timeout: float) -> tuple[float, float]:
        """Read one frame's bytes; return when its first came, by the steady clock and since the epoch."""
        rest = memoryview(self._buffer)
        began: tuple[float, float] | None = None
        waiting = select.poll()
        waiting.register(self._pipe, select.POLLIN)
        while rest:
            if self._closed.is_set():
                raise StopIteration
            if time.monotonic() > deadline:
                raise SourceError(f"no picture for {timeout:g} s", self.name, "check the camera")
            if not waiting.poll(POLL_SECONDS * 1000):
                continue
            count = os.readv(self._pipe, [rest])
            if count == 0:
                if self._closed.is_set():
                    raise StopIteration
                raise SourceError("the camera's pipeline ended", self.name, self._last_words())
            began = began or (time.monotonic(), time.time())
            rest = rest[count:]
        assert began is not None
        return began

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._words.seek(0)
        lines = self._words.read(65536).decode(errors="replace").splitlines()
        errors = [line.strip() for line in lines if "ERROR" in line or "erroneous pipeline" in line]
        return (errors or ["check the camera and its cable"])[0][:300]


def _command(elements: Sequence[tuple[str, ...]], size: tuple[int, int], pipe: int) -> list[str]:
    launcher = shutil.which("gst-launch-1.0")
    if launcher is None:
        raise MissingComponentError(
            "a CSI camera needs GStreamer", "gst-launch-1.0", "install it with `apt install gstreamer1.0-tools`"
        )
    frames = f"video/x-raw,format=RGBA,width={size[0]},height={size[1]}"
    chain = [*elements, (frames,), ("fdsink", f"fd={pipe}", "sync=false")]
    arguments = [word for number, element in enumerate(chain) for word in (["!", *element] if number else element)]
    # A pipeline that outlived whoever reads it would keep the sensor from everybody else.
    keeper = shutil.which("setpriv")
    return [*([keeper, "--pdeathsig", "KILL", "--"] if keeper else []), launcher, "-q", *arguments]
