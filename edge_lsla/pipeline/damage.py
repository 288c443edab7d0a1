"""Decoding packets, and telling pictures that are damaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FLAWED = 10  # so many pictures, and most of them, make it the camera's habit


class PacketDecoder:
    """Decodes a stream's packets; damage is ordinary on a radio link, in a cut file, and on joining between key frames.

    Of a camera (`strict`) a picture of which the decoder would invent parts counts as damaged: the next one comes soon.
    Of a recording it is kept: what is lost there never comes again.
    """

    def __init__(self, stream: Any, strict: bool) -> None:
        self._strict = strict
        self._jpeg: Any = None
        self._whole = self._flawed = 0
        if strict and stream.codec_context.name == "mjpeg":
            import av

            # Otherwise a picture that was cut short passes as whole, its lower part grey.
            self._jpeg = av.CodecContext.create("mjpeg", "r")
            self._jpeg.options = {"err_detect": "explode"}

    def pictures(self, packet: Any) -> list[Any] | None:
        """Return what a packet holds; None where it is damaged."""
        if self._jpeg is not None and packet.size:
            pictures = _decoded(lambda: self._jpeg.decode(packet))
            if pictures:
                self._whole += 1
                return pictures
            self._flawed += 1
            if self._flawed < FLAWED or self._flawed <= self._whole:
                return None
            self._jpeg = None  # many webcams end their pictures otherwise than the standard says, and all is well
        pictures = _decoded(packet.decode)
        if not pictures or not self._strict:
            return pictures
        return [picture for picture in pictures if not picture.is_corrupt] or None


def _decoded(decode: Callable[[], list[Any]]) -> list[Any] | None:
    import av

    try:
        return list(decode())
    except av.error.EOFError:
        return []
    except (av.error.FFmpegError, ValueError):
        return None
