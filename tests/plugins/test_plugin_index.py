"""The index of compiled kernels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from edge_lsla.errors import CompatibilityError, InputError
from plugins.index import NAME, Entry, Index, check_content, digest, file_name, parse, read
from plugins.variants import Variant

DATA = b"\x7fELF, so to speak"


def entry(kernel: str = "attention", arch: int = 87, kind: str = "cubin", data: bytes = DATA) -> Entry:
    variant = Variant(kernel, "fp16", 14, 32, 96 if kernel == "residual" else 0)
    return Entry(
        variant.name, kernel, "fp16", 14, 32, variant.channels, arch, kind, "lsla", 32 * variant.tile.warps, 12288,
        96, 0, variant.row_blocks, variant.max_per_program, True, "12.6.85",
        file_name(variant, arch, kind), len(data), hashlib.sha256(data).hexdigest(),
    )  # fmt: skip


ENTRIES = (entry(), entry(arch=110), entry(arch=80, kind="ptx"), entry("residual"))
INDEX = Index("3.6.0", tuple(sorted(ENTRIES, key=lambda one: one.key)))


def test_what_is_written_is_read_again() -> None:
    raw = INDEX.dump()
    assert parse(raw, "here") == INDEX
    assert INDEX.dump() == dataclasses.replace(INDEX, entries=INDEX.entries[::-1]).dump()
    assert digest(raw) == hashlib.sha256(raw).hexdigest()
    assert INDEX.architectures == (87, 110)
    value = json.loads(raw)
    assert (value["format"], value["operator_version"], len(value["entries"])) == (1, 1, 4)
    assert value["entries"][1]["file"] == "attention-w14-d32-fp16.sm87.cubin"
    assert max(map(len, raw.splitlines())) < 600  # an entry a line: people read it


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "attention-w7-d32-fp16"), ("kernel", "softmax"), ("dtype", "int8"), ("window", 99), ("window", "14"),
        ("head_width", 33), ("channels", 96), ("arch", 7), ("arch", True), ("kind", "fatbin"), ("symbol", 'x", "y'),
        ("threads", 2048), ("shared_bytes", 2**20), ("registers", 0), ("spills", -1), ("row_blocks", 0),
        ("max_per_program", 2**31), ("tensor_cores", 1), ("ptxas", "12.6; rm"), ("file", "../../etc/passwd"),
        ("file", "attention-w14-d32-fp16.sm86.cubin"), ("bytes", 2**40), ("sha256", "0" * 63), ("extra", 1),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused(field: str, value: object) -> None:
    good = entry().to_dict()
    assert Entry.from_dict(good, "here") == entry()
    with pytest.raises(InputError, match="here"):
        Entry.from_dict({**good, field: value}, "here")


def test_a_lacking_field_is_refused() -> None:
    good = entry().to_dict()
    for name in good:
        with pytest.raises(InputError, match="lacks"):
            Entry.from_dict({key: value for key, value in good.items() if key != name}, "here")


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(INDEX.dump()), **fields}).encode()


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "no index"), (b"[" * 100_000, "no index"), (b"\xff\xfe", "no index"), (b"{}", "no index"),
        (changed(format=2), "format 2"), (changed(operator_version=3), "operator version 3"),
        (changed(triton=["x"]), "triton"), (changed(entries=[]), "empty"),
        (changed(entries=[entry().to_dict()] * 2), "twice"),
        (changed(entries=[one.to_dict() for one in INDEX.entries[::-1]]), "unsorted"),
        (b" " * 5_000_000 + INDEX.dump(), "no index"),
    ],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_index_is_refused(raw: bytes, what: str) -> None:
    with pytest.raises((InputError, CompatibilityError), match=what) as caught:
        parse(raw, "here")
    assert isinstance(caught.value, CompatibilityError) == ("version" in what or "format" in what)


def test_a_folder_is_held_to_its_index(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(Index("3.6.0", (entry(),)).dump())
    blob = tmp_path / entry().file
    for content in (None, DATA[:-1], DATA + b"x", DATA[:-1] + b"X"):
        blob.unlink(missing_ok=True)
        if content is not None:
            blob.write_bytes(content)
        with pytest.raises(InputError, match=blob.name):
            read(tmp_path)
    blob.write_bytes(DATA)
    assert read(tmp_path).entries == (entry(),)
    with pytest.raises(InputError, match="cannot read"):
        read(tmp_path / "absent")
    blob.unlink()
    os.mkfifo(blob)  # without a writer: reading it would never end
    with pytest.raises(InputError, match="no regular file"):
        read(tmp_path)


@pytest.mark.parametrize(
    "change", [{"threads": 1}, {"row_blocks": 1}, {"max_per_program": 15}], ids=lambda one: str(one)
)
@pytest.mark.parametrize("kernel", ["attention", "residual"])
def test_a_geometry_that_the_kernel_is_not_written_for_is_refused(
    kernel: str, change: dict[str, int], tmp_path: Path
) -> None:
    # Such an index is sound by itself, and the kernel would write beyond y.
    good = entry(kernel)
    good.check_launch("here")
    wrong = dataclasses.replace(good, **{name: getattr(good, name) + number for name, number in change.items()})
    (tmp_path / NAME).write_bytes(Index("3.6.0", (wrong,)).dump())
    (tmp_path / good.file).write_bytes(DATA)
    assert parse((tmp_path / NAME).read_bytes(), "here").entries == (wrong,)  # `plugin info` can look at it
    with pytest.raises(InputError, match=rf"launched otherwise here: {next(iter(change))}.*plugin build"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("kind", "data", "right"),
    [
        ("cubin", b"\x7fELF\2\1\1", True), ("cubin", b"ELF", False), ("cubin", b"//\n.version 8.4\n", False),
        ("ptx", b"//\n// Generated\n//\n\n.version 8.4\n", True), ("ptx", b"\n.version 8.4\n", True),
        ("ptx", b"// nothing", False), ("ptx", b"//\n.version 8.4\n\0", False), ("ptx", b"\x7fELF", False),
    ],
)  # fmt: skip
def test_a_file_is_what_its_kind_says(kind: str, data: bytes, right: bool) -> None:
    one = entry(kind=kind, data=data)
    if right:
        check_content(one, data, "here")
    else:
        with pytest.raises(InputError, match=f"is no {kind}: here"):
            check_content(one, data, "here")
