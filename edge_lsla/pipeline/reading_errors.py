"""What PyAV raises on opening and reading, in plain words."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from edge_lsla.errors import SourceError
from edge_lsla.pipeline.address import Address
from edge_lsla.pipeline.settings import SourceSettings

ENDED = "the stream was ended by the other side"


def silent(address: Address, seconds: float) -> SourceError:
    """Return what to say of a source that gives no picture any more."""
    return SourceError(f"no picture for {seconds:g} s", address.name, "check the camera and the network")


@contextlib.contextmanager
def reading_errors(
    address: Address, settings: SourceSettings, *, opened: bool, began: float | None = None
) -> Iterator[None]:
    """Turn what PyAV raises on opening and reading into one sentence.

    RTSP that times out on opening is invalid data to FFmpeg; since when it was tried (`began`) tells that apart.

    The chain is cut (`from None`): FFmpeg's text holds the URL with its password.
    """
    import av

    try:
        yield
    except BlockingIOError:
        raise
    except av.error.FFmpegError as error:
        late = began is not None and address.kind == "stream" and time.monotonic() - began >= settings.open_timeout
        if late or isinstance(error, (av.error.ExitError, TimeoutError)):
            if opened:
                raise silent(address, settings.read_timeout) from None
            raise SourceError(
                f"no answer within {settings.open_timeout:g} s", address.name, "check the camera and the network"
            ) from None
        what, remedy = _plain(error, address, opened)
        raise SourceError(what, address.name, remedy) from None


def _plain(error: Any, address: Address, opened: bool) -> tuple[str, str]:
    """Say an FFmpeg error in plain words, and what to do."""
    reason = (error.strerror or type(error).__name__).lower()
    if opened:
        if address.kind == "stream" and (error.errno == errno.EIO or isinstance(error, ConnectionError)):
            return ENDED, "check the camera"
        what = "the recording breaks off" if address.kind == "file" else "the source broke off"
        return f"{what} ({reason})", "copy it anew" if address.kind == "file" else "check the camera and the network"
    if isinstance(error, FileNotFoundError):
        return "no such source", "check the path"
    if isinstance(error, PermissionError):
        group = "add your user to the group video" if address.kind == "camera" else "change its permissions"
        return "no permission to read the source", group
    if address.kind == "stream":
        found = _refusal(error, address)
        if found is not None:
            return found
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there", "check the address and the port"
    if address.kind == "camera":
        if error.errno == errno.EBUSY:
            return "the camera is in use by another program", "close that program"
        return f"the camera cannot be opened ({reason})", "try another size, rate or pixel format"
    if isinstance(error, ValueError):
        return "not a video that can be read, or its beginning or end is missing", "check that it plays elsewhere"
    return f"cannot open the source ({reason})", "check the address and the network"


def _refusal(error: Any, address: Address) -> tuple[str, str] | None:
    """Say why a server of streams gave none, where FFmpeg's words for it say too little."""
    import av

    if isinstance(error, av.error.HTTPUnauthorizedError):
        if "@" in urlsplit(address.target).netloc:
            return "the camera refuses this user name and password", "check them; in a URL @ is %40, / %2F and : %3A"
        return "the camera wants a user name and password", "write them into the URL: rtsp://user:password@host/"
    if isinstance(error, av.error.HTTPNotFoundError):
        return "the server has no such stream", "check the path in the URL"
    if isinstance(error, av.error.HTTPForbiddenError):
        return "the server refuses access", "check the user's rights on the camera"
    if isinstance(error, (av.error.HTTPClientError, av.error.HTTPServerError)):
        return "the server refuses the stream", "check the URL, rtsp_transport, and how many watch it already"
    if error.errno == errno.EIO:  # what FFmpeg makes of a name that cannot be looked up, and of TLS that fails
        return "the host cannot be found, or breaks the connection off", "check the address and the network"
    if isinstance(error, ValueError) and address.target.lower().startswith("rtsp"):
        return "what answers there is not an RTSP camera", "check the address, the port and the path"
    return None
