"""Small real bundles for the tests, and tools that damage them as an attacker could."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from edge_lsla.bundle import GoldenSet, NewArtifact, Passport, Tolerance, write_bundle
from edge_lsla.preprocessing import Preprocessing

CREATED = "2025-01-31T12:00:00Z"
LABELS = ("bee", "wasp", "Käfer 🐞")


def passport(**changes: Any) -> Passport:
    values: dict[str, Any] = {
        "name": "vit_lsla_demo",
        "created": CREATED,
        "edge_lsla": "0.1.0",
        "model": {"name": "vit_lsla_demo", "classes": 3, "widths": [32, 96], "mlp_ratio": 3.0, "inner_bias": True},
        "labels": LABELS,
        "preprocessing": Preprocessing(image_size=4, crop_fraction=0.875),
        "digests": {"checkpoint": "a" * 64, "onnx": "b" * 64},
        "precisions": {"int8": {"stem.0": "fp32", "stages.0.query": "int8"}},
        "fidelity": {"top1": 0.9375, "images": 32, "worst": {"label": "bee", "error": 1e-3}},
        "calibration": {"method": "entropy", "images": 64},
        "plugin": {"operator_version": "1", "cubin_index": "c" * 64},
    }
    return Passport(**{**values, **changes})


def artifacts() -> list[NewArtifact]:
    random = np.random.default_rng(7)
    return [
        NewArtifact(random.bytes(300), "onnxruntime", "fp32", versions={"onnxruntime": "1.20.0"}),
        NewArtifact(random.bytes(200), "onnxruntime", "int8"),
        NewArtifact(random.bytes(100), "tensorrt", "int8", "engine", {"gpu": "Orin"}, ("sm87",)),
    ]


def golden(**changes: Any) -> GoldenSet:
    random = np.random.default_rng(8)
    values: dict[str, Any] = {
        "pixels": random.integers(0, 256, (2, 4, 4, 3), np.uint8),
        "logits": {
            key: random.standard_normal((2, 3)).astype(np.float32)
            for key in (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("tensorrt", "int8"))
        },
        "tolerance": {"fp32": Tolerance(1e-4), "fp16": Tolerance(0.05), "int8": Tolerance(0.5)},
    }
    return GoldenSet(**{**values, **changes})


def write(path: Path) -> bytes:
    write_bundle(path, passport(), artifacts(), golden())
    return path.read_bytes()


def reseal(data: bytes) -> bytes:
    """Replace the last 64 bytes by the digest of what stands before them."""
    return data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()


def records(data: bytes) -> list[tuple[str, int, int, int, int]]:
    """Return (name, local header, first byte, end, central record) of each entry, read without the library."""
    count, _, position = struct.unpack_from("<HII", data, len(data) - 64 - 22 + 10)
    found = []
    for _ in range(count):
        size, _, name_size = struct.unpack_from("<IIH", data, position + 20)
        (start,) = struct.unpack_from("<I", data, position + 42)
        first = start + 30 + name_size
        name = data[position + 46 : position + 46 + name_size].decode()
        found.append((name, start, first, first + size, position))
        position += 46 + name_size
    return found


def fix_crcs(data: bytes) -> bytes:
    """Write the CRC of every entry anew, at both places, and reseal."""
    fixed = bytearray(data)
    for _, start, first, end, central in records(data):
        crc = struct.pack("<I", zlib.crc32(data[first:end]))
        fixed[start + 14 : start + 18] = fixed[central + 16 : central + 20] = crc
    return reseal(bytes(fixed))


def seal_zip(data: bytes) -> bytes:
    """Give a zip of any writer the comment that a bundle has."""
    end = data.rindex(b"PK\5\6")
    return reseal(data[:end] + data[end : end + 20] + struct.pack("<H", 64) + b"0" * 64)


def contents(data: bytes) -> dict[str, bytes]:
    return {name: data[first:end] for name, _, first, end, _ in records(data)}


def from_entries(entries: list[tuple[str, bytes]] | dict[str, bytes]) -> bytes:
    """Lay out any names, in any order and number, in the container's own header form."""
    body, directory = b"", b""
    items = list(entries.items()) if isinstance(entries, dict) else entries
    for name, data in items:
        raw = name.encode("latin-1")
        head = (10, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(raw), 0)
        attributes = (0, 0, 0, 0o100644 << 16, len(body))
        directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", 3 << 8 | 10, *head, *attributes) + raw
        body += struct.pack("<4s5H3I2H", b"PK\3\4", *head) + raw + data
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(items), len(items), len(directory), len(body), 64)
    return reseal(body + directory + end + b"0" * 64)
