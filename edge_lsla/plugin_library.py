"""The TensorRT plugin's library as a file: which one this machine uses, and what its index says. It is not loaded."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import InputError

LIBRARY = "libedge_lsla_plugin.so"
VARIABLE = "EDGE_LSLA_PLUGIN"
SECTION = ".edge_lsla_index"
INSTALLED = Path(__file__).resolve().parent / "plugin"
BUILT = Path(__file__).resolve().parents[1] / "build" / "plugin"
LARGEST_LIBRARY = 512 * 2**20  # bytes; ours is about 4 MB
LARGEST_INDEX = 4 * 2**20

_MACHINES = {62: "x86_64", 183: "aarch64"}  # ELF's e_machine
_REMEDY = "make it: `plugin build`"


@dataclass(frozen=True)
class LibraryFile:
    """A plugin library's file.

    Attributes:
        path: the file.
        sha256: of the file, hexadecimal.
        size: of the file, bytes.
        machine: what it runs on: "x86_64" or "aarch64".
        index: the bytes of its index, which `plugins/index.py` describes.
    """

    path: Path
    sha256: str
    size: int
    machine: str
    index: bytes

    @property
    def index_digest(self) -> str:
        """The SHA-256 of the index, hexadecimal: the passport's `cubin_index`."""
        return hashlib.sha256(self.index).hexdigest()


@dataclass(frozen=True)
class PluginLibrary:
    """A plugin library, as its index describes it.

    Attributes:
        path: the file.
        sha256: of the file, hexadecimal.
        machine: what it runs on: "x86_64" or "aarch64".
        operator_version: of the operators in it.
        index_digest: SHA-256 of its index, hexadecimal: the passport's `cubin_index`.
        architectures: those with kernels of their own, such as 87 for compute capability 8.7; ascending.
        ptx: the smallest architecture for which a driver can compile its kernels; None: none.
    """

    path: Path
    sha256: str
    machine: str
    operator_version: int
    index_digest: str
    architectures: tuple[int, ...]
    ptx: int | None


def find_plugin() -> Path | None:
    """Return the plugin library of this machine: EDGE_LSLA_PLUGIN, the installation, the checkout's build folder."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return next((folder / LIBRARY for folder in (INSTALLED, BUILT) if (folder / LIBRARY).is_file()), None)


def read_plugin(path: Path) -> PluginLibrary:
    """Read what a plugin library holds.

    Raises:
        InputError: it cannot be read, is damaged, or is not one of this plugin.
    """
    file = read_library_file(path)
    try:
        values = json.loads(file.index)
        kernels = [(str(one["kind"]), int(one["arch"])) for one in values["entries"]]
        version = int(values["operator_version"])
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError) as error:
        raise _damaged(path) from error
    return PluginLibrary(
        path=path,
        sha256=file.sha256,
        machine=file.machine,
        operator_version=version,
        index_digest=file.index_digest,
        architectures=tuple(sorted({arch for kind, arch in kernels if kind == "cubin"})),
        ptx=min((arch for kind, arch in kernels if kind == "ptx"), default=None),
    )


def read_library_file(path: Path) -> LibraryFile:
    """Read a library and find the bytes of its index, without looking into them.

    Raises:
        InputError: it cannot be read, is damaged, or is not one of this plugin.
    """
    try:
        data = read_regular(path, LARGEST_LIBRARY)
    except FileNotFoundError as error:
        raise InputError("plugin library is absent", path, _REMEDY) from error
    except OSError as error:
        raise InputError(f"plugin library cannot be read ({error.strerror or error})", path, _REMEDY) from error
    if data is None:
        raise InputError("plugin library is no regular file", path, _REMEDY)
    if len(data) > LARGEST_LIBRARY:
        raise InputError("plugin library is too large to be one", path, _REMEDY)
    try:
        machine, index = _section(data)
    except (ValueError, LookupError, struct.error) as error:
        raise _damaged(path) from error
    return LibraryFile(path, hashlib.sha256(data).hexdigest(), len(data), machine, index)


def read_regular(path: Path, most: int) -> bytes | None:
    """Return at most `most` + 1 bytes of a file, or None for a folder, pipe or device, which may have no end.

    Raises:
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # else opening a pipe would wait for its writer
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        with open(handle, "rb", closefd=False) as file:
            return file.read(most + 1)
    finally:
        os.close(handle)


def _damaged(path: Path) -> InputError:
    return InputError("plugin library is damaged, or not one of edge-lsla", path, _REMEDY)


def _section(data: bytes) -> tuple[str, bytes]:
    """Return what a 64-bit little-endian ELF file runs on, and the bytes of its index.

    Source: System V ABI, chapter 4 (ELF header, section header). Raises ValueError, struct.error or LookupError.
    """
    if data[:6] != b"\x7fELF\2\1":
        raise ValueError("not a 64-bit little-endian ELF file")
    (number,) = struct.unpack_from("<H", data, 18)
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<3H", data, 58)
    if size != 64 or start + size * count > len(data) or names >= count:
        raise ValueError("no table of sections")
    # Of each section: the place of its name, kind, flags, address, place in the file, size.
    sections = [struct.unpack_from("<IIQQQQ", data, start + size * one) for one in range(count)]
    texts = data[sections[names][4] : sections[names][4] + sections[names][5]]
    for name, kind, flags, _, offset, length in sections:
        if texts[name:].startswith(SECTION.encode() + b"\0"):
            # Program bits (1) that are not compressed (0x800): a section of zeros could state any size.
            if kind != 1 or flags & 0x800 or length > LARGEST_INDEX or offset + length > len(data):
                raise ValueError("the index lies outside the file")
            return _MACHINES.get(number, f"ELF machine {number}"), data[offset : offset + length]
    raise LookupError("no index")
