"""The worker of the ahead-of-time build: one kernel for one architecture, in a process of its own.

    python -m plugins.compile '{"variant": "attention-w7-d32-fp16", "arch": 87, "kind": "cubin",
                                "ptxas": "/…/ptxas", "version": "12.6.85", "folder": "/…"}'

It writes the compiled kernel and `entry.json`, its entry of the index, into `folder`; the entry comes last. A failure
ends with one line on standard error and exit code 1, an abort of the compiler with this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lsla.atomic import write_bytes
from edge_lsla.errors import EdgeLslaError
from plugins.index import WARP, Entry, file_name
from plugins.variants import INPUTS, NUMBERS, Variant, parse

ENTRY = "entry.json"
# A switch of the compiler that a developer has set must not find its way into a build that is to be reproducible.
SWITCHES = ("TRITON_", "LLVM_", "MLIR_", "NVPTX_", "PTXAS_", "DISABLE_PTXAS", "CUOBJDUMP", "NVDISASM")


@dataclass(frozen=True)
class Request:
    """What one worker compiles.

    Attributes:
        variant: its name.
        arch: compute capability, 87 for 8.7.
        kind: "cubin" or "ptx".
        ptxas: the assembler.
        version: of the assembler.
        folder: where the results go; it exists.
    """

    variant: str
    arch: int
    kind: str
    ptxas: str
    version: str
    folder: str


def pointer_types(variant: Variant) -> dict[str, str]:
    """Return the kernel's pointers in the order of its arguments: name to Triton's type of an element."""
    names = (*INPUTS[variant.kernel], "y")
    if variant.kernel == "quantised":
        return {name: "i8" if name in ("x", "query", "y") else "fp32" for name in names}
    return dict.fromkeys(names, variant.dtype)


def signature(variant: Variant) -> dict[str, str]:
    """Return what a launch passes, in order: name to Triton's type."""
    pointers = {name: f"*{element}" for name, element in pointer_types(variant).items()}
    epsilon = {"epsilon": "fp32"} if variant.kernel == "residual" else {}
    return {**pointers, **epsilon, **dict.fromkeys(NUMBERS, "i32")}


def compile_variant(request: Request) -> tuple[bytes, Entry]:
    """Compile; return the file's bytes and its entry.

    Raises:
        EdgeLslaError: the kernel is not what the plugin can launch.
    """
    _prepare(request)
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    variant = parse(request.variant)
    function = getattr(importlib.import_module(variant.module), variant.function)
    launched = signature(variant)
    types = {name: launched.get(name, "constexpr") for name in function.arg_names}
    # The library passes arguments by position, and what is compiled in comes after them.
    if list(types)[: len(launched)] != list(launched) or types.keys() != {*launched, *variant.constants}:
        raise EdgeLslaError("the kernel's arguments are not those of the operator", ", ".join(function.arg_names))
    tool = knobs.nvidia.ptxas_blackwell if request.arch >= 100 else knobs.nvidia.ptxas
    if Path(tool.path) != Path(request.ptxas):  # Triton falls back to its own without a word
        raise EdgeLslaError("the assembler does not run", request.ptxas)

    source = ASTSource(
        function,
        types,
        constexprs=dict(variant.constants),
        attrs={(i,): [["tt.divisibility", 16]] for i, kind in enumerate(launched.values()) if kind.startswith("*")},
    )
    options = {"num_warps": variant.tile.warps, "num_stages": variant.tile.stages}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        kernel: Any = triton.compile(source, target=GPUTarget("cuda", request.arch, WARP), options=options)
    for what in ("global_scratch_size", "profile_scratch_size"):
        if getattr(kernel.metadata, what, 0):  # the library passes null pointers for them
            raise EdgeLslaError(f"the kernel needs scratch memory ({what})", request.variant)

    ptx: str = kernel.asm["ptx"]
    data = kernel.asm["cubin"] if request.kind == "cubin" else ptx.encode()
    registers, spills = _resources(printed.getvalue())
    return data, Entry(
        name=variant.name,
        kernel=variant.kernel,
        dtype=variant.dtype,
        window=variant.window,
        head_width=variant.head_width,
        channels=variant.channels,
        arch=request.arch,
        kind=request.kind,
        symbol=kernel.metadata.name,
        threads=kernel.metadata.num_warps * WARP,
        shared_bytes=kernel.metadata.shared,
        registers=registers,
        spills=spills,
        row_blocks=variant.row_blocks,
        max_per_program=variant.max_per_program,
        tensor_cores=bool(re.search(r"\b(mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b", ptx)),
        ptxas=request.version,
        file=file_name(variant, request.arch, request.kind),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _prepare(request: Request) -> None:
    """Set Triton up, which reads its environment when it is imported."""
    for name in [name for name in os.environ if name.startswith(SWITCHES)]:
        del os.environ[name]
    os.environ["TRITON_CACHE_DIR"] = str(Path(request.folder) / "triton")
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
    os.environ["TRITON_DUMP_PTXAS_LOG"] = "1"
    os.environ["TRITON_PTXAS_PATH"] = os.environ["TRITON_PTXAS_BLACKWELL_PATH"] = request.ptxas
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort is reported; a core file would only fill the disk


def _resources(log: str) -> tuple[int, int]:
    """Return registers and bytes of spills, stores and loads together, from what `ptxas -v` says."""
    registers = re.search(r"Used (\d+) registers", log)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if registers is None or spills is None:
        raise EdgeLslaError("the assembler did not say how many registers it used", log.strip()[-200:])
    return int(registers.group(1)), int(spills.group(1)) + int(spills.group(2))


def _reason(error: Exception) -> str:
    """Put a compiler's error, often many pages, into one line."""
    text = str(error).strip()
    if type(error).__name__ == "PTXASError":  # code, log of ptxas, then a command that names temporary files
        head, _, log = text.partition("`ptxas` stderr:")
        said = log.partition("Repro command:")[0].strip().splitlines()
        return " ".join([*head.removeprefix("PTXAS error:").split(), *(said[-1:])])
    return f"{type(error).__name__}: {text.splitlines()[-1] if text else 'no message'}"


def main() -> int:
    """Compile what the first argument asks for; return the exit code."""
    request = Request(**json.loads(sys.argv[1]))
    try:
        data, entry = compile_variant(request)
    except EdgeLslaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # a compiler raises anything; the build names the variant and goes on
        print(f"error: {_reason(error)}", file=sys.stderr)
        return 1
    folder = Path(request.folder)
    write_bytes(folder / entry.file, data)
    write_bytes(folder / ENTRY, json.dumps(entry.to_dict()).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
