"""Videos, streams and cameras through PyAV."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_lsla.errors import MissingComponentError, SourceError
from edge_lsla.pipeline.address import Address
from edge_lsla.pipeline.connections import Connection
from edge_lsla.pipeline.damage import PacketDecoder
from edge_lsla.pipeline.frames import Frame, Source
from edge_lsla.pipeline.reading_errors import ENDED, reading_errors, silent
from edge_lsla.pipeline.settings import SourceSettings

# Demuxers that read one file or connection and nothing else. A playlist (hls, concat, dash, image2, sdp) under any
# name, also clip.mp4, would make FFmpeg open what it lists.
FILE_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ivf,obu,flv,ogg,asf,gif,mjpeg,"
    "mpjpeg,mxf,nut,dv,apng"
)
STREAM_FORMATS = FILE_FORMATS + ",hls,rtsp"  # protocols below keep a network playlist on the network
STREAM_PROTOCOLS = {"http": "http,https,httpproxy,tcp,tls,crypto", "rtsp": "rtp,srtp,udp,tcp,tls"}
PACKET_SIZES = (188, 192, 204)  # of an MPEG transport stream
DAMAGED_IN_A_ROW = 100  # packets; a stream joined between two key frames has dozens that cannot be decoded
POLL_SECONDS = 0.004
FASTEST = 1000.0  # frames a second; above it stands the clock's rate, where the stream does not tell its own


class DecodedSource(Source):
    """A source behind FFmpeg; its first frame is read on opening, so that `size` is that of upright frames.

    Raises:
        SourceError: it cannot be opened, or gives no picture.
        MissingComponentError: PyAV is not installed.
    """

    def __init__(self, address: Address, settings: SourceSettings) -> None:
        self.name = address.name
        self._address = address
        self._settings = settings
        self._container: Any = None
        self._closed = False
        self._reading = threading.Lock()
        self._connection = Connection()
        try:
            with self._connection.opened_here(address.target) if address.kind == "stream" else contextlib.nullcontext():
                self._container, self._stream = _open(address, settings)
            seconds = (self._container.duration or 0) / 1e6
            self.live = address.kind == "camera" or (address.kind == "stream" and seconds <= 0)
            rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
            self.rate = rate if rate <= FASTEST else 0.0
            # Frame threads hold back as many frames as there are threads: right for files, late for cameras.
            self._stream.thread_type = "SLICE" if self.live else "AUTO"
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                raise SourceError("no picture in the video", self.name, "check that it plays elsewhere")
            self._first: Frame | None = first
            self.size = (first.pixels.shape[1], first.pixels.shape[0])
        except BaseException:
            self.close()
            raise

    def __next__(self) -> Frame:
        try:
            with self._reading:
                if self._closed:
                    raise StopIteration
                if self._first is not None:
                    frame, self._first = self._first, None
                else:
                    frame = next(self._frames)
            return frame
        except SourceError:
            if self._closed:
                raise StopIteration from None
            raise
        finally:
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close the container, or leave that to the thread that is inside FFmpeg just now.

        FFmpeg's memory must not go away under a blocked read; that read ends because its connection is shut, or by its
        timeout at the latest.
        """
        self._closed = True
        if self._reading.acquire(blocking=False):
            try:
                if self._container is not None:
                    self._frames = iter(())
                    self._first = None
                    self._container.close()
                    self._container = None
            finally:
                self._reading.release()
        else:
            self._connection.shut()

    def _decode(self) -> Iterator[Frame]:
        decoder = PacketDecoder(self._stream, strict=self.live)
        sequence = 0
        damaged = 0
        begin: float | None = None
        seconds = 0.0
        for packet in self._packets():
            pictures = decoder.pictures(packet)
            damaged = 0 if pictures else damaged + (pictures is None)
            if damaged > DAMAGED_IN_A_ROW:
                raise SourceError("the video is damaged", self.name, f"its last {damaged} packets cannot be decoded")
            for picture in pictures or ():
                captured = time.monotonic()
                if self.live:
                    seconds = time.time()
                else:
                    at = picture.time if picture.time is not None else None
                    begin = at if begin is None else begin
                    seconds = sequence / (self.rate or 25) if at is None or begin is None else max(seconds, at - begin)
                with reading_errors(self._address, self._settings, opened=True):
                    pixels = np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
                turns = round((getattr(picture, "rotation", 0) or 0) / 90) % 4  # counterclockwise
                pixels = np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
                yield Frame(pixels, seconds, sequence, self.name, self.live, captured)
                sequence += 1
        self._check_end(sequence, seconds, damaged > 0)

    def _packets(self) -> Iterator[Any]:
        with reading_errors(self._address, self._settings, opened=True):
            if self._address.kind != "camera":
                asked = time.monotonic()
                for packet in self._container.demux(self._stream):
                    # Before FFmpeg tells of the timeout it hands out what its parser held back: seconds old.
                    if self.live and time.monotonic() - asked >= self._settings.read_timeout:
                        raise silent(self._address, self._settings.read_timeout)
                    yield packet
                    asked = time.monotonic()
                return
            # V4L2 looks at neither the timeout nor an interruption once it waits, so it is opened non-blocking.
            last = time.monotonic()
            while not self._closed:
                try:
                    for packet in self._container.demux(self._stream):
                        last = time.monotonic()
                        if packet.size:  # a damaged buffer comes as an empty packet, which would flush the decoder
                            yield packet
                    return
                except BlockingIOError:
                    if time.monotonic() - last > self._settings.read_timeout:
                        raise silent(self._address, self._settings.read_timeout) from None
                    time.sleep(POLL_SECONDS)

    def _check_end(self, frames: int, seconds: float, damaged: bool) -> None:
        """Tell the end of a recording from a recording that was cut short, which FFmpeg often does not."""
        if self.live:
            if not self._closed:
                raise SourceError(ENDED, self.name, "check the camera")
            return
        if frames == 0:
            return
        interval = 1 / (self.rate or 25)
        promised = self._promised_seconds()
        if promised is not None and seconds + interval < promised - max(0.5, 4 * interval, 0.02 * promised):
            raise SourceError(
                f"the recording breaks off after {seconds + interval:.1f} of {promised:.1f} s",
                self.name,
                "copy it anew",
            )
        if damaged or self._ends_inside_a_packet():
            raise SourceError(f"the recording is cut short after {seconds + interval:.1f} s", self.name, "copy it anew")

    def _promised_seconds(self) -> float | None:
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        if len(self._container.streams) == 1 and self._container.duration:
            return float(self._container.duration / 1e6)
        return None

    def _ends_inside_a_packet(self) -> bool:
        if self._address.kind != "file" or self._container.format.name != "mpegts":
            return False
        length = Path(self._address.target).stat().st_size
        return all(length % size for size in PACKET_SIZES)


