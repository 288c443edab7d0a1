"""`make gpu-check`: every kernel of this GPU's architecture against float64, and its times beside PyTorch's.

Runs from the checkout with torch and triton. Kernels are taken from the build folder, or compiled here. The plugin's
own enqueue is checked where the library can be built, or is given with its harness. Prints tables, and keeps a JSON
file up to date after each row; exit code 1 when anything was wrong, and what could not be run is said.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from edge_lsla.errors import EdgeLslaError, UsageError
from plugins import index as kernel_index
from plugins.build import BuildSettings, build_kernels
from plugins.gpu import accuracy, times
from plugins.gpu.driver import Kernel
from plugins.gpu.timing import Ceilings, measure_ceilings
from plugins.index import Entry, Index
from plugins.library import HARNESS, build_library
from plugins.variants import Variant, parse, shipped

BATCHES = (1, 8, 32, 128)
BUILT_HERE = Path("build/gpu-check")
OTHERS = ("unfused", "sdpa", "eager", "compile")  # the costliest last


class Record:
    """The results, on disk after every change: a run may be cut short."""

    def __init__(self, path: Path, machine: dict[str, Any]) -> None:
        self.path = path
        self.values: dict[str, Any] = {"machine": machine, "failures": []}
        path.parent.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, value: Any) -> None:
        """Set a field."""
        self.values[name] = value
        self.write()

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Append a row to a list; one that is not ok is a failure."""
        self.values.setdefault(name, []).append(row)
        if row.get("ok") is False:
            self.values["failures"].append(f"{name}: {row}")
        self.write()

    def write(self) -> None:
        """Write the file."""
        self.path.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Check and time; returns the exit code."""
    options = _options()
    if not torch.cuda.is_available():
        print("gpu-check: PyTorch sees no CUDA GPU here; nothing was checked", file=sys.stderr)
        return 3
    try:
        return _check(options)
    except EdgeLslaError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return error.exit_code


def _check(options: argparse.Namespace) -> int:
    started = time.monotonic()
    properties = torch.cuda.get_device_properties(0)
    arch = properties.major * 10 + properties.minor
    machine = {
        "device": properties.name,
        "compute_capability": arch,
        "processors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seed": options.seed,
    }
    print(json.dumps(machine))
    name = f"gpu_check_{properties.name.lower().replace(' ', '_')}_{machine['date']}.json"
    record = Record(options.output / name, machine)
    variants = tuple(map(parse, options.variants.split(","))) if options.variants else shipped()
    folder, index = _kernels(options.kernels, variants, arch)
    record.put("kernels", kernel_index.digest((folder / kernel_index.NAME).read_bytes()))
    cubins, fallback = (_load(folder, index, variants, arch, kind) for kind in ("cubin", "ptx"))
    kernels = {**fallback, **cubins}

    print("\nkernels through the driver: relative error against float64, the worst of several shapes")
    for images in (cubins, fallback):
        for row in accuracy.through_the_driver(images, options.seed):
            record.add("accuracy", row)
            print(
                f"  {row['variant']:32s} {row['image']:6s} {row['error']:.2e}  allowed {row['allowed']:.1e}{_mark(row)}"
            )
    _plugin(options, folder, kernels, record)
    print("\nceilings of this device, measured")
    ceilings = measure_ceilings(tuple(kernels))
    record.put("ceilings", vars(ceilings))
    _print_ceilings(ceilings)
    _time(kernels, ceilings, options, record, started + options.deadline)
    print(f"\n{len(record.values['failures'])} failures; {record.path}")
    for failure in record.values["failures"]:
        print(f"  FAILED {failure}")
    return 1 if record.values["failures"] else 0


def _plugin(options: argparse.Namespace, folder: Path, kernels: dict[Variant, Kernel], record: Record) -> None:
    print("\nthe plugin's enqueue, through the harness")
    try:
        if bool(options.library) != bool(options.harness):
            raise UsageError("a library needs its harness", "--library, --harness", "give both or neither")
        library, harness = options.library, options.harness
        if library is None:
            BUILT_HERE.mkdir(parents=True, exist_ok=True)
            library = build_library(folder, BUILT_HERE / "plugin", harness=True)
            harness = BUILT_HERE / "plugin" / HARNESS
    except EdgeLslaError as absent:
        print(f"  NOT RUN: {absent}")
        record.put("plugin", {"not_run": str(absent)})
        return
    for row in accuracy.through_the_plugin(kernels, library, harness, options.seed):
        record.add("plugin", row)
        figures = f"{row['error']:.2e} {row['enqueue_us']:9.2f} us" if "error" in row else row["why"]
        print(f"  {row['variant']:32s} {'CUDA graph' if row['graph'] else 'eager':10s} {figures}{_mark(row)}")


def _time(
    kernels: dict[Variant, Kernel], ceilings: Ceilings, options: argparse.Namespace, record: Record, deadline: float
) -> None:
    todo = times.points(kernels, tuple(map(int, options.batches.split(","))))
    print(f"\n{'variant':30s} {'C':>4s} {'batch':>5s} {'us':>9s} {'GB/s':>6s} {'of copy':>8s} {'of its ceiling':>20s}")
    rows = {}
    for point, row in zip(todo, times.ours(kernels, todo, ceilings, options.seed)):
        rows[point] = row
        record.add("times", row)
        print(f"{row['variant']:30s} {row['channels']:4d} {row['batch']:5d} {row['us']:9.2f} "
              f"{row['bytes_per_s'] / 1e9:6.0f} {row['of_copy']:8.0%} {row['of_ceiling']:9.0%} {row['bound']:>10s}",
              flush=True)  # fmt: skip
    print("\nPyTorch's ways, times slower than ours")
    done = 0
    for point, name, us in times.others(kernels, todo, OTHERS, options.seed, deadline):
        done += 1
        row = rows[point]
        row[f"{name}_us" if isinstance(us, float) else f"{name}_failed"] = us
        record.write()
        figure = f"{us / row['us']:6.1f}" if isinstance(us, float) else us
        print(f"{row['variant']:30s} {row['channels']:4d} {row['batch']:5d} {name:8s} {figure}", flush=True)
    if time.monotonic() > deadline:
        print(f"  the deadline ended this after {done} figures; --deadline SECONDS gives more time")


def _print_ceilings(ceilings: Ceilings) -> None:
    rates = ", ".join(f"{kind} {rate / 1e12:.1f} T/s" for kind, rate in ceilings.products.items())
    print(f"  copy {ceilings.bandwidth / 1e9:.0f} GB/s, exp2 {ceilings.exponentials / 1e12:.2f} T/s")
    print(f"  multiply-adds: {rates}")


def _mark(row: dict[str, Any]) -> str:
    return "" if row["ok"] else "  FAILED"


def _kernels(given: Path, variants: tuple[Variant, ...], arch: int) -> tuple[Path, Index]:
    """Return a folder with kernels for this GPU: the one given if it has them, else compiled here."""
    wanted = {variant.name for variant in variants}
    try:
        index = kernel_index.read(given)
        if wanted <= {entry.name for entry in index.entries if (entry.arch, entry.kind) == (arch, "cubin")}:
            return given, index
        why = f"{given} lacks some for sm_{arch}"
    except EdgeLslaError as error:
        why = str(error)
    print(f"compiling the kernels here: {why}")
    built = build_kernels(BuildSettings(variants, (arch,), jobs=8), BUILT_HERE, lambda *_: None, print)
    return built.folder, built.index


def _load(folder: Path, index: Index, variants: tuple[Variant, ...], arch: int, kind: str) -> dict[Variant, Kernel]:
    """Load the images of a kind: cubins of this architecture, or PTX, which the driver compiles."""
    entries: dict[str, Entry] = {
        entry.name: entry for entry in index.entries if entry.kind == kind and (kind == "ptx" or entry.arch == arch)
    }
    found = [(variant, entries[variant.name]) for variant in variants if variant.name in entries]
    return {variant: Kernel(entry, (folder / entry.file).read_bytes()) for variant, entry in found}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m plugins.gpu.check", description=__doc__)
    parser.add_argument("--kernels", type=Path, default=Path("build/plugin/kernels"), help="compiled kernels")
    parser.add_argument("--library", type=Path, help="the plugin library, where it cannot be built here")
    parser.add_argument("--harness", type=Path, help="the harness of the same build")
    parser.add_argument("--variants", default="", help="names, with commas; default: the shipped ones")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--deadline", type=float, default=480.0, help="seconds after which no competitor is timed")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31, help="of all data; default: the clock")
    parser.add_argument("--output", type=Path, default=Path("output/gpu-check"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
