"""Files made to mislead a reader: each is refused in plain words, quickly and with little memory."""

import hashlib
import io
import json
import os
import signal
import socket
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundle_parts as parts
import pytest

from edge_lsla.bundle import open_bundle, strict_json
from edge_lsla.bundle.archive import Archive
from edge_lsla.bundle.layout import MAX_BUNDLE_BYTES
from edge_lsla.errors import BundleError, CompatibilityError


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """Nothing here may wait or take memory by claim."""

    def expire(*_: Any) -> None:
        raise AssertionError("took more than 30 s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def refusal(path: Path, data: bytes | None = None, most_memory: int = 4 << 20) -> str:
    if data is not None:
        path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError) as caught:
            open_bundle(path).close()
        assert tracemalloc.get_traced_memory()[1] < most_memory + (len(data) if data else 0) * 3
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert str(path) in text
    assert "\n" not in text
    return text


def with_manifest(data: bytes, manifest: bytes) -> bytes:
    return parts.from_entries({**parts.contents(data), "manifest.json": manifest})


def edited(data: bytes, **changes: Any) -> bytes:
    values = json.loads(parts.contents(data)["manifest.json"])
    return with_manifest(data, strict_json.dump({**values, **changes}))


def test_the_tests_lay_out_bundles_as_the_library_does(bundle_bytes: bytes) -> None:
    assert parts.from_entries(parts.contents(bundle_bytes)) == edited(bundle_bytes) == bundle_bytes


def test_an_unverified_signature_is_allowed(bundle_bytes: bytes, tmp_path: Path) -> None:
    entries = {**parts.contents(bundle_bytes), "signature.json": b"anything"}
    first, *rest = entries
    ordered = {name: entries[name] for name in (first, *sorted(rest))}
    (tmp_path / "signed.lsla").write_bytes(parts.from_entries(ordered))
    with open_bundle(tmp_path / "signed.lsla") as bundle:
        assert bundle.manifest.labels == parts.LABELS
    ordered["signature.json"] = bytes(70_000)
    assert "larger than 65,536 bytes" in refusal(tmp_path / "x.lsla", parts.from_entries(ordered))


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a\\b",
        "a/b/c",
        "x/../y",
        "..",
        "C:x",
        "Z",
        "\x1b[31m",
        "é",
        "a\0b",
        "n" * 200,
        "a//b",
        "a\n",
        "",
    ],
)
def test_a_name_that_could_leave_its_folder_is_refused(bundle_bytes: bytes, tmp_path: Path, name: str) -> None:
    entries = [*parts.contents(bundle_bytes).items(), (name, b"")]
    text = refusal(tmp_path / "x.lsla", parts.from_entries(entries))
    assert "entry name is not allowed" in text or "central directory is wrong" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda e: [*e, e[-1]], "two entries of one name"),
        (lambda e: [*e[:-1], ("golden", b""), e[-1]], "file and a folder"),
        (lambda e: [*e, ("zzz", b"")], "not named by the manifest"),
        (lambda e: e[:-1], "is missing"),
        (lambda e: e[1:], "not its manifest"),
        (lambda e: [*e[1:], e[0]], "not its manifest"),
        (lambda e: [e[0], *e[:0:-1]], "not in order"),
        (lambda e: [*e, *((f"z{index:03}", b"") for index in range(256))], "end record is wrong"),
        (lambda e: [], "not a bundle"),
        (lambda e: [(n, d + b"x" if n.endswith("fp32.onnx") else d) for n, d in e], "not the one that the manifest"),
        (
            lambda e: [(n, d[:-1] + b"x" if n.endswith("fp32.onnx") else d) for n, d in e],
            "not the one that the manifest",
        ),
    ],
)
def test_entries_other_than_the_manifests_are_refused(
    bundle_bytes: bytes, tmp_path: Path, change: Any, match: str
) -> None:
    entries = list(parts.contents(bundle_bytes).items())
    assert match in refusal(tmp_path / "x.lsla", parts.from_entries(change(entries)))


