"""Observations as an H.264 video; where PyAV's errors of writing are translated."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_lsla.atomic import atomic_path
from edge_lsla.errors import EdgeLslaError, Interrupted, MissingComponentError, UsageError
from edge_lsla.sinks.annotate import annotated
from edge_lsla.sinks.observed import Observed

TICKS = 90_000  # a second
LONGEST_GAP = 3600.0  # seconds; a larger step is a clock that was set, as boards without a battery do after starting
SUFFIXES = (".mp4", ".mov", ".mkv")


class _AbandonedError(Exception):
    """Makes `atomic_path` remove its temporary file."""


KEPT_ON = (KeyboardInterrupt, SystemExit, GeneratorExit, Interrupted)


class VideoWriter:
    """Writes observations, as `annotated` draws them, into a video (H.264, yuv420p).

    The file appears under its name when it is complete. It is also completed when Ctrl-C or SIGTERM ends the work;
    any other failure, or a video without a frame, leaves nothing behind. Frames keep the distance in time that
    their source gave them. An odd side is padded by one pixel.

    Args:
        path: ends in .mp4, .mov or .mkv.
        rate: nominal frames a second, which also places frames whose times do not grow.
        size: width and height; None takes those of the first frame. A frame of another size is fitted in.
        draw: False keeps the frames as they came.
        keep_partial: False leaves nothing behind also when Ctrl-C or SIGTERM ends the work.

    Raises:
        UsageError: the path or a number cannot be used.
        MissingComponentError: PyAV is not installed, or has no H.264 encoder.
        EdgeLslaError: the disk is full or fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rate: float,
        size: tuple[int, int] | None = None,
        *,
        draw: bool = True,
        keep_partial: bool = True,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in SUFFIXES:
            raise UsageError("the video's name must end in " + ", ".join(SUFFIXES), self.path, "rename it")
        if not 0 <= rate <= 10_000:
            raise UsageError("a frame rate is from 0 to 10000 a second", "rate", "correct it")
        if size is not None and not all(16 <= side <= 16384 for side in size):
            raise UsageError("a video needs two sides of 16 to 16384 pixels", "size", "correct it")
        self.frames = 0
        self._rate = rate or 25.0
        self._size = size
        self._draw = draw
        self._kept_on = KEPT_ON if keep_partial else ()
        self._stack = contextlib.ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._ticks = -1
        self._last = 0.0

    def __enter__(self) -> VideoWriter:
        _import_av()  # a missing component shows now, not at the first frame
        self._temporary = self._stack.enter_context(atomic_path(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kept = kind is None or issubclass(kind, self._kept_on)
        if not kept or self._container is None:
            self._abandon()
            return
        try:
            with _writing_errors(self.path):
                self._container.mux(self._stream.encode(None))
                self._container.close()
        except BaseException:
            self._abandon()
            raise
        self._container = None
        self._stack.close()

    def write(self, observation: Observed) -> None:
        """Add one frame.

        Raises:
            EdgeLslaError: the disk is full or fails.
        """
        self.add(annotated(observation) if self._draw else observation.frame.pixels, observation.frame.time)

    def add(self, pixels: NDArray[np.uint8], seconds: float) -> None:
        """Add a picture uint8 [H, W, 3] (RGB order) at a time in seconds, on any clock that goes forward."""
        if self._container is None:
            self._open(pixels.shape[1], pixels.shape[0])
        size = (self._stream.width, self._stream.height)
        with _writing_errors(self.path):
            frame = _import_av().VideoFrame.from_ndarray(_fitted(pixels, size), format="rgb24")
            frame.pts = self._place(seconds)
            frame.time_base = Fraction(1, TICKS)
            self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def _open(self, width: int, height: int) -> None:
        width, height = self._size or (width, height)
        with _writing_errors(self.path):
            self._container = _import_av().open(str(self._temporary), "w", format=_format(self.path))
            self._stream = self._container.add_stream("libx264", rate=Fraction(self._rate).limit_denominator(1001))
            self._stream.width, self._stream.height = width + width % 2, height + height % 2
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, TICKS)
            self._stream.options = {"preset": "veryfast", "crf": "21"}

    def _place(self, seconds: float) -> int:
        """Turn a frame's time into ticks since the video's beginning, always growing."""
        step = seconds - self._last
        if self._ticks < 0:
            self._ticks = 0
        elif 0 < step <= LONGEST_GAP:
            self._ticks += max(1, round(step * TICKS))
        else:
            self._ticks += max(1, round(TICKS / self._rate))
        self._last = seconds
        return self._ticks

    def _abandon(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(Exception):  # the file is removed; what its end would have raised is of no use
                container.close()
        with contextlib.suppress(_AbandonedError):
            self._stack.__exit__(_AbandonedError, _AbandonedError(), None)


def _format(path: Path) -> str:
    suffix = path.suffix.lower()
    return "matroska" if suffix == ".mkv" else suffix[1:]


def _fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture of exactly this size: padded by up to one pixel, or scaled and centred on black."""
    width, height = size
    missing = (height - pixels.shape[0], width - pixels.shape[1])
    if missing == (0, 0):
        return np.ascontiguousarray(pixels)
    if missing[0] in (0, 1) and missing[1] in (0, 1):
        return np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = min(width / picture.width, height / picture.height)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    canvas = Image.new("RGB", size)
    canvas.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return np.array(canvas)


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingComponentError(
            "writing video needs PyAV", None, "install it with `pip install av opencv-python`"
        ) from error
    return av


@contextlib.contextmanager
def _writing_errors(path: Path) -> Iterator[None]:
    """Turn what PyAV raises on encoding and writing into one sentence."""
    av = _import_av()
    try:
        yield
    except (av.error.EncoderNotFoundError, av.codec.codec.UnknownCodecError) as error:
        raise MissingComponentError(
            "this PyAV has no H.264 encoder", "libx264", "install the wheel: `pip install --only-binary av av`"
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise EdgeLslaError(f"the video cannot be written ({reason})", path, "free some space") from error
