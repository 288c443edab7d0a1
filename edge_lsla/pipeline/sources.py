"""Opening a camera, a stream, a video file, a folder of pictures or the synthetic source under one name."""

from __future__ import annotations

from edge_lsla.pipeline.address import parse_address
from edge_lsla.pipeline.folder import FolderSource
from edge_lsla.pipeline.frames import Source
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.synthetic import SyntheticSource

__all__ = ["SourceSettings", "open_source"]


def open_source(spec: str, settings: SourceSettings | None = None) -> Source:
    """Open a source of frames; the caller closes it, best by `with`.

    Args:
        spec: a V4L2 index ("0"), a device path, "csi" or "csi:1", an rtsp(s):// or http(s):// URL, a video file, a
            folder of pictures, or "synthetic".
        settings: see `SourceSettings`.

    Raises:
        SourceError: missing, refused, not a video, or silent for longer than the timeout.
        MissingComponentError: PyAV, or GStreamer for a CSI camera, is not installed.
        ImageError: a picture of the synthetic source cannot be read.
    """
    settings = settings or SourceSettings()
    address = parse_address(spec)
    if address.kind == "synthetic":
        return SyntheticSource(settings)
    if address.kind == "folder":
        return FolderSource(address, settings)
    if address.kind == "csi":
        from edge_lsla.pipeline.csi import open_csi  # knows Linux's pipes, which the other sources do without

        return open_csi(address, settings)
    from edge_lsla.pipeline.decoding import DecodedSource  # imports PyAV, which the synthetic source does without

    return DecodedSource(address, settings)
