"""What a source can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_lsla.errors import UsageError

LARGEST_SIDE = 16384


@dataclass(frozen=True)
class SourceSettings:
    """How to open a source; a field that does not apply to a kind of source is ignored by it.

    Attributes:
        size: width and height asked of a camera or the synthetic source; None takes what the camera offers (of a CSI
            camera 1280x720).
        rate: frames a second asked of a camera or the synthetic source; None takes what the camera offers (of a CSI
            camera 30). Of a folder, the pictures that make a second; None is one.
        pixel_format: asked of a camera, in FFmpeg's words ("mjpeg", "yuyv422"); None takes what it offers.
        open_timeout: seconds that a network source may take for each of connecting and describing itself.
        read_timeout: seconds without a frame after which a network source or camera counts as broken off.
        rtsp_transport: "tcp" (loses nothing) or "udp"; where no picture comes by UDP within `read_timeout` or half of
            `open_timeout`, whichever is longer, TCP is tried.
        frames: the synthetic source ends after so many frames; None never ends.
        pictures: the synthetic source drifts over these instead of drawing its test picture.
        insects: so many insects, cut out of `pictures`, walk across the synthetic source in every 20 seconds.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    size: tuple[int, int] | None = None
    rate: float | None = None
    pixel_format: str | None = None
    open_timeout: float = 10.0
    read_timeout: float = 5.0
    rtsp_transport: str = "tcp"
    frames: int | None = None
    pictures: tuple[Path, ...] = ()
    insects: int = 0

    def __post_init__(self) -> None:
        sides = (16, 16) if self.size is None else self.size
        if len(sides) != 2 or not all(isinstance(side, int) and 16 <= side <= LARGEST_SIDE for side in sides):
            raise UsageError(f"a frame needs two sides of 16 to {LARGEST_SIDE} pixels", "size", "correct it")
        if self.rate is not None and not 0.0001 <= self.rate <= 10_000:
            raise UsageError("a frame rate is 0.0001 to 10000 a second", "rate", "correct it")
        for name in ("open_timeout", "read_timeout"):
            if not 0 < getattr(self, name) <= 3600:
                raise UsageError("a timeout is above 0 and at most 3600 seconds", name, "correct it")
        if self.rtsp_transport not in ("tcp", "udp"):
            raise UsageError(f"unknown transport {self.rtsp_transport!r}", "rtsp_transport", "use tcp or udp")
        if self.pixel_format is not None and not self.pixel_format.replace("_", "").isalnum():
            raise UsageError("not the name of a pixel format", "pixel_format", "use one like mjpeg or yuyv422")
        if self.frames is not None and self.frames < 1:
            raise UsageError("at least one frame is needed", "frames", "correct it")
        if not 0 <= self.insects <= 1000:
            raise UsageError("0 to 1000 insects can walk", "insects", "correct it")


def plain_settings(settings: SourceSettings) -> dict[str, Any]:
    """Return the settings as JSON-ready values, for another process; see `settings_from`."""
    return {**asdict(settings), "pictures": [str(path) for path in settings.pictures]}


def settings_from(plain: Mapping[str, Any]) -> SourceSettings:
    """Return the settings that `plain_settings` made JSON-ready."""
    size = None if plain["size"] is None else tuple(plain["size"])
    return SourceSettings(**{**plain, "size": size, "pictures": tuple(Path(path) for path in plain["pictures"])})
