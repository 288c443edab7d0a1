"""The plugin's library as a file: smallest ELF files laid out by hand, one by a real linker, and what is neither."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from edge_lsla import plugin_library as module
from edge_lsla.device import describe_device
from edge_lsla.errors import InputError
from edge_lsla.plugin_library import find_plugin, read_library_file, read_plugin


def elf(section: bytes, *, machine: int = 183, name: bytes = b".edge_lsla_index", **changes: int) -> bytes:
    """Lay out the smallest library with one section."""
    names = b"\0" + name + b"\0.shstrtab\0"
    place = 64 + len(section)
    start = place + len(names)
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, start, 0, 64, 56, 0, 64, changes.get("count", 3), 2)
    rows = [
        (0,) * 10,
        (1, changes.get("kind", 1), changes.get("flags", 0), 0, 64, changes.get("size", len(section)), 0, 0, 1, 0),
        (2 + len(name), 3, 0, 0, place, len(names), 0, 0, 1, 0),
    ]
    return header + section + names + b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in rows)


INDEX = json.dumps(
    {"format": 1, "operator_version": 1, "entries": [{"kind": "cubin", "arch": 87}, {"kind": "ptx", "arch": 80}]}
).encode()


def test_a_plugin_library_is_read_without_loading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plugin.so"
    path.write_bytes(elf(INDEX))
    found = read_plugin(path)
    assert (found.machine, found.architectures, found.ptx, found.operator_version) == ("aarch64", (87,), 80, 1)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.index_digest == hashlib.sha256(INDEX).hexdigest()
    monkeypatch.setenv("EDGE_LSLA_PLUGIN", str(path))
    described = describe_device(root=tmp_path, libcuda="libno-such-driver.so.1")
    assert described.plugin == found
    assert json.dumps(described.to_dict())


def test_the_places_of_the_library_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.VARIABLE, raising=False)
    monkeypatch.setattr(module, "INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(module, "BUILT", tmp_path / "built")
    assert find_plugin() is None
    for folder in ("built", "installed"):  # the installation goes before the checkout
        (tmp_path / folder).mkdir()
        (tmp_path / folder / module.LIBRARY).write_bytes(b"")
        assert find_plugin() == tmp_path / folder / module.LIBRARY
    monkeypatch.setenv(module.VARIABLE, "/no/such.so")
    assert find_plugin() == Path("/no/such.so")


def test_what_may_have_no_end_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path("/dev/zero"), pipe, tmp_path):
        with pytest.raises(InputError, match="plugin library is no regular file"):
            read_plugin(path)
    with pytest.raises(InputError, match="plugin library is absent"):
        read_plugin(tmp_path / "absent")


def test_no_more_is_read_than_a_library_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_LIBRARY", 1000)
    path = tmp_path / "plugin.so"
    path.write_bytes(bytes(5000))
    assert len(module.read_regular(path, 1000) or b"") == 1001
    with pytest.raises(InputError, match="too large"):
        read_plugin(path)


@pytest.mark.compiler
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_a_real_linkers_library_reads_as_another_reader_reads_it(tmp_path: Path) -> None:
    """Our short ELF reader against pyelftools."""
    elffile = pytest.importorskip("elftools.elf.elffile")
    (tmp_path / "index.json").write_bytes(INDEX)
    source = f'.section {module.SECTION}, "", %progbits\n.incbin "{tmp_path}/index.json"\n'
    path = tmp_path / "plugin.so"
    command = ["cc", "-shared", "-nostdlib", "-xassembler", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)
    ours = read_library_file(path)
    with path.open("rb") as file:
        theirs = elffile.ELFFile(file)
        assert ours.index == theirs.get_section_by_name(module.SECTION).data() == INDEX
        assert {"x86_64": "x64", "aarch64": "AArch64"}[ours.machine] == theirs.get_machine_arch()
    assert read_plugin(path).architectures == (87,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        os.urandom(300),
        elf(b"{}"),
        elf(b"[" * 5000),
        elf(b'{"operator_version": 1e999, "entries": []}'),
        elf(b'{"operator_version": 1, "entries": [{"kind": "cubin", "arch": []}]}'),
        elf(INDEX, name=b".edge_lsla_other"),
        elf(INDEX, size=2**63),
        elf(INDEX, kind=8),
        elf(INDEX, flags=0x800),
        elf(INDEX, count=60000),
        elf(INDEX)[:-1],
        elf(INDEX).replace(b"\2\1\1", b"\1\1\1", 1),
    ],
    ids=range(14),
)
def test_libraries_that_are_damaged_or_anothers(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "plugin.so"
    path.write_bytes(data)
    with pytest.raises(InputError, match="plugin library is damaged, or not one of edge-lsla"):
        read_plugin(path)


def test_any_damage_to_a_library_is_refused_or_harmless(tmp_path: Path) -> None:
    whole, path = elf(INDEX), tmp_path / "plugin.so"
    path.write_bytes(whole)
    with path.open("r+b", buffering=0) as file:
        for position in range(len(whole)):
            changed = bytearray(whole)
            changed[position] ^= 0xFF
            os.pwrite(file.fileno(), changed, 0)
            try:
                assert read_plugin(path).sha256 == hashlib.sha256(changed).hexdigest()
            except InputError as error:
                assert "plugin library" in str(error)  # noqa: PT017
