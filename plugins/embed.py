"""From compiled kernels to C++: the table and the assembly file that carry them into the plugin library.

`variants.inc` holds a line per kernel for the C++ table; `blobs.S` takes in the files themselves with `.incbin`, and
`index.json` as section `.edge_lsla_index`, which `plugin info` reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from edge_lsla.errors import CompatibilityError, EdgeLslaError, InputError

INDEX = "index.json"
FORMAT = 1
OPERATOR_VERSION = 1
SECTION = ".edge_lsla_index"

_KERNELS = {"attention": "Attention", "residual": "Residual", "quantised": "Quantised"}
_ELEMENTS = {"fp16": "Half", "fp32": "Float", "int8": "Int8"}
_NUMBERS = ("window", "head_width", "channels", "arch", "threads", "shared_bytes", "row_blocks", "max_per_program")
_TEXTS = ("name", "kernel", "dtype", "kind", "symbol", "file", "sha256")
_REMEDY = "run 'plugin build' again"


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
    path = index_dir / INDEX
    raw = _read(path)
    entries = _entries(raw, path)
    table, blobs = [], []
    for number, entry in enumerate(entries):
        table.append(_table_line(number, entry))
        blobs.append(_blob(number, entry, index_dir))
    blobs.append(_index_section(path, raw))
    try:
        dest.mkdir(parents=True, exist_ok=True)
        _write(dest / "variants.inc", "".join(table))
        _write(dest / "blobs.S", "\n".join(blobs))
    except OSError as error:
        raise EdgeLslaError("cannot write the plugin's sources", dest, error.strerror or str(error)) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read a kernel file ({error.strerror})", path, _REMEDY) from error


def _entries(raw: bytes, path: Path) -> list[dict[str, Any]]:
    try:
        index = json.loads(raw)
    except ValueError as error:
        raise InputError("the kernel index is not JSON", path, _REMEDY) from error
    if not isinstance(index, dict) or not isinstance(index.get("entries"), list):
        raise InputError("the kernel index has no entries", path, _REMEDY)
    for key, ours in (("format", FORMAT), ("operator_version", OPERATOR_VERSION)):
        if index.get(key) != ours:
            raise CompatibilityError(f"the kernel index has {key} {index.get(key)}, not {ours}", path, _REMEDY)
    entries: list[dict[str, Any]] = index["entries"]
    if not entries:
        raise InputError("the kernel index lists no kernels", path, _REMEDY)
    for number, entry in enumerate(entries):
        _check_entry(entry, f"{path}, entry {number}")
    keys = [(entry["name"], entry["arch"], entry["kind"]) for entry in entries]
    if len(set(keys)) != len(keys):
        raise InputError("the kernel index lists a kernel twice", path, _REMEDY)
    return entries


def _check_entry(entry: Any, where: str) -> None:
    """Refuse what would not become the C++ that it should: these texts are written into source files."""
    if not isinstance(entry, dict):
        raise InputError("the kernel index is malformed", where, _REMEDY)
    for key in _NUMBERS:
        if not isinstance(entry.get(key), int) or isinstance(entry[key], bool) or not 0 <= entry[key] < 2**31:
            raise InputError(f"the kernel index has no usable {key}", where, _REMEDY)
    for key in _TEXTS:
        # No folders: files lie beside the index. Nothing that C or assembler strings would read otherwise.
        if not isinstance(entry.get(key), str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", entry[key]):
            raise InputError(f"the kernel index has no usable {key}", where, _REMEDY)
    if entry["kernel"] not in _KERNELS or entry["dtype"] not in _ELEMENTS or entry["kind"] not in ("cubin", "ptx"):
        raise InputError("the kernel index has an unknown kernel, dtype or kind", where, _REMEDY)


def _table_line(number: int, entry: dict[str, Any]) -> str:
    values = (
        _KERNELS[entry["kernel"]],
        _ELEMENTS[entry["dtype"]],
        entry["window"],
        entry["head_width"],
        entry["channels"],
        entry["arch"],
        "true" if entry["kind"] == "ptx" else "false",
        f'"{entry["symbol"]}"',
        entry["threads"],
        entry["shared_bytes"],
        entry["row_blocks"],
        entry["max_per_program"],
        number,
        f'"{entry["name"]}"',
    )
    return f"EDGE_LSLA_VARIANT({', '.join(str(value) for value in values)})\n"


def _blob(number: int, entry: dict[str, Any], index_dir: Path) -> str:
    path = index_dir / entry["file"]
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry["sha256"]:
        raise InputError("a kernel file differs from the index", path, _REMEDY)
    # The driver reads PTX up to a NUL; a file may or may not bring one.
    terminator = "    .byte 0\n" if entry["kind"] == "ptx" else ""
    return f"""/* {entry["name"]}, {entry["kind"]} {entry["arch"]}, sha256 {digest} */
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


def _index_section(path: Path, raw: bytes) -> str:
    # Not loaded into memory at run time: only `plugin info` reads it, from the file.
    return f"""/* sha256 {hashlib.sha256(raw).hexdigest()} */
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
