"""Which kind of source a text names, and the name under which it may be shown."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edge_lsla.errors import SourceError

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*)[:,]")
_CSI = re.compile(r"csi(?::([0-9]))?")
_DEVICE = re.compile(r"[0-9]{1,3}|/dev/.+")
_START = re.compile(r"[\"']?[A-Za-z][A-Za-z0-9+.\-]*://")
# Cameras have them in the path as well: /user=admin&password=secret&channel=1, /user=admin_password=secret_channel=1.
_WORDS = "pass|pwd|token|secret|auth|key|sig|user|login|account|cred"
_SECRET = re.compile(rf"(?i)((?:{_WORDS})[^=&;/?#]*?(?:=|%3D))[^&;#]*")
# Of a query only these are shown: no list of words has all names of passwords.
PLAIN_KEYS = frozenset(
    ("channel", "subtype", "stream", "profile", "width", "height", "fps", "resolution", "codec", "transport", "unicast")
)
_VALUE = re.compile(r"([^=&;#]+)(?:=([^&;#]*))?")
_PAIR = re.compile(r"([^/:]+:)[^/]+")  # user:password between two slashes
_SEGMENT = re.compile(r"(?i)(/(?:password|passwd|pwd|pass|token|secret|api[_-]?key)/)[^/?#]+")


@dataclass(frozen=True)
class Address:
    """Where frames come from.

    Attributes:
        kind: "synthetic", "camera", "csi", "stream", "file" or "folder".
        target: what is opened: a device path, a CSI sensor's number, a URL with its credentials, or an absolute path.
        name: the same for people and logs, credentials masked.
    """

    kind: str
    target: str
    name: str

    def __repr__(self) -> str:
        return f"Address({self.kind}, {self.name})"  # the target may hold a password


def parse_address(spec: str) -> Address:
    """Read a source as the user writes it.

    FFmpeg gives a meaning to many more texts (`concat:`, `subfile:`, `data:`, `pipe:`, `file:`), which can read any
    file or address; only the kinds listed here get through.

    Args:
        spec: a camera's number ("0"), a device path, "csi" or "csi:1", an rtsp or http URL, a video file, a folder of
            pictures, or "synthetic".

    Raises:
        SourceError: it is none of these, or the device or file does not exist.
    """
    spec = spec.strip()
    if not spec:
        raise SourceError("no source given", None, "name a camera (0), a stream's URL, a video file or synthetic")
    if spec == "synthetic":
        return Address("synthetic", spec, spec)
    if re.fullmatch(r"[0-9]{1,3}", spec):
        return _camera(Path(f"/dev/video{int(spec)}"))
    csi = _CSI.fullmatch(spec)
    if csi:
        return Address("csi", csi[1] or "0", f"csi:{csi[1] or 0}")
    scheme = _SCHEME.match(spec)
    if scheme and scheme[1].lower() in STREAM_SCHEMES and spec[scheme.end() :].startswith("//"):
        return _stream(spec)
    if "\0" in spec:
        raise SourceError("not a file name", mask(repr(spec)), "check it")
    path = Path(spec)
    try:
        mode = path.stat().st_mode
    except PermissionError as error:
        raise SourceError("no permission to read the source", mask(spec), "change its permissions") from error
    except OSError as error:
        if scheme:
            allowed = ", ".join(STREAM_SCHEMES)
            raise SourceError("this is not a kind of source", mask(spec), f"use {allowed} or a file") from None
        if spec.startswith("/dev/"):
            raise SourceError("no such camera", mask(spec), "list those connected with `ls /dev/video*`") from error
        raise SourceError("no such video", mask(spec), "check the path") from error
    if stat.S_ISCHR(mode):
        return _camera(path)
    if stat.S_ISDIR(mode):
        return Address("folder", str(path.resolve()), spec)
    if not stat.S_ISREG(mode):
        raise SourceError("neither a camera nor a regular file", mask(spec), "give a video file")
    return Address("file", str(path.resolve()), spec)


def names_recording(spec: str) -> bool:
    """Tell by the text alone whether a source is a file or folder: what is wrong with it does not pass by itself."""
    spec = spec.strip()
    scheme = _SCHEME.match(spec)
    live = spec == "synthetic" or spec.isdigit() or spec.startswith("/dev/") or _CSI.fullmatch(spec)
    return not live and not (scheme and scheme[1].lower() in STREAM_SCHEMES)


def names_device(spec: str) -> bool:
    """Tell by the text alone whether a source is a camera of this machine, which may be plugged in later."""
    return _DEVICE.fullmatch(spec.strip()) is not None


def mask(text: str) -> str:
    """Replace what may be a password by `***`: all before the last "@", and what is named like one in path and query.

    The text may be a URL that is written wrongly; only a scheme with "://" at its start is kept.
    """
    found = _START.match(text)
    start, rest = (found[0], text[found.end() :]) if found else ("", text)
    # A password may itself hold "/" or "@" although it should not, so everything up to the last "@" goes.
    if "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    rest = _SEGMENT.sub(r"\1***", _SECRET.sub(r"\1***", rest))
    if not start:
        return rest
    rest, fragment, _ = rest.partition("#")
    rest, mark, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    shown = start + host + slash + _PAIR.sub(r"\1***", path) + mark + _VALUE.sub(_shown, query)
    return shown + (fragment and "#***")


def _shown(value: re.Match[str]) -> str:
    """Return a key and its value as they may be shown: only what is known to be no secret."""
    if value[2] is None:
        return "***"
    return value[0] if value[1].lower() in PLAIN_KEYS else f"{value[1]}=***"


def _camera(path: Path) -> Address:
    if not path.exists():
        raise SourceError("no such camera", path, "list those connected with `ls /dev/video*`")
    if not path.is_char_device():
        raise SourceError("not a camera", path, "give a device such as /dev/video0")
    return Address("camera", str(path), str(path))


def _stream(spec: str) -> Address:
    name = mask(spec)
    try:
        parts = urlsplit(spec)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or any(c <= " " or c == "\x7f" for c in spec):
        raise SourceError("not a URL that can be opened", name, "write it like rtsp://camera.local:554/stream")
    return Address("stream", spec, name)
