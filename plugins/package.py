"""Compiled kernels as one file, for a device that builds only the library: a gzipped tar of index.json and the files.

The same kernels give the same bytes. Reading trusts nothing: sizes are bounded before anything is read, the only names
taken are those of the index, and every file must have the digest that the index states.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from io import BytesIO
from pathlib import Path

from edge_lsla.atomic import atomic_path
from edge_lsla.errors import InputError
from edge_lsla.plugin_library import LARGEST_INDEX, read_regular
from plugins import index as kernel_index

LARGEST = 64 * 2**20  # bytes, packed or not; all shipped kernels for all architectures are about 3 MB
_AGAIN = "take it from its source again, or make it with `plugin build --package`"


def pack(folder: Path, package: Path) -> str:
    """Write the kernels of a folder to `package`; return the file's sha256.

    Raises:
        InputError: the folder's files are not those of its index, or `package` cannot be written there.
        EdgeLslaError: the disk is full or fails.
    """
    index = kernel_index.read(folder)
    plain = BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in (kernel_index.NAME, *(entry.file for entry in index.entries)):  # the index first: it names the rest
            data = (folder / name).read_bytes()
            member = tarfile.TarInfo(name)  # owner and time are 0
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    packed = BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as stream:
        stream.write(plain.getvalue())
    with atomic_path(package) as temporary:
        temporary.write_bytes(packed.getvalue())
    return hashlib.sha256(packed.getvalue()).hexdigest()


def unpack(package: Path) -> tuple[bytes, dict[str, bytes]]:
    """Read a package; return the bytes of index.json, and the files by name, all checked.

    Raises:
        InputError: it cannot be read, is no package, or its content is not what its index says.
        CompatibilityError: its index is of another format or operator version.
    """
    try:
        data = read_regular(package, LARGEST)
        if data is None:
            raise InputError("the package is no regular file", package, "give a file")
        with gzip.open(BytesIO(data)) as packed:
            plain = packed.read(LARGEST + 1)  # a few kilobytes may unpack to any number
        if len(plain) > LARGEST:
            raise InputError("the package is too large", package, _AGAIN)
        with tarfile.open(fileobj=BytesIO(plain), mode="r:") as archive:
            return _members(archive, package)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, OverflowError, ValueError) as error:
        raise InputError("this is no package of kernels, or it is damaged", package, _AGAIN) from error
    except OSError as error:
        raise InputError(f"cannot read the package ({error.strerror or error})", package, "check the path") from error


def _members(archive: tarfile.TarFile, package: Path) -> tuple[bytes, dict[str, bytes]]:
    first = archive.next()
    if first is None or first.name != kernel_index.NAME or first.size > LARGEST_INDEX:
        raise InputError("this is no package of kernels: it does not begin with its index", package, _AGAIN)
    raw = _content(archive, first, package)
    index = kernel_index.parse(raw, package)
    index.check_launches(package)
    wanted = {entry.file: entry for entry in index.entries}
    files: dict[str, bytes] = {}
    while (member := archive.next()) is not None:
        entry = wanted.get(member.name)
        if entry is None or member.name in files:
            raise InputError(f"the package holds {member.name!r}, which its index does not", package, _AGAIN)
        if member.size != entry.bytes:
            raise InputError(f"{member.name} of the package has another size than the index says", package, _AGAIN)
        data = _content(archive, member, package)
        kernel_index.check_content(entry, data, f"{package}, {member.name}")
        files[member.name] = data
    if absent := sorted(wanted.keys() - files.keys()):
        raise InputError(f"the package lacks {absent[0]}, which its index names", package, _AGAIN)
    return raw, files


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, package: Path) -> bytes:
    # A sparse member states another size than it stores; a link, folder or device has no content at all.
    file = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if file is None:
        raise InputError(f"{member.name} of the package is no plain file", package, _AGAIN)
    data = file.read(member.size)
    if len(data) != member.size:
        raise InputError("the package is cut short", package, _AGAIN)
    return data
