"""From an index of kernels to C++ sources."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from native_builds import needs_compiler
from plugin_index import write_fake_index

from edge_lsla.errors import CompatibilityError, EdgeLslaError, InputError
from edge_lsla.plugin_library import SECTION
from plugins.embed import write_sources


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return write_fake_index(tmp_path / "index")


def change(index: Path, **values: Any) -> None:
    """Change the first entry of an index."""
    document = json.loads((index / "index.json").read_text())
    document["entries"][0].update(values)
    (index / "index.json").write_text(json.dumps(document))


def test_a_table_line_per_kernel_in_the_order_of_the_contract(index: Path, tmp_path: Path) -> None:
    write_sources(index, tmp_path / "sources")
    lines = (tmp_path / "sources" / "variants.inc").read_text().splitlines()
    entries = json.loads((index / "index.json").read_text())["entries"]
    assert len(lines) == len(entries)
    number = next(i for i, e in enumerate(entries) if e["kernel"] == "residual" and e["kind"] == "cubin")
    assert lines[number] == (
        "EDGE_LSLA_VARIANT(Residual, Half, 14, 32, 96, 87, false, "
        f'"lsla_residual", 128, 65536, 4, 3, {number}, "residual-w14-d32-c96-fp16")'
    )
    assert any("Quantised, Int8" in line for line in lines)
    assert any("Attention, Float" in line and ", true, " in line for line in lines)


@pytest.mark.compiler
@needs_compiler
def test_the_assembled_object_holds_each_file_and_the_index(index: Path, tmp_path: Path) -> None:
    awkward = tmp_path / 'a "quoted" folder'  # a name that an assembler string must escape
    shutil.move(index, awkward)
    write_sources(awkward, tmp_path)
    subprocess.run(["c++", "-c", tmp_path / "blobs.S", "-o", tmp_path / "blobs.o"], check=True)
    object_bytes = (tmp_path / "blobs.o").read_bytes()
    entries = json.loads((awkward / "index.json").read_text())["entries"]
    for entry in entries:
        content = (awkward / entry["file"]).read_bytes()
        assert content + (b"\0" if entry["kind"] == "ptx" else b"") in object_bytes
    dump = subprocess.run(
        ["objcopy", "-O", "binary", "-j", SECTION, "--set-section-flags", f"{SECTION}=alloc",
         tmp_path / "blobs.o", tmp_path / "index.out"], check=True, capture_output=True)  # fmt: skip
    assert dump.returncode == 0
    assert (tmp_path / "index.out").read_bytes() == (awkward / "index.json").read_bytes()
    symbols = subprocess.run(
        ["readelf", "-sW", tmp_path / "blobs.o"], check=True, capture_output=True, text=True
    ).stdout
    lines = [line.split() for line in symbols.splitlines() if "edge_lsla_blob_" in line]
    assert len(lines) == 2 * len(entries)
    assert all("HIDDEN" in line for line in lines)
    starts = [int(line[1], 16) for line in lines if not line[-1].endswith("_end")]
    assert all(start % 16 == 0 for start in starts)


def test_a_second_writing_changes_no_file(index: Path, tmp_path: Path) -> None:
    write_sources(index, tmp_path)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in ("variants.inc", "blobs.S")}
    write_sources(index, tmp_path)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before


def test_a_new_kernel_under_an_old_name_changes_the_assembly_file(index: Path, tmp_path: Path) -> None:
    write_sources(index, tmp_path)
    before = (tmp_path / "blobs.S").read_text()
    entry = json.loads((index / "index.json").read_text())["entries"][0]
    content = (index / entry["file"]).read_bytes() + b"// another\n"
    (index / entry["file"]).write_bytes(content)
    change(index, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    write_sources(index, tmp_path)
    assert (tmp_path / "blobs.S").read_text() != before


def test_a_changed_kernel_file_is_refused(index: Path, tmp_path: Path) -> None:
    entry = json.loads((index / "index.json").read_text())["entries"][2]
    path = index / entry["file"]
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"not the one of the index: .*{entry['file']}; run `plugin build` again"):
        write_sources(index, tmp_path / "sources")
    assert not (tmp_path / "sources").exists()


def test_an_absent_kernel_file_is_refused(index: Path, tmp_path: Path) -> None:
    entry = json.loads((index / "index.json").read_text())["entries"][0]
    (index / entry["file"]).unlink()
    with pytest.raises(InputError, match=entry["file"]):
        write_sources(index, tmp_path / "sources")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"file": "../outside.cubin"}, "file"),  # files lie beside the index
        ({"file": "/etc/passwd"}, "file"),
        ({"symbol": 'a", 0); evil("'}, "symbol"),  # becomes C++
        ({"name": "two\nlines"}, "name"),
        ({"threads": -1}, "threads"),
        ({"threads": 128}, "threads 128, not"),  # becomes a launch that writes out of bounds
        ({"row_blocks": 2}, "row_blocks 2, not"),
        ({"threads": True}, "threads"),
        ({"threads": 2**31}, "threads"),
        ({"shared_bytes": "12288"}, "shared_bytes"),
        ({"max_per_program": None}, "max_per_program"),
        ({"kernel": "other"}, "kernel"),
        ({"dtype": "bf16"}, "type"),
        ({"kind": "fatbin"}, "kind"),
    ],
)
def test_an_entry_that_would_not_become_its_own_cpp_is_refused(
    index: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    change(index, **values)
    with pytest.raises(InputError, match=rf"{message}.*index\.json; run `plugin build` again"):
        write_sources(index, tmp_path / "sources")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InputError),
        ("[]", InputError),
        ("{}", InputError),
        ('{"entries": 3}', InputError),
        ('{"format": 1, "operator_version": 1, "entries": []}', InputError),
        ('{"format": 1, "operator_version": 1, "entries": [7]}', InputError),
        ('{"format": 2, "operator_version": 1, "entries": []}', CompatibilityError),
        ('{"format": 1, "operator_version": 2, "entries": []}', CompatibilityError),
    ],
)
def test_another_index_is_refused(index: Path, tmp_path: Path, text: str, error: type[EdgeLslaError]) -> None:
    (index / "index.json").write_text(text)
    with pytest.raises(error, match=r"index\.json"):
        write_sources(index, tmp_path / "sources")


def test_a_kernel_listed_twice_is_refused(index: Path, tmp_path: Path) -> None:
    document = json.loads((index / "index.json").read_text())
    document["entries"].append(document["entries"][0])
    (index / "index.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="twice"):
        write_sources(index, tmp_path / "sources")


def test_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"index\.json; run `plugin build` again"):
        write_sources(tmp_path, tmp_path / "sources")