def _open(address: Address, settings: SourceSettings) -> tuple[Any, Any]:
    try:
        import av
    except ImportError as error:
        raise MissingComponentError(
            "videos and cameras need PyAV", None, "install it with `pip install av opencv-python`"
        ) from error
    target, options, timeout = address.target, {}, (settings.open_timeout, settings.read_timeout)
    form = None
    if address.kind == "camera":
        form = "v4l2"
        options["fflags"] = "nonblock"
        if settings.size:
            options["video_size"] = f"{settings.size[0]}x{settings.size[1]}"
        if settings.rate:
            options["framerate"] = f"{settings.rate:g}"
        if settings.pixel_format:
            options["input_format"] = settings.pixel_format
    elif address.kind == "stream":
        secure = target.split(":", 1)[0].lower()
        rtsp = secure.startswith("rtsp")
        options["protocol_whitelist"] = STREAM_PROTOCOLS["rtsp" if rtsp else "http"]
        options["format_whitelist"] = STREAM_FORMATS
        options["rtsp_transport"] = settings.rtsp_transport
        if settings.rtsp_transport == "udp":
            # Without a packet for so long (microseconds) FFmpeg asks for TCP: firewalls let that through.
            options["rtsp_transport"] = "udp+tcp"
            options["timeout"] = str(round(1e6 * max(settings.read_timeout, settings.open_timeout / 2)))
        # RTSP says beforehand what comes: one packet is looked at. Of others 3 frames tell the rate; the default of 20
        # takes seconds. What was looked at is decoded too, or the key frame in it would have to be waited for again.
        options.update({"fpsprobesize": "0", "probesize": "32"} if rtsp else {"fpsprobesize": "3"})
        options["analyzeduration"] = "2000000"  # microseconds; the default waits 5 s for a slow camera
    else:
        target = f"file:{target}"  # without it FFmpeg would see a protocol in a name such as concat:a.mp4
        options["protocol_whitelist"] = "file"
        options["format_whitelist"] = FILE_FORMATS
        if Path(address.target).stat().st_size == 0:
            raise SourceError("the video is empty", address.name, "copy it anew")
    began = time.monotonic()
    with reading_errors(address, settings, opened=False, began=began):
        container = av.open(target, format=form, options=options, timeout=timeout)
    if not container.streams.video:
        container.close()
        raise SourceError("no pictures in it, only sound or data", address.name, "give a video")
    if container.streams.video[0].codec_context is None:
        container.close()
        raise SourceError("no decoder for this kind of video", address.name, "convert it to H.264 first")
    return container, container.streams.video[0]
