"""Layout of a bundle file: a zip with stored entries in one canonical form, and a digest of itself as its comment.

For each entry a local header, its name and its bytes; the central directory; the end record; 64 lower-case hexadecimal
characters, the SHA-256 of every byte before them, which are the zip's comment. `manifest.json` comes first, the other
entries follow sorted by name. Every header byte follows from the names, sizes and CRCs, so a reader can write the
headers anew and compare: descriptors, encryption, zip64, extra fields, gaps, overlaps and prefixes cannot occur.

Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (end record).
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from edge_lsla.errors import BundleError

MAX_BUNDLE_BYTES = 4 * 1024**3  # below it no size or offset needs zip64
MAX_ENTRIES = 256
MAX_NAME = 128
MANIFEST = "manifest.json"
DIGEST_SIZE = 64
MAGIC = b"PK\3\4"

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
TAIL_SIZE = END.size + DIGEST_SIZE

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?")
_NEEDED = 10  # zip 1.0: stored files
_MADE_BY = 3 << 8 | _NEEDED  # Unix, so that the permissions below are understood
_DATE = 1 << 5 | 1  # 1980-01-01, the first day that a zip can name
_ATTRIBUTES = (stat.S_IFREG | 0o644) << 16


@dataclass(frozen=True)
class Entry:
    """One stored file: its name, bytes, CRC-32, and the position of its first byte in the bundle."""

    name: str
    size: int
    crc32: int
    offset: int

    def local_header(self) -> bytes:
        """Return the header that stands before the entry's bytes."""
        sizes = (self.crc32, self.size, self.size, len(self.name), 0)
        return LOCAL.pack(MAGIC, _NEEDED, 0, 0, 0, _DATE, *sizes) + self.name.encode("ascii")

    def central_header(self) -> bytes:
        """Return the entry's record in the central directory."""
        sizes = (self.crc32, self.size, self.size, len(self.name), 0, 0)
        start = self.offset - LOCAL.size - len(self.name)
        record = CENTRAL.pack(b"PK\1\2", _MADE_BY, _NEEDED, 0, 0, 0, _DATE, *sizes, 0, 0, _ATTRIBUTES, start)
        return record + self.name.encode("ascii")


def end_record(count: int, directory_size: int, directory_start: int) -> bytes:
    """Return the end record, without the comment that follows it."""
    return END.pack(b"PK\5\6", 0, 0, count, count, directory_size, directory_start, DIGEST_SIZE)


def total_size(names: Sequence[str], contents: int) -> int:
    """Return the size of a bundle with these entries and `contents` bytes in them."""
    return contents + sum(LOCAL.size + CENTRAL.size + 2 * len(name) for name in names) + TAIL_SIZE


def check_entry_name(name: str) -> None:
    """Refuse a name that is not one or two lower-case components.

    Raises:
        BundleError: the name is absolute, climbs, is nested too deep, too long, or has other characters.
    """
    if len(name) > MAX_NAME or ".." in name or not _NAME.fullmatch(name):
        shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
        raise BundleError("entry name is not allowed in a bundle", ascii(shown), "use a-z, 0-9, '.', '_', '-', one '/'")


def check_entry_names(names: Sequence[str]) -> None:
    """Refuse a list of names that is not `manifest.json` and then others, sorted, each once.

    Raises:
        BundleError: see `check_entry_name`; or too many names, one given twice, or one both a file and a folder.
    """
    if len(names) > MAX_ENTRIES:
        raise BundleError(f"bundle has more than {MAX_ENTRIES} entries", f"{len(names)} entries", "put in fewer")
    for name in names:
        check_entry_name(name)
    for name, following in zip(sorted(names), sorted(names)[1:]):
        if name == following:
            raise BundleError("bundle has two entries of one name", name, "rename one")
    for name in names:
        folder, slash, _ = name.partition("/")
        if slash and folder in names:
            raise BundleError("entry name is both a file and a folder", folder, "rename one")
    if not names or names[0] != MANIFEST:
        raise BundleError("bundle's first entry is not its manifest", MANIFEST, "rebuild the bundle")
    if list(names[1:]) != sorted(names[1:]):
        raise BundleError("bundle's entries are not in order", names[1], "rebuild the bundle")
