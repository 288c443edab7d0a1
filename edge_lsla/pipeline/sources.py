"""Opening a camera, a stream, a video file or the synthetic source under one name."""

from __future__ import annotations

from edge_lsla.pipeline.address import parse_address
from edge_lsla.pipeline.frames import Source
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.synthetic import SyntheticSource

__all__ = ["SourceSettings", "open_source"]


def open_source(spec: str, settings: SourceSettings | None = None) -> Source:
    """Open a source of frames; the caller closes it, best by `with`.

    Args:
        spec: a V4L2 index ("0"), a device path, an rtsp(s):// or http(s):// URL, a video file, or "synthetic".
        settings: see `SourceSettings`.

    Raises:
        SourceError: missing, refused, not a video, or silent for longer than the timeout.
        MissingComponentError: PyAV is not installed.
        ImageError: a picture of the synthetic source cannot be read.
    """
    settings = settings or SourceSettings()
    address = parse_address(spec)
    if address.kind == "synthetic":
        return SyntheticSource(settings)
    from edge_lsla.pipeline.decoding import DecodedSource  # imports PyAV, which the synthetic source does without

    return DecodedSource(address, settings)
