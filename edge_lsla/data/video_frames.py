"""Frames of a video file, spread evenly over it; PyAV is imported late."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import DatasetError, MissingComponentError, SourceError

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg"})
# Demuxers that read one file and nothing else: a playlist under a video's name would make FFmpeg open what it lists.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg"


class VideoFrame(NamedTuple):
    """A frame: seconds since the video's first, and its upright pixels, uint8 [H, W, 3], RGB order."""

    seconds: float
    pixels: NDArray[np.uint8]


def is_video(path: Path) -> bool:
    """Tell whether a file's name ends like a video's."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def find_videos(folder: Path) -> list[Path]:
    """Return the files below a folder whose names end like a video's, sorted, hidden ones left out.

    Raises:
        DatasetError: no such folder.
    """
    if not folder.is_dir():
        raise DatasetError("no such folder", folder, "check the path")
    found = (path for path in folder.rglob("*") if is_video(path))
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def read_frames(video: Path, count: int) -> Iterator[VideoFrame]:
    """Yield up to `count` frames of a video, those in the middle of `count` equal parts of it, in order.

    Only what such a frame needs is decoded: the packets from the key frame before it. Memory holds one frame. A frame
    that is damaged gives way to the next one that can be decoded.

    Raises:
        SourceError: the file is no video, or holds no frame that can be decoded.
        MissingComponentError: PyAV is not installed.
    """
    with _opened(video) as (container, stream):
        packets = [(_time(packet), packet.is_keyframe) for packet in container.demux(stream)]
    times = sorted(time for time, _ in packets if time is not None)
    keys = sorted(time for time, key in packets if key and time is not None)
    wanted = [times[(2 * part + 1) * len(times) // (2 * count)] for part in range(count)] if times else []
    wanted = sorted(set(wanted))  # a short video has fewer frames than were asked for
    given = 0
    with _opened(video) as (container, stream):
        for frame in _decoded(container, stream, wanted, keys):
            turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4  # counterclockwise
            pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            given += 1
            yield VideoFrame(float((frame.pts - times[0]) * stream.time_base), pixels)
    if not given:
        raise SourceError("no picture in the video can be decoded", video, "check that it plays elsewhere")


def _decoded(container: Any, stream: Any, wanted: list[int], keys: list[int]) -> Iterator[Any]:
    """Decode the frames at the times `wanted`, leaving out packets before the key frame that the next one needs."""
    import av

    waiting = list(reversed(wanted))
    decoding = False
    for packet in container.demux(stream):
        if not waiting:
            return
        time = _time(packet)
        if packet.is_keyframe and time is not None:
            following = bisect_right(keys, time)
            idle = following < len(keys) and keys[following] <= waiting[-1]  # nothing is wanted before the next one
            if idle and decoding:
                yield from _due(_flushed(stream), waiting)
            decoding = not idle
        if not decoding:
            continue
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            continue
        yield from _due(frames, waiting)


def _time(packet: Any) -> int | None:
    """Return when a packet's picture is due; AVI may know only when it is to be decoded."""
    time: int | None = packet.dts if packet.pts is None else packet.pts
    return time


def _flushed(stream: Any) -> list[Any]:
    """Take the frames that the decoder still holds, and make it ready for another key frame."""
    frames = list(stream.codec_context.decode(None))
    stream.codec_context.flush_buffers()
    return frames


def _due(frames: list[Any], waiting: list[int]) -> Iterator[Any]:
    for frame in frames:
        if waiting and frame.pts is not None and frame.pts >= waiting[-1]:
            while waiting and waiting[-1] <= frame.pts:
                waiting.pop()
            yield frame


@contextlib.contextmanager
def _opened(video: Path) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError as error:
        raise MissingComponentError("videos need PyAV", None, "install it with `pip install av`") from error
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        with av.open(f"file:{video}", options=options) as container:
            if not container.streams.video or container.streams.video[0].codec_context is None:
                raise SourceError("no pictures in it that can be decoded", video, "convert it to H.264 first")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except av.error.FFmpegError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise SourceError(f"not a video that can be read ({reason})", video, "check that it plays elsewhere") from error
