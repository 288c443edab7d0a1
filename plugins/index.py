"""The index of compiled kernels, `index.json`: what each is, how it is launched, and which bytes it must have."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lsla import operator
from edge_lsla.errors import CompatibilityError, InputError, UsageError
from edge_lsla.plugin_library import LARGEST_INDEX, read_regular
from plugins.variants import Variant

NAME = "index.json"
FORMAT = 1
LARGEST_BLOB = 8 * 2**20  # bytes
WARP = 32  # threads
MOST_SHARED = 227 * 1024  # bytes of shared memory that a program can have on any architecture up to now


@dataclass(frozen=True)
class Entry:
    """One compiled kernel.

    Attributes:
        name: the variant's, for example attention-w14-d32-fp16.
        kernel: "attention", "residual" or "quantised".
        dtype: of x, query and y: "fp16", "fp32" or "int8".
        window: side w.
        head_width: d.
        channels: C, which only "residual" has compiled in; else 0.
        arch: compute capability, 87 for 8.7; of PTX the smallest that runs it.
        kind: "cubin" for exactly this architecture, or "ptx".
        symbol: the function in the file.
        threads: of a program (a CUDA block).
        shared_bytes: dynamic shared memory of a program.
        registers: of a thread.
        spills: bytes that a thread stores to and loads from local memory for want of registers.
        row_blocks: programs that share the rows of a window and head.
        max_per_program: the most windows (of "residual": heads) of one program.
        tensor_cores: whether its products run on them.
        ptxas: version of the assembler.
        file: name of the file beside the index.
        bytes: size of that file.
        sha256: of that file, hexadecimal.
    """

    name: str
    kernel: str
    dtype: str
    window: int
    head_width: int
    channels: int
    arch: int
    kind: str
    symbol: str
    threads: int
    shared_bytes: int
    registers: int
    spills: int
    row_blocks: int
    max_per_program: int
    tensor_cores: bool
    ptxas: str
    file: str
    bytes: int
    sha256: str

    @property
    def key(self) -> tuple[str, int, str]:
        """What the index is sorted by."""
        return self.name, self.arch, self.kind

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: object, where: object) -> Entry:
        """Read an entry and check every field.

        Raises:
            InputError: a field is absent, unknown, of another type or out of range.
        """
        fields = {field.name: field.type for field in dataclasses.fields(cls)}
        if not isinstance(value, dict) or value.keys() != fields.keys():
            raise InputError("an entry of the index lacks or adds fields", where, _AGAIN)
        for name, kind in fields.items():
            if type(value[name]).__name__ != kind:
                raise InputError(f"field {name!r} of the index is no {kind}", where, _AGAIN)
        entry = cls(**value)
        entry._check(where)
        return entry

    def check_launch(self, where: object) -> None:
        """Hold the launch's geometry to what the variant's kernel is written for; another writes out of bounds.

        Raises:
            InputError: they differ: the kernel is of another edge-lsla.
        """
        variant = Variant(self.kernel, self.dtype, self.window, self.head_width, self.channels)
        right = {
            "threads": variant.tile.warps * WARP,
            "row_blocks": variant.row_blocks,
            "max_per_program": variant.max_per_program,
        }
        for name, number in right.items():
            if getattr(self, name) != number:
                what = f"{self.file} is launched otherwise here: {name} {getattr(self, name)}, not {number}"
                raise InputError(what, where, _AGAIN)

    def _check(self, where: object) -> None:
        try:
            variant = Variant(self.kernel, self.dtype, self.window, self.head_width, self.channels)
        except UsageError as error:
            raise InputError(f"the index has an impossible kernel ({error})", where, _AGAIN) from error
        numbers = {
            "arch": (self.arch, 50, 999),
            "threads": (self.threads, 32, 1024),
            "shared_bytes": (self.shared_bytes, 0, MOST_SHARED),
            "registers": (self.registers, 1, 255),
            "spills": (self.spills, 0, 2**20),
            "row_blocks": (self.row_blocks, 1, 1024),
            "max_per_program": (self.max_per_program, 1, 2**16),
            "bytes": (self.bytes, 1, LARGEST_BLOB),
        }
        for name, (number, least, most) in numbers.items():
            if not least <= number <= most:
                raise InputError(f"field {name!r} of the index is {number}, not {least} to {most}", where, _AGAIN)
        texts = {
            "name": self.name == variant.name,
            "kind": self.kind in ("cubin", "ptx"),
            "symbol": re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", self.symbol),
            "ptxas": re.fullmatch(r"[0-9.]{1,20}", self.ptxas),
            # One name only, so that no path can hide in it.
            "file": self.file == file_name(variant, self.arch, self.kind),
            "sha256": re.fullmatch(r"[0-9a-f]{64}", self.sha256),
        }
        for name, right in texts.items():
            if not right:
                raise InputError(f"field {name!r} of the index has an impossible value", where, _AGAIN)


_AGAIN = "run `plugin build` again, or take the file from its source again"


def file_name(variant: Variant, arch: int, kind: str) -> str:
    """Return the name of a compiled kernel's file, for example attention-w14-d32-fp16.sm87.cubin."""
    return f"{variant.name}.sm{arch}.{kind}"


