"""From compiled kernels to C++: the table and the assembly file that carry them into the plugin library.

`variants.inc` holds a line per kernel for the C++ table; `blobs.S` takes in the files themselves with `.incbin`, and
`index.json` as section `.edge_lsla_index`, which `plugin info` reads.
"""

from __future__ import annotations

from pathlib import Path

from edge_lsla.errors import EdgeLslaError, InputError
from edge_lsla.plugin_library import SECTION
from plugins import index as kernel_index
from plugins.index import Entry

_KERNELS = {"attention": "Attention", "residual": "Residual", "quantised": "Quantised"}
_ELEMENTS = {"fp16": "Half", "fp32": "Float", "int8": "Int8"}


def write_sources(index_dir: Path, dest: Path) -> None:
    """Write variants.inc and blobs.S for the kernels in a folder.

    A file that would not change is left alone, so that a second build has nothing to do. blobs.S names each kernel's
    digest, so it changes with the kernels and is assembled again.

    Args:
        index_dir: folder with index.json and the files that it lists.
        dest: folder to write to; created if need be.

    Raises:
        InputError: the index is absent or malformed, or a file is absent or differs from the index.
        CompatibilityError: the index is of another format or operator version.
        EdgeLslaError: a source cannot be written.
    """
    index = kernel_index.read(index_dir)  # texts go into source files: it lets nothing through that would be more
    table = [_table_line(number, entry) for number, entry in enumerate(index.entries)]
    blobs = [_blob(number, entry, index_dir / entry.file) for number, entry in enumerate(index.entries)]
    try:
        blobs.append(_index_section(index_dir / kernel_index.NAME))
        dest.mkdir(parents=True, exist_ok=True)
        _write(dest / "variants.inc", "".join(table))
        _write(dest / "blobs.S", "\n".join(blobs))
    except OSError as error:
        raise EdgeLslaError("cannot write the plugin's sources", dest, error.strerror or str(error)) from error


def _table_line(number: int, entry: Entry) -> str:
    values = (
        _KERNELS[entry.kernel],
        _ELEMENTS[entry.dtype],
        entry.window,
        entry.head_width,
        entry.channels,
        entry.arch,
        "true" if entry.kind == "ptx" else "false",
        f'"{entry.symbol}"',
        entry.threads,
        entry.shared_bytes,
        entry.row_blocks,
        entry.max_per_program,
        number,
        f'"{entry.name}"',
    )
    return f"EDGE_LSLA_VARIANT({', '.join(str(value) for value in values)})\n"


def _blob(number: int, entry: Entry, path: Path) -> str:
    # The driver reads PTX up to a NUL.
    terminator = "    .byte 0\n" if entry.kind == "ptx" else ""
    return f"""/* {entry.name}, {entry.kind} {entry.arch}, sha256 {entry.sha256} */
    .section .rodata
    .balign 16
    .globl edge_lsla_blob_{number}
    .hidden edge_lsla_blob_{number}
edge_lsla_blob_{number}:
    .incbin {_quoted(path)}
{terminator}    .globl edge_lsla_blob_{number}_end
    .hidden edge_lsla_blob_{number}_end
edge_lsla_blob_{number}_end:
"""


def _index_section(path: Path) -> str:
    # Not loaded into memory at run time: only readers of the file look at it.
    return f"""/* sha256 {kernel_index.digest(path.read_bytes())} */
    .section {SECTION}, "", %progbits
    .incbin {_quoted(path)}

    .section .note.GNU-stack, "", %progbits
"""


def _quoted(path: Path) -> str:
    text = str(path.resolve())
    if any(ord(character) < 32 for character in text):
        raise InputError("a folder has a control character in its name", repr(text), "move the kernels")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write(path: Path, text: str) -> None:
    # In place, not renamed into place: a build folder is remade at will, and the kept time stamp spares a rebuild.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
