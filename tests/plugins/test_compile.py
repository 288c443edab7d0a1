"""The worker of the ahead-of-time build, with the real compiler: no GPU is needed."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.compile import ENTRY, Request, signature
from plugins.index import Entry
from plugins.ptxas import Ptxas, choose, installed
from plugins.variants import Variant, parse

ROOT = Path(__file__).parents[2]
JETPACK6 = next((one for one in installed() if one.release == (12, 6)), None)
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or JETPACK6 is None,
    reason="needs triton and ptxas 12.6 (pip install triton==3.6.0 'nvidia-cuda-nvcc-cu12==12.6.*')",
)
SMALL = "attention-w4-d16-fp16"


def work(variant: str, arch: int, kind: str, folder: Path, ptxas: Ptxas, **environment: str) -> tuple[bytes, Entry]:
    folder.mkdir()
    request = Request(variant, arch, kind, str(ptxas.path), ptxas.version, str(folder))
    subprocess.run(
        [sys.executable, "-m", "plugins.compile", json.dumps(dataclasses.asdict(request))],
        cwd=ROOT, check=True, env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip
    entry = Entry.from_dict(json.loads((folder / ENTRY).read_bytes()), folder)
    return (folder / entry.file).read_bytes(), entry


def jetpack6() -> Ptxas:
    assert JETPACK6 is not None
    return JETPACK6


def test_a_cubin_for_orin_is_what_its_driver_takes(tmp_path: Path) -> None:
    data, entry = work(SMALL, 87, "cubin", tmp_path / "a", choose(87, [jetpack6()]))
    variant = parse(SMALL)
    assert (entry.spills, entry.tensor_cores, entry.ptxas[:5]) == (0, True, "12.6.")
    assert entry.threads == 32 * variant.tile.warps
    assert (entry.row_blocks, entry.max_per_program) == (variant.row_blocks, variant.max_per_program)
    assert 16 <= entry.registers <= 255
    assert (entry.bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert data[:4] == b"\x7fELF"
    assert data[8] == 7  # the ELF ABI of CUDA 12; CUDA 13's is 8
    assert data[18] == 190  # EM_CUDA
    assert data[48] == 87
    assert entry.symbol.encode() in data


def test_the_same_request_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    first, entry = work(SMALL, 87, "cubin", tmp_path / "a", jetpack6())
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    second, again = work(
        SMALL, 87, "cubin", tmp_path / "with a longer name", jetpack6(),
        # Switches that a developer of Triton may have set must not come into it.
        TMPDIR=str(elsewhere), TRITON_INTERPRET="1", DISABLE_PTXAS_OPT="1", PTXAS_OPTIONS="--opt-level 0",
        TRITON_DISABLE_LINE_INFO="0", PYTHONHASHSEED="7",
    )  # fmt: skip
    assert (first, entry) == (second, again)
    for name in (str(tmp_path), "temporary", "/tmp", str(ROOT), ".py"):
        assert name.encode() not in first


@pytest.mark.parametrize("name", [SMALL, "residual-w4-d16-c16-fp16", "quantised-w4-d16-int8"])
def test_ptx_is_for_any_newer_gpu_and_takes_the_arguments_in_order(name: str, tmp_path: Path) -> None:
    data, entry = work(name, 80, "ptx", tmp_path / "a", choose(80, [jetpack6()]))
    text = data.decode()
    assert "\n.version 8.5\n" in text  # CUDA 12.6's
    assert re.search(r"^\.target sm_80$", text, re.MULTILINE)
    assert "mma.sync" in text
    assert entry.tensor_cores
    variant = parse(name)
    given = re.findall(r"^\s*\.param (\.\w+)(?: \.ptr [^_]*)? \w+_param_\d+,?$", text, re.MULTILINE)
    kinds = {"fp32": ".f32", "i32": ".u32"}
    assert given == [kinds.get(kind, ".u64") for kind in (*signature(variant).values(), "*scratch", "*scratch")]
    assert text.count(".entry ") == 1
    assert f".entry {entry.symbol}(" in text


def test_fp32_keeps_its_digits_and_so_uses_no_tensor_cores(tmp_path: Path) -> None:
    _, entry = work("attention-w4-d16-fp32", 87, "cubin", tmp_path / "a", jetpack6())
    assert not entry.tensor_cores


def test_pointers_have_the_types_of_the_operator() -> None:
    quantised = signature(Variant("quantised", "int8", 7, 32))
    assert [quantised[name] for name in ("x", "query", "inner_bias", "x_scale", "y", "heads")] == [
        "*i8", "*i8", "*fp32", "*fp32", "*i8", "i32",
    ]  # fmt: skip
    residual = signature(Variant("residual", "fp16", 14, 32, 96))
    assert list(residual)[9:11] == ["y", "epsilon"]
    assert {kind for kind in residual.values() if kind.startswith("*")} == {"*fp16"}


def test_a_failure_is_one_line(tmp_path: Path) -> None:
    request = Request("attention-w4-d16-fp16", 87, "cubin", str(tmp_path / "absent"), "12.6.85", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "plugins.compile", json.dumps(dataclasses.asdict(request))],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    # Triton takes its own assembler, of another CUDA, where the named one is absent; that must not pass.
    assert done.returncode == 1
    assert done.stderr == f"error: the assembler does not run: {tmp_path / 'absent'}\n"
    assert not (tmp_path / ENTRY).exists()