def test_zips_in_other_forms_are_refused(bundle_bytes: bytes, tmp_path: Path) -> None:
    """The same entries written by zipfile: other attributes, dates, compression, descriptors, zip64."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(data)

    entries = parts.contents(bundle_bytes)
    plain, deflated, large = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pipe = Pipe()
    for target, method in ((plain, zipfile.ZIP_STORED), (deflated, zipfile.ZIP_DEFLATED), (pipe, zipfile.ZIP_STORED)):
        with zipfile.ZipFile(target, "w", method) as archive:  # type: ignore[call-overload]
            for name, data in entries.items():
                archive.writestr(name, data)
    with zipfile.ZipFile(large, "w") as archive:
        for name, data in entries.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    for data in (plain.getvalue(), deflated.getvalue(), pipe.data, large.getvalue()):
        assert "not a bundle of this layout" in refusal(tmp_path / "x.lsla", parts.seal_zip(data))


def test_claims_of_size_cost_nothing(bundle_bytes: bytes, tmp_path: Path) -> None:
    _, start, _, _, central = parts.records(bundle_bytes)[1]
    for claim in (0, 1, 2**31, 2**32 - 2, 2**32 - 1):
        for fields in ((start + 18, start + 22), (central + 20, central + 24), (start + 22, central + 24)):
            data = bytearray(bundle_bytes)
            for position in fields:
                struct.pack_into("<I", data, position, claim)
            assert "not a bundle of this layout" in refusal(tmp_path / "x.lsla", parts.reseal(bytes(data)))
        data = bytearray(bundle_bytes)
        for position in (start + 18, start + 22, central + 20, central + 24):
            struct.pack_into("<I", data, position, claim)
        refusal(tmp_path / "x.lsla", parts.reseal(bytes(data)))
    everywhere = bytearray(bundle_bytes)
    for _, _, _, _, record in parts.records(bundle_bytes):
        struct.pack_into("<II", everywhere, record + 20, 2**32 - 1, 2**32 - 1)  # their sum has more than 32 bits
    (tmp_path / "x.lsla").write_bytes(parts.reseal(bytes(everywhere)))
    with pytest.raises(BundleError, match="entry size"):
        Archive(tmp_path / "x.lsla")
    for position, size in ((-86 + 8, 2), (-86 + 10, 2), (-86 + 12, 4), (-86 + 16, 4)):  # the end record's counts
        for claim in (0, 1, 2**15, 2 ** (8 * size) - 1):
            data = bytearray(bundle_bytes)
            data[position : position + size] = (claim % 2 ** (8 * size)).to_bytes(size, "little")
            assert "not a bundle" in refusal(tmp_path / "x.lsla", parts.reseal(bytes(data)))


def test_entries_that_share_bytes_are_refused(bundle_bytes: bytes, tmp_path: Path) -> None:
    first, second = parts.records(bundle_bytes)[1:3]
    data = bytearray(bundle_bytes)
    struct.pack_into("<I", data, second[4] + 42, first[1])
    assert "central directory is wrong" in refusal(tmp_path / "x.lsla", parts.reseal(bytes(data)))


def test_gaps_and_prefixes_are_refused(bundle_bytes: bytes, tmp_path: Path) -> None:
    directory = parts.records(bundle_bytes)[0][4]
    with_gap = bundle_bytes[:directory] + b"hidden" + bundle_bytes[directory:]
    told = bytearray(with_gap)
    struct.pack_into("<I", told, len(told) - 86 + 16, directory + len(b"hidden"))
    for data in (bytes(told), with_gap, b"PK\3\4" + bundle_bytes, b"#!/bin/sh\n" + bundle_bytes):
        assert "not a bundle" in refusal(tmp_path / "x.lsla", parts.reseal(data))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "not JSON"),
        (b"null", "not an object"),
        (b"[]", "not an object"),
        (b"\xff\xfe{}", "not JSON"),
        (b'\xef\xbb\xbf{"format_version": 1}', "not JSON"),
        (b'{"format_version": NaN}', "NaN is not a number"),
        (b'{"format_version": -Infinity}', "Infinity is not a number"),
        (b'{"format_version": 1e999}', "out of range"),
        (b'{"format_version": 1' + b"0" * 5000 + b"}", "63 bits"),
        (b'{"format_version": 1' + b"0" * 3_000_000 + b"}", "63 bits"),
        (b'{"format_version": 0.' + b"1" * 3_000_000 + b"}", "out of range"),
        (b'{"format_version": 1, "format_version": 1}', "given twice"),
        (b'{"format_version": 1} {}', "not JSON"),
        (b'{"format_version": 1.0}', "not an integer: "),
        (b'{"format_version": true}', "format_version"),
        (b'{"format_version": "1"}', "format_version"),
        (b'{"format_version": 0}', "format_version"),
        (b"{}", "format_version"),
        (b'{"format_version": 1}', "is missing"),
        (b"[" * 100_000, "nested deeper than 24"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 24"),
        (b'{"a":' * 100_000, "nested deeper than 24"),
        (b'{"\\"": ' + b"[" * 100_000, "nested deeper than 24"),
        (b"[" + b"[]," * 1_000_000 + b"[]]", "more than 1,000,000 values"),
        (b'"' + b'\\"' * 2_000_000, "not JSON"),
        (b"\\" * 4_000_001 + b'"', "not JSON"),
        (b'"' * 4_000_001, "more than 1,000,000 values"),
        (b" " * (strict_json.MAX_BYTES + 1), "larger than 8,388,608 bytes"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_manifests_that_are_no_strict_json_are_refused(
    bundle_bytes: bytes, tmp_path: Path, text: bytes, match: str
) -> None:
    refused = refusal(tmp_path / "x.lsla", with_manifest(bundle_bytes, text), most_memory=100 << 20)
    assert match in refused
    assert len(refused) < 1000


def test_a_manifest_in_another_form_is_refused(bundle_bytes: bytes, tmp_path: Path) -> None:
    values = json.loads(parts.contents(bundle_bytes)["manifest.json"])
    for text in (
        json.dumps(values),
        json.dumps(values, indent=1),
        json.dumps(dict(reversed(values.items())), indent=1),
    ):
        data = with_manifest(bundle_bytes, text.encode())
        assert "not written in the form of a bundle" in refusal(tmp_path / "x.lsla", data)


def test_a_newer_format_is_a_matter_of_compatibility(bundle_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.lsla"
    later = b'{"format_version": 2, "all": ["else", {"may": "differ"}]}'
    for data in (edited(bundle_bytes, format_version=2), with_manifest(bundle_bytes, later)):
        path.write_bytes(data)
        with pytest.raises(CompatibilityError, match=r"newer edge-lsla.*x\.lsla.*update edge-lsla") as caught:
            open_bundle(path)
        assert caught.value.exit_code == 4


def test_golden_claims_cost_nothing(bundle_bytes: bytes, tmp_path: Path) -> None:
    golden = json.loads(parts.contents(bundle_bytes)["manifest.json"])["golden"]
    data = edited(bundle_bytes, golden={**golden, "images": 256})
    assert "golden/" in refusal(tmp_path / "x.lsla", data)
    golden["images"] = 10**9
    text = refusal(tmp_path / "x.lsla", edited(bundle_bytes, golden=golden))
    assert text.endswith("x.lsla: golden.images; rebuild the bundle")


def test_golden_arrays_of_another_header_are_refused(bundle_bytes: bytes, tmp_path: Path) -> None:
    """Of the right size and hash, so that only the header tells."""
    entries = parts.contents(bundle_bytes)
    values = json.loads(entries["manifest.json"])
    for name, old, new in (
        ("golden/inputs.npy", b"|u1", b"|O1"),
        ("golden/inputs.npy", b"(2, 4, 4, 3)", b"(9, 9, 9, 9)"),
        ("golden/onnxruntime-fp32.npy", b"<f4", b"<i4"),
        ("golden/onnxruntime-fp32.npy", b"False", b"True "),
        ("golden/onnxruntime-fp32.npy", entries["golden/onnxruntime-fp32.npy"][-4:], b"\0\0\xc0\x7f"),
    ):
        changed = entries[name].replace(old, new)
        assert changed != entries[name]
        golden = {**values["golden"], "entries": {**values["golden"]["entries"]}}
        golden["entries"][name] = hashlib.sha256(changed).hexdigest()
        manifest = strict_json.dump({**values, "golden": golden})
        path = tmp_path / "x.lsla"
        path.write_bytes(parts.from_entries({**entries, name: changed, "manifest.json": manifest}))
        with open_bundle(path) as bundle:
            artifact = bundle.manifest.artifacts[0]
            with pytest.raises(BundleError, match=r"x\.lsla: golden.*rebuild"):
                bundle.golden_inputs() if name == "golden/inputs.npy" else bundle.golden_logits(artifact)


def test_paths_that_are_no_bundle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "text").write_text("not a bundle\n" * 50)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(MAX_BUNDLE_BYTES + 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))  # an absolute one may be too long for a socket's address
        for name, match in {
            "empty": "empty file",
            "folder": "regular file|folder",
            "fifo": "not a regular file",
            "loop": "cannot be opened",
            "text": "not a bundle",
            "sparse": "larger than the 4,294,967,296 bytes",
            "socket": "cannot be opened",
            "missing": "no such bundle",
            "text/x": "cannot be opened",
        }.items():
            text = refusal(tmp_path / name)
            assert any(part in text for part in match.split("|")), text
    with pytest.raises(BundleError, match="regular file"):
        open_bundle("/dev/zero")
    with pytest.raises(BundleError, match="cannot be opened"):
        open_bundle("a\0b")


def test_an_unreadable_bundle_is_refused(bundle_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.lsla"
    path.write_bytes(bundle_bytes)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        text = refusal(path)
    finally:
        if root:
            os.seteuid(0)
    assert "no permission" in text


def test_no_file_stays_open_after_a_refusal(bundle_bytes: bytes, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for data in (b"", bundle_bytes[:-1], with_manifest(bundle_bytes, b"{}")):
        refusal(tmp_path / "x.lsla", data)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
