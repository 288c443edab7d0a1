"""Reading and writing of the container that `layout` describes."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from edge_lsla.atomic import atomic_path
from edge_lsla.bundle import layout
from edge_lsla.bundle.layout import MAX_BUNDLE_BYTES, Entry
from edge_lsla.errors import BundleError

_CHUNK = 1 << 20
_AGAIN = "copy the bundle again from its source, or rebuild it"


def write_archive(destination: str | os.PathLike[str], entries: Mapping[str, bytes | Path]) -> None:
    """Write an archive atomically; the same entries give the same bytes.

    Args:
        destination: the file to write.
        entries: name to bytes, or to the file that holds them, which is streamed.

    Raises:
        BundleError: a name is not allowed, an entry cannot be read, or the whole is too large.
        EdgeLslaError: see `atomic_path`.
    """
    with atomic_path(destination) as temporary:
        fill_archive(temporary, entries)


def fill_archive(path: Path, entries: Mapping[str, bytes | Path]) -> None:
    """Do `write_archive`'s work on a file that the caller makes atomic."""
    names = sorted(entries, key=lambda name: (name != layout.MANIFEST, name))
    layout.check_entry_names(names)
    measured = {name: _measure(stream(entries[name])) for name in names}
    if layout.total_size(names, sum(size for size, _ in measured.values())) > MAX_BUNDLE_BYTES:
        raise BundleError(
            f"bundle would be larger than {MAX_BUNDLE_BYTES:,} bytes", path.name, "put in fewer artifacts"
        )
    records: list[Entry] = []
    start = 0
    for name, (size, crc) in measured.items():
        records.append(Entry(name, size, crc, start + layout.LOCAL.size + len(name)))
        start = records[-1].offset + size
    directory = b"".join(record.central_header() for record in records)
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def write(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        for record in records:
            write(record.local_header())
            size = crc = 0
            for chunk in stream(entries[record.name]):
                size, crc = size + len(chunk), zlib.crc32(chunk, crc)
                if size > record.size:
                    break
                write(chunk)
            if (size, crc) != (record.size, record.crc32):
                raise BundleError("file changed while it was put into the bundle", entries[record.name], "try again")
        write(directory)
        write(layout.end_record(len(records), len(directory), start))
        file.write(digest.hexdigest().encode("ascii"))


class Archive:
    """An archive opened for reading; its digest and all its headers are verified before anything is given out.

    Owns the open file: close it, or use it as a context manager. Reads go by position, so threads may share it.

    Attributes:
        path: the file.
        digest: SHA-256 of every byte before the zip comment, hexadecimal; it identifies the file's contents.
        file_sha256: SHA-256 of every byte, as `sha256sum` tells it.
        entries: the entries by name, `manifest.json` first.

    Raises:
        BundleError: the file is missing, is no regular file, is too large, damaged, cut short or not an archive of
            this layout.
    """

    path: Path
    digest: str
    file_sha256: str
    entries: Mapping[str, Entry]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = _open_regular(self.path)
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size > MAX_BUNDLE_BYTES:
                raise BundleError(f"larger than the {MAX_BUNDLE_BYTES:,} bytes of a bundle", self.path, "give a bundle")
            self.digest, self.file_sha256 = self._verify_digest(size)
            self.entries = MappingProxyType({entry.name: entry for entry in self._parse(size)})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading afterwards is refused."""
        self._file.close()

    def read(self, name: str, limit: int = MAX_BUNDLE_BYTES) -> bytes:
        """Return an entry's bytes, at most `limit` of them.

        Raises:
            BundleError: no such entry, larger than `limit`, or its bytes do not match its CRC.
        """
        entry = self._entry(name)
        if entry.size > limit:
            raise BundleError(f"entry is larger than {limit:,} bytes", f"{self.path}: {name}", "rebuild the bundle")
        data = self._read_at(entry.offset, entry.size)
        self._check_crc(entry, zlib.crc32(data))
        return data

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of an entry's bytes, hexadecimal, reading them in pieces.

        Raises:
            BundleError: no such entry, or its bytes do not match its CRC.
        """
        entry = self._entry(name)
        digest, crc = hashlib.sha256(), 0
        for chunk in self._pieces(entry.offset, entry.size):
            digest.update(chunk)
            crc = zlib.crc32(chunk, crc)
        self._check_crc(entry, crc)
        return digest.hexdigest()

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise BundleError("no such entry in the bundle", f"{self.path}: {name}", "rebuild the bundle")
        return self.entries[name]

    def _check_crc(self, entry: Entry, crc: int) -> None:
        if crc != entry.crc32:
            raise BundleError("entry does not match its checksum", f"{self.path}: {entry.name}", _AGAIN)

    def _read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes; the callers have checked that the file has them."""
        try:
            data = os.pread(self._file.fileno(), size, offset)
            while 0 < len(data) < size:  # Linux reads at most 2 GiB at once
                more = os.pread(self._file.fileno(), size - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except MemoryError as error:
            raise BundleError(
                "entry does not fit in memory", self.path, "use a smaller model or a larger device"
            ) from error
        except (OSError, ValueError) as error:
            raise BundleError("bundle cannot be read", self.path, str(error)) from error
        if len(data) != size:
            raise BundleError("bundle is cut short", self.path, _AGAIN)
        return data

    def _pieces(self, offset: int, size: int) -> Iterator[bytes]:
        for position in range(offset, offset + size, _CHUNK):
            yield self._read_at(position, min(_CHUNK, offset + size - position))

    def _verify_digest(self, size: int) -> tuple[str, str]:
        if size == 0:
            raise BundleError("bundle is an empty file", self.path, _AGAIN)
        if size < layout.TAIL_SIZE or self._read_at(0, 4) != layout.MAGIC:
            raise BundleError("not a bundle", self.path, "give a .lsla file that `build-engine` wrote")
        digest = hashlib.sha256()
        for chunk in self._pieces(0, size - layout.DIGEST_SIZE):
            digest.update(chunk)
        said = digest.hexdigest()
        if self._read_at(size - layout.DIGEST_SIZE, layout.DIGEST_SIZE) != said.encode("ascii"):
            raise BundleError("bundle is damaged or cut short", self.path, _AGAIN)
        digest.update(said.encode("ascii"))
        return said, digest.hexdigest()

    def _parse(self, size: int) -> list[Entry]:
        end = self._read_at(size - layout.TAIL_SIZE, layout.END.size)
        _, _, _, count, _, directory_size, directory_start, _ = layout.END.unpack(end)
        largest = count * (layout.CENTRAL.size + layout.MAX_NAME)
        if (
            not 0 < count <= layout.MAX_ENTRIES
            or directory_size > largest
            or directory_start + directory_size != size - layout.TAIL_SIZE
        ):
            raise self._malformed("end record")
        directory = self._read_at(directory_start, directory_size)
        entries: list[Entry] = []
        position = start = 0
        for _ in range(count):
            if position + layout.CENTRAL.size > directory_size:
                raise self._malformed("central directory")
            fields = layout.CENTRAL.unpack_from(directory, position)
            crc, entry_size, name_size = fields[7], fields[8], fields[10]
            position += layout.CENTRAL.size + name_size
            # latin-1 takes any byte, so that a bad name is shown rather than failing to decode
            name = directory[position - name_size : position].decode("latin-1")
            entries.append(Entry(name, entry_size, crc, start + layout.LOCAL.size + name_size))
            start = entries[-1].offset + entry_size
            if start > directory_start:
                raise self._malformed("entry size")
        try:
            layout.check_entry_names([entry.name for entry in entries])
        except BundleError as error:
            raise BundleError(error.what, f"{self.path}: {error.where}", "rebuild the bundle") from error
        if start != directory_start or directory != b"".join(entry.central_header() for entry in entries):
            raise self._malformed("central directory")
        if end != layout.end_record(count, directory_size, directory_start):
            raise self._malformed("end record")
        for entry in entries:
            header = entry.local_header()
            if self._read_at(entry.offset - len(header), len(header)) != header:
                raise self._malformed(f"local header of {entry.name}")
        return entries

    def _malformed(self, part: str) -> BundleError:
        return BundleError(f"not a bundle of this layout, its {part} is wrong", self.path, "rebuild the bundle")


def _open_regular(path: Path) -> io.FileIO:
    try:
        # Without O_NONBLOCK, opening a named pipe waits for a writer that may never come.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb", buffering=0, closefd=True)
    except FileNotFoundError as error:
        raise BundleError("no such bundle", path, "check the path") from error
    except PermissionError as error:
        raise BundleError("no permission to read the bundle", path, "change its permissions") from error
    except IsADirectoryError as error:
        raise BundleError("a folder, not a bundle", path, "give the .lsla file") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        raise BundleError("bundle cannot be opened", path, str(error)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BundleError("not a regular file", path, "give the .lsla file")
    return file


def stream(source: bytes | Path) -> Iterator[bytes]:
    """Give the bytes of an entry to be, a file's in pieces.

    Raises:
        BundleError: the file cannot be read or is no regular file.
    """
    if isinstance(source, bytes):
        yield source
        return
    try:
        if source.exists() and not source.is_file():
            raise BundleError("not a regular file to put into the bundle", source, "give a file")
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise BundleError("file for the bundle cannot be read", source, error.strerror or "check the path") from error


def _measure(chunks: Iterator[bytes]) -> tuple[int, int]:
    size = crc = 0
    for chunk in chunks:
        size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return size, crc
