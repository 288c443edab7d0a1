"""What a plugin library holds, read from the file without loading it: any machine can look at any device's library."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edge_lsla
from edge_lsla.errors import InputError, MissingComponentError
from plugins import index as kernel_index
from plugins.index import Index

if TYPE_CHECKING:
    from elftools.elf.sections import Section
    from rich.console import RenderableType

VARIABLE = "EDGE_LSLA_PLUGIN"
LIBRARY = "libedge_lsla_plugin.so"
SECTION = ".edge_lsla_index"
INSTALLED = Path(edge_lsla.__file__).parent / "plugin"
BUILT = Path(__file__).resolve().parents[1] / "build" / "plugin"
LARGEST = 512 * 2**20  # bytes; ours is about 4 MB
MACHINES = {"x64": "x86_64", "AArch64": "aarch64"}


@dataclass(frozen=True)
class Library:
    """A plugin library.

    Attributes:
        path: the file.
        sha256: of the file, hexadecimal.
        bytes: size of the file.
        machine: what it runs on: "x86_64" or "aarch64".
        index: the kernels in it.
        index_digest: their index's digest, which a bundle's manifest records.
    """

    path: Path
    sha256: str
    bytes: int
    machine: str
    index: Index
    index_digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return {"library": …, "variants": […]} as JSON-ready values."""
        library = {
            "path": str(self.path),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "machine": self.machine,
            "index_digest": self.index_digest,
            "triton": self.index.triton,
            "architectures": list(self.index.architectures),
        }
        return {"library": library, "variants": [entry.to_dict() for entry in self.index.entries]}


def find_library() -> Path:
    """Return the plugin library of this machine: EDGE_LSLA_PLUGIN, the installation, the checkout's build folder.

    Raises:
        InputError: EDGE_LSLA_PLUGIN names no file.
        MissingComponentError: there is none.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise InputError(f"{VARIABLE} names no file", named, "correct or unset it")
        return Path(named)
    for folder in (INSTALLED, BUILT):
        if (folder / LIBRARY).is_file():
            return folder / LIBRARY
    raise MissingComponentError("there is no plugin library", BUILT / LIBRARY, "make it: python cli.py plugin build")


def read_library(path: Path) -> Library:
    """Read what a plugin library holds.

    Raises:
        InputError: it is no library, or not one of this plugin.
        MissingComponentError: pyelftools is absent.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError("this is no plugin library: it is too large", path, "name another file")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the library ({error.strerror or error})", path, "check the path") from error
    machine, raw = _section(data, path)
    return Library(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        machine=machine,
        index=kernel_index.parse(raw, path),
        index_digest=kernel_index.digest(raw),
    )


def _section(data: bytes, path: Path) -> tuple[str, bytes]:
    """Return what the library runs on, and the bytes of its index."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.construct import ConstructError
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise MissingComponentError("pyelftools is absent, which reads it", path, "pip install pyelftools") from error
    from io import BytesIO

    try:
        elf = ELFFile(BytesIO(data))
        machine = str(elf.get_machine_arch())
        section = elf.get_section_by_name(SECTION)
        raw = bytes(section.data()) if section is not None and _plain(section) else None
    except (ELFError, ConstructError, struct.error, *_DAMAGED) as error:
        raise InputError("this is no library, or it is damaged", path, "name a libedge_lsla_plugin.so") from error
    if raw is None:
        raise InputError("this library is not the plugin's: it has no index", path, "name a libedge_lsla_plugin.so")
    return MACHINES.get(machine, machine), raw


# pyelftools checks little beyond the header; a damaged file ends in any of these.
_DAMAGED = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


def _plain(section: Section) -> bool:
    """Say whether the bytes lie in the file: a section of zeros states any size, a compressed one hides its own."""
    kind, size = section["sh_type"], section["sh_size"]
    return kind == "SHT_PROGBITS" and size <= kernel_index.LARGEST_INDEX and not section.compressed


def table(library: Library) -> RenderableType:
    """Lay a library out for people."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = Table(title="plugin library", show_header=False, title_justify="left")
    rows = {
        "file": str(library.path),
        "size": f"{library.bytes / 1e6:.2f} MB for {library.machine}",
        "sha256": library.sha256,
        "index digest": library.index_digest,
        "architectures": ", ".join(f"sm_{arch}" for arch in library.index.architectures) or "none, only PTX",
        "compiled by": f"Triton {library.index.triton}",
    }
    for name, text in rows.items():
        facts.add_row(name, Text(text, overflow="fold"))
    kernels = Table(title="kernels", title_justify="left")
    for column in ("kernel", "for", "registers", "spills", "shared", "threads"):
        kernels.add_column(column, justify="left" if column in ("kernel", "for") else "right", no_wrap=True)
    above = ""
    for entry in library.index.entries:
        title = entry.name if entry.name != above else ""  # the same kernel for another architecture
        kernels.add_row(
            title,
            f"sm_{entry.arch}" if entry.kind == "cubin" else f"PTX {entry.arch}+",
            str(entry.registers),
            str(entry.spills),
            f"{entry.shared_bytes:,}",
            str(entry.threads),
            style="yellow" if entry.spills else "",
        )
        above = entry.name
    return Group(facts, kernels)
