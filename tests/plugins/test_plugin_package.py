"""The package of compiled kernels: the same bytes each time, and nothing in a foreign one is trusted."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from edge_lsla.errors import InputError, UsageError
from plugins import package as package_module
from plugins.index import NAME, Entry, Index, file_name
from plugins.package import pack, unpack
from plugins.variants import Variant

Member = tuple[tarfile.TarInfo, bytes]
BLOBS = [b"\x7fELF" + random.Random(seed).randbytes(3000) for seed in range(2)]


def entry(window: int, data: bytes) -> Entry:
    variant = Variant("attention", "fp16", window, 32)
    return Entry(
        variant.name, "attention", "fp16", window, 32, 0, 87, "cubin", "lsla", 32 * variant.tile.warps, 12288, 96, 0,
        variant.row_blocks, variant.max_per_program, True, "12.6.85",
        file_name(variant, 87, "cubin"), len(data), hashlib.sha256(data).hexdigest(),
    )  # fmt: skip


INDEX = Index("3.6.0", (entry(6, BLOBS[0]), entry(7, BLOBS[1])))
FILES = {one.file: data for one, data in zip(INDEX.entries, BLOBS)}


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    folder = tmp_path / "kernels"
    folder.mkdir()
    for name, data in {NAME: INDEX.dump(), **FILES}.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_round_trip_keeps_every_byte_and_is_the_same_each_time(kernels: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"
    sha256 = pack(kernels, first)
    for path in kernels.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert pack(kernels, second) == sha256
    assert first.read_bytes() == second.read_bytes()
    assert hashlib.sha256(first.read_bytes()).hexdigest() == sha256
    assert unpack(first) == (INDEX.dump(), FILES)


def test_only_kernels_that_are_whole_are_packed(kernels: Path, tmp_path: Path) -> None:
    (kernels / INDEX.entries[0].file).write_bytes(b"other")
    with pytest.raises(InputError, match="not the one of the index"):
        pack(kernels, tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()
    (kernels / INDEX.entries[0].file).write_bytes(BLOBS[0])
    with pytest.raises(UsageError, match="no such folder"):
        pack(kernels, tmp_path / "absent" / "a.tar.gz")


def test_no_damage_goes_unseen(kernels: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    pack(kernels, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for position in [*range(40), *(rng.randrange(len(whole)) for _ in range(200))]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << rng.randrange(8)]) + whole[position + 1 :])
        try:
            answer = unpack(path)
        except InputError:
            refused += 1
        else:  # the head of a gzip file holds a time and a machine, which say nothing about the content
            assert answer == (INDEX.dump(), FILES)
            assert position < 10
    assert refused > 200
    for length in (0, 1, 10, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            unpack(path)


def member(name: str, data: bytes = b"", **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


HEAD = member(NAME, INDEX.dump())
BODY = [member(name, data) for name, data in FILES.items()]
FIRST = INDEX.entries[0].file
OTHER = Index("3.6.0", (dataclasses.replace(INDEX.entries[0], max_per_program=1), INDEX.entries[1]))
HOSTILE: dict[str, tuple[list[Member], str]] = {
    "no index": (BODY, "does not begin with its index"),
    "nothing": ([], "does not begin with its index"),
    "index is a link": ([member(NAME, type=tarfile.SYMTYPE, linkname="/etc/passwd"), *BODY], "no plain file"),
    "index is junk": ([member(NAME, b"{}"), *BODY], "no index"),
    "path": ([HEAD, *BODY, member("../evil", b"x")], "'../evil', which its index does not"),
    "absolute path": ([HEAD, member("/tmp/evil", b"x"), *BODY], "which its index does not"),
    "one too few": ([HEAD, BODY[0]], "lacks"),
    "twice": ([HEAD, BODY[0], BODY[0], BODY[1]], "which its index does not"),
    "other size": ([HEAD, member(FIRST, BLOBS[0] + b"x")], "another size"),
    "other content": ([HEAD, member(FIRST, BLOBS[1])], "not the one of the index"),
    "geometry": ([member(NAME, OTHER.dump()), *BODY], "max_per_program 1, not 16"),
    "no cubin": ([member(NAME, Index("3.6.0", (entry(6, b"text"),)).dump()), member(FIRST, b"text")], "is no cubin"),
    "link": ([HEAD, member(FIRST, BLOBS[0], type=tarfile.SYMTYPE, linkname="/etc/passwd")], "no plain file"),
    "device": ([HEAD, member(FIRST, BLOBS[0], type=tarfile.CHRTYPE)], "no plain file"),
    "sparse": ([HEAD, member(FIRST, BLOBS[0], type=tarfile.GNUTYPE_SPARSE)], "package"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_package_is_refused(name: str, tmp_path: Path) -> None:
    members, what = HOSTILE[name]
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(InputError, match=what) as caught:
        unpack(path)
    assert str(path) in str(caught.value)


def test_what_is_no_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar.gz"
    for content in (b"", b"hello", gzip.compress(b""), gzip.compress(b"x" * 10_000), gzip.compress(bytes(10_000))):
        path.write_bytes(content)
        with pytest.raises(InputError, match="package"):
            unpack(path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # without a writer: opening it would wait for ever
    for path_ in (tmp_path, pipe, Path("/dev/zero")):
        with pytest.raises(InputError, match="no regular file"):
            unpack(path_)
    with pytest.raises(InputError, match="No such file"):
        unpack(tmp_path / "absent")
    monkeypatch.setattr(package_module, "LARGEST", 2**20)
    path.write_bytes(gzip.compress(bytes(2**20 + 1)))
    with pytest.raises(InputError, match="too large"):
        unpack(path)
