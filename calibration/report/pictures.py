"""Small pictures, and how a page without network holds them."""

from __future__ import annotations

import base64
import io

from edge_lsla.errors import UsageError
from edge_lsla.preprocessing import Picture, open_picture

SIDE = 160  # pixels: sharp on a phone, where it is shown at half of that
QUALITY = 85
KINDS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))


def thumbnail(picture: Picture) -> bytes:
    """Return a picture as a JPEG whose longer side is at most 160 pixels.

    Args:
        picture: a path, encoded bytes, or what the model saw, uint8 [S, S, 3].

    Raises:
        ImageError: it cannot be read.
    """
    image = open_picture(picture, near=SIDE)
    image.thumbnail((SIDE, SIDE))
    image.info.clear()  # no comments, no place where it was taken
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=QUALITY)
    return encoded.getvalue()


def data_uri(picture: bytes) -> str:
    """Return a JPEG or PNG as a data URI.

    Raises:
        UsageError: the bytes are neither.
    """
    for start, kind in KINDS:
        if picture.startswith(start):
            return f"data:{kind};base64,{base64.b64encode(picture).decode()}"
    raise UsageError("a report's picture is neither JPEG nor PNG", "Flip.picture", "make it with `thumbnail`")