@dataclass(frozen=True)
class Index:
    """All compiled kernels, sorted by name, architecture and kind.

    Attributes:
        triton: version of the compiler.
        entries: one for each file.
    """

    triton: str
    entries: tuple[Entry, ...]

    @property
    def architectures(self) -> tuple[int, ...]:
        """Those with kernels of their own (cubins), ascending."""
        return tuple(sorted({entry.arch for entry in self.entries if entry.kind == "cubin"}))

    def dump(self) -> bytes:
        """Return the bytes of index.json, an entry on each line; their sha256 is the digest of the index."""
        head = {"format": FORMAT, "operator_version": operator.VERSION, "triton": self.triton}
        entries = ",\n  ".join(json.dumps(entry.to_dict()) for entry in sorted(self.entries, key=lambda one: one.key))
        return f'{json.dumps(head)[:-1]}, "entries": [\n  {entries}\n]}}\n'.encode()

    def check_launches(self, where: object) -> None:
        """Check every entry's geometry; see `Entry.check_launch`."""
        for entry in self.entries:
            entry.check_launch(where)


def check_content(entry: Entry, data: bytes, where: object) -> None:
    """Hold a file's bytes to its entry, and to what its kind begins with.

    Raises:
        InputError: they are not those that were indexed, or no kernel.
    """
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise InputError("a compiled kernel is not the one of the index", where, _AGAIN)
    # The library hands PTX to the driver up to its first NUL.
    ptx = data.lstrip().startswith((b"//", b".version")) and b".version" in data and b"\0" not in data
    if not (data.startswith(b"\x7fELF") if entry.kind == "cubin" else ptx):
        raise InputError(f"a compiled kernel is no {entry.kind}", where, _AGAIN)


def digest(data: bytes) -> str:
    """Return the digest of an index: the sha256 of its bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def parse(data: bytes, where: object) -> Index:
    """Read an index and check it, but not its geometry, which may be that of an older edge-lsla.

    Raises:
        InputError: it is no index, or a field is wrong.
        CompatibilityError: it is of another format or operator version.
    """
    try:
        value = json.loads(data) if len(data) <= LARGEST_INDEX else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("entries"), list):
        raise InputError("this is no index of compiled kernels", where, _AGAIN)
    if (value.get("format"), value.get("operator_version")) != (FORMAT, operator.VERSION):
        raise CompatibilityError(
            f"the kernels are of format {value.get('format')!r}, operator version {value.get('operator_version')!r}; "
            f"this edge-lsla knows {FORMAT} and {operator.VERSION}",
            where,
            "take both from the same version of edge-lsla",
        )
    triton = value.get("triton")
    if not isinstance(triton, str) or not re.fullmatch(r"[0-9A-Za-z.+-]{1,60}", triton):
        raise InputError("field 'triton' of the index has an impossible value", where, _AGAIN)
    entries = tuple(Entry.from_dict(entry, where) for entry in value["entries"])
    keys = [entry.key for entry in entries]
    if not entries or keys != sorted(set(keys)):
        raise InputError("the index is empty, unsorted or has an entry twice", where, _AGAIN)
    return Index(triton, entries)


def read(folder: Path) -> Index:
    """Read the index of a folder to launch or embed its kernels: everything is checked, its files too.

    Raises:
        InputError: the index or a file is absent, unreadable, or not what it was when it was written.
        CompatibilityError: it is of another format or operator version.
    """
    place = folder / NAME
    index = parse(_bytes(place, LARGEST_INDEX), place)
    index.check_launches(place)
    for entry in index.entries:
        check_content(entry, _bytes(folder / entry.file, entry.bytes), folder / entry.file)
    return index


def _bytes(path: Path, most: int) -> bytes:
    try:
        data = read_regular(path, most)
    except OSError as error:
        raise InputError(f"cannot read compiled kernels ({error.strerror or error})", path, _AGAIN) from error
    if data is None:
        raise InputError("cannot read compiled kernels (no regular file)", path, _AGAIN)
    return data
