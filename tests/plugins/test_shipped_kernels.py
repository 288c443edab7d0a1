"""Every shipped kernel for every shipped architecture, compiled: complete, no spills, on tensor cores, small."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="the kernels need Triton")

from edge_lsla.errors import MissingComponentError  # noqa: E402
from plugins.build import BuildSettings, Built, build_kernels  # noqa: E402
from plugins.index import Entry  # noqa: E402
from plugins.ptxas import SHIPPED, choose  # noqa: E402
from plugins.variants import shipped  # noqa: E402

LARGEST = 10_000_000  # bytes of all kernels, which are most of the library
# What a tensor core executes: half precision, int8, and Hopper's warpgroup forms.
TENSOR_CORE_SASS = re.compile(r"\b(HMMA|IMMA|HGMMA|IGMMA)\.")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    try:
        for arch in SHIPPED:
            choose(arch)
    except MissingComponentError as error:
        pytest.skip(str(error))
    settings = BuildSettings(shipped(), SHIPPED, jobs=2)
    return build_kernels(settings, tmp_path_factory.mktemp("plugin"), lambda *_: None, lambda _: None)


def test_every_variant_is_there_for_every_architecture_and_as_ptx(built: Built) -> None:
    found = {(entry.name, entry.arch, entry.kind) for entry in built.index.entries}
    wanted = {(variant.name, arch, "cubin") for variant in shipped() for arch in SHIPPED}
    assert found == wanted | {(variant.name, 80, "ptx") for variant in shipped()}


def test_no_kernel_spills_registers(built: Built) -> None:
    assert {entry.file: entry.spills for entry in built.index.entries if entry.spills} == {}


def test_the_kernels_are_small(built: Built) -> None:
    assert sum(entry.bytes for entry in built.index.entries) <= LARGEST


def test_jetpack_6_can_load_what_is_for_orin(built: Built) -> None:
    """Its driver is of CUDA 12.6: cubins by that ptxas, PTX of a version that it reads."""
    assert {entry.ptxas.rpartition(".")[0] for entry in built.index.entries if entry.arch in (80, 87)} == {"12.6"}
    for entry in built.index.entries:
        if entry.kind == "ptx":
            assert re.search(r"^\.version 8\.5$", (built.folder / entry.file).read_text(), re.MULTILINE)


def test_ptx_of_half_and_int8_kernels_has_tensor_core_instructions(built: Built) -> None:
    for entry in built.index.entries:
        if entry.kind == "ptx":
            kind = {"fp16": "f32.f16.f16.f32", "int8": "s32.s8.s8.s32"}.get(entry.dtype, "no tensor cores")
            used = re.search(rf"mma\.sync\.aligned\.[\w.]*{re.escape(kind)}", (built.folder / entry.file).read_text())
            assert bool(used) == (entry.dtype != "fp32"), entry.file


@pytest.mark.parametrize("arch", [86, 87, 89, 90])  # what the disassembler that comes with Triton knows
def test_machine_code_of_half_and_int8_kernels_uses_tensor_cores(built: Built, arch: int) -> None:
    entries = [entry for entry in built.index.entries if entry.arch == arch and entry.kind == "cubin"]
    assert len(entries) == len(shipped())
    for entry in entries:
        assert bool(TENSOR_CORE_SASS.search(disassemble(built.folder, entry))) == (entry.dtype != "fp32"), entry.file


def disassemble(folder: Path, entry: Entry) -> str:
    nvdisasm = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    return subprocess.run([nvdisasm, "-c", folder / entry.file], capture_output=True, text=True, check=True).stdout
