"""What a plugin library holds, read from the file without loading it: any machine can look at any device's library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla import plugin_library
from edge_lsla.errors import InputError, MissingComponentError
from plugins import index as kernel_index
from plugins.index import Index

if TYPE_CHECKING:
    from rich.console import RenderableType


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
    found = plugin_library.find_plugin()
    if found is None:
        place = plugin_library.BUILT / plugin_library.LIBRARY
        raise MissingComponentError("there is no plugin library", place, "make it: python cli.py plugin build")
    if not found.is_file():
        raise InputError(f"{plugin_library.VARIABLE} names no file", found, "correct or unset it")
    return found


def read_library(path: Path) -> Library:
    """Read what a plugin library holds.

    Raises:
        InputError: it is no library, or not one of this plugin.
        CompatibilityError: its kernels are of another format or operator version.
    """
    file = plugin_library.read_library_file(path)
    return Library(
        path=path,
        sha256=file.sha256,
        bytes=file.size,
        machine=file.machine,
        index=kernel_index.parse(file.index, path),
        index_digest=file.index_digest,
    )


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
