"""A fake kernel index: real structure and geometry, random bytes where kernels would be."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from plugins.variants import parse

# Enough to meet every case of selection: exact cubins, PTX alone, an architecture that is missing, C compiled in.
VARIANTS: list[dict[str, Any]] = [
    {"name": "attention-w14-d32-fp16", "kernel": "attention", "dtype": "fp16", "window": 14, "head_width": 32},
    {"name": "attention-w4-d16-fp32", "kernel": "attention", "dtype": "fp32", "window": 4, "head_width": 16},
    {"name": "quantised-w7-d32-int8", "kernel": "quantised", "dtype": "int8", "window": 7, "head_width": 32},
    {"name": "residual-w14-d32-c96-fp16", "kernel": "residual", "dtype": "fp16", "window": 14, "head_width": 32},
]


def entry(variant: dict[str, Any], arch: int, kind: str, content: bytes) -> dict[str, Any]:
    launched = parse(variant["name"])
    return {
        **variant,
        "channels": launched.channels,
        "arch": arch,
        "kind": kind,
        "symbol": f"lsla_{variant['kernel']}",
        "threads": 32 * launched.tile.warps,
        # The residual kernel asks for more than 48 KiB, so that setting the attribute is exercised.
        "shared_bytes": 65536 if variant["kernel"] == "residual" else 12288,
        "registers": 96,
        "spills": 0,
        "row_blocks": launched.row_blocks,
        "max_per_program": launched.max_per_program,
        "tensor_cores": True,
        "ptxas": "12.6.85",
        "file": f"{variant['name']}.sm{arch}.{kind}",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def write_fake_index(folder: Path) -> Path:
    """Write index.json and its files: cubins for 87 (all) and 90 (fp16 attention), PTX for 80 (all but int8)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(0)
    entries = []
    for variant in VARIANTS:
        images = [(87, "cubin")]
        if variant["name"] == "attention-w14-d32-fp16":
            images.append((90, "cubin"))
        if variant["dtype"] != "int8":
            images.append((80, "ptx"))
        for arch, kind in images:
            # Each image says what it is, so that the fake driver can tell the checks which one was loaded.
            content = f"\x7fELF {kind} {arch} {variant['name']}\0".encode() + generator.randbytes(32)
            if kind == "ptx":
                content = f"// {kind} {arch} {variant['name']}\n.version 8.4\n".encode()
            record = entry(variant, arch, kind, content)
            (folder / record["file"]).write_bytes(content)
            entries.append(record)
    entries.sort(key=lambda record: (record["name"], record["arch"], record["kind"]))
    index = {"format": 1, "operator_version": 1, "triton": "3.6.0", "entries": entries}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    return folder
