"""`make gpu-check`: every kernel of this GPU's architecture against float64, and its times beside PyTorch's.

Runs from the checkout with torch and triton. Kernels are taken from the build folder, or compiled here. The plugin's
own enqueue is checked where the library can be built or is given. Prints tables and writes a JSON file; exit code 1
when anything was wrong, and what could not be run is said.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_lsla.errors import EdgeLslaError
from plugins import index as kernel_index
from plugins.build import BuildSettings, build_kernels
from plugins.gpu import enqueue
from plugins.gpu.cases import Case, Shape, compute, random_case
from plugins.gpu.competitors import competitors
from plugins.gpu.driver import Kernel
from plugins.gpu.timing import Ceilings, Work, measure_ceilings, median_us
from plugins.index import Entry
from plugins.library import HARNESS, build_library
from plugins.variants import Variant, parse, shipped

BOUNDS = {"fp16": 1e-3, "int8": 2e-2}  # relative L2 against float64
TIMES_TORCH = 4  # of the error of the same formula in float32 PyTorch
ODD_SHAPES = ((1, 1, 1), (3, 1, 2), (2, 3, 1), (33, 2, 2))  # batch, windows down, across
STAGES = {(96, 14): 4, (192, 14): 2, (384, 14): 1, (768, 7): 1}  # vit_lsla_t: (C, window) -> windows down and across
BATCHES = (1, 8, 32, 128)
BUFFERS_BYTES = 256 << 20  # inputs in rotation, so that no cache holds them all
MOST_BUFFERS = 16

Record = dict[str, Any]


def main() -> int:
    """Check and time; returns the exit code."""
    options = _options()
    if not torch.cuda.is_available():
        print("gpu-check: PyTorch sees no CUDA GPU here; nothing was checked", file=sys.stderr)
        return 3
    properties = torch.cuda.get_device_properties(0)
    arch = properties.major * 10 + properties.minor
    device: Record = {
        "device": properties.name,
        "compute_capability": arch,
        "processors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    print(json.dumps(device))
    variants = tuple(map(parse, options.variants.split(","))) if options.variants else shipped()
    folder = _kernels(options.kernels, options.output, variants, arch)
    kernels = dict(_load(folder, arch, variants))
    failures: list[str] = []
    accuracy = list(check_accuracy(kernels, failures))
    plugin = check_plugin(options, folder, kernels, failures)
    print("\nceilings of this device, measured")
    ceilings = measure_ceilings(tuple(kernels))
    print(f"  copy {ceilings.bandwidth / 1e9:.0f} GB/s, exp2 {ceilings.exponentials / 1e12:.2f} T/s, multiply-adds "
          + ", ".join(f"{kind} {rate / 1e12:.1f} T/s" for kind, rate in ceilings.products.items()))  # fmt: skip
    times = list(check_times(kernels, ceilings, tuple(map(int, options.batches.split(",")))))
    result = {
        "machine": device,
        "kernels": kernel_index.digest((folder / kernel_index.NAME).read_bytes()),
        "failures": failures,
        "accuracy": accuracy,
        "plugin": plugin,
        "ceilings": {
            "copy_bytes_per_s": ceilings.bandwidth,
            "multiply_adds_per_s": ceilings.products,
            "exp2_per_s": ceilings.exponentials,
        },
        "times": times,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"gpu_check_{properties.name.lower().replace(' ', '_')}_{device['date']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{len(failures)} failures; {path}")
    for failure in failures:
        print(f"  FAILED {failure}")
    return 1 if failures else 0


def check_accuracy(kernels: dict[Variant, Kernel], failures: list[str]) -> Iterator[Record]:
    """Launch each kernel on odd shapes with fresh data and a poisoned output; compare with float64."""
    print("\nkernels through the driver, relative error against float64 (largest of all shapes)")
    for variant, kernel in kernels.items():
        worst, allowed = 0.0, 0.0
        for number, (batch, down, across) in enumerate(ODD_SHAPES):
            case = random_case(variant, Shape(batch, down, across, _heads(variant, 5)), time.time_ns() % 2**31 + number,
                               device="cuda")  # fmt: skip
            y = case.output()
            kernel(case, y)
            torch.cuda.synchronize()
            error, bound = _error(case, y), _bound(case)
            if not error <= bound:  # so that NaN fails
                failures.append(f"{variant.name}: error {error:.2e}, {bound:.1e} is allowed, for {case.shape}")
            if error >= worst or error != error:
                worst, allowed = error, bound
        print(f"  {variant.name:34s} {worst:.2e}  (allowed {allowed:.1e})")
        yield {"variant": variant.name, "error": worst, "allowed": allowed}


def check_plugin(options: argparse.Namespace, folder: Path, kernels: dict[Variant, Kernel],
                 failures: list[str]) -> Record:  # fmt: skip
    """Run each variant through the plugin's enqueue, eagerly and from a CUDA graph."""
    print("\nthe plugin's enqueue, through the harness")
    try:
        library, harness = _plugin(options, folder)
    except EdgeLslaError as absent:
        print(f"  NOT RUN: {absent}")
        return {"not_run": str(absent)}
    rows = []
    for variant in kernels:
        case = random_case(variant, Shape(2, 1, 2, _heads(variant, 6)), 11, device="cuda")
        for graph in (False, True):
            label = f"{variant.name}, {'CUDA graph' if graph else 'eager'}"
            try:
                y, took = enqueue.run(harness, library, case, graph=graph, per_sample=20)
                error, bound = _error(case, y.cuda()), _bound(case)
            except EdgeLslaError as failure:
                failures.append(f"plugin {label}: {failure}")
                continue
            if not error <= bound:
                failures.append(f"plugin {label}: error {error:.2e}, {bound:.1e} is allowed")
            print(f"  {label:48s} {error:.2e}  {took:8.2f} us an enqueue")
            rows.append({"variant": variant.name, "graph": graph, "error": error, "enqueue_us": took})
    return {"library": library.name, "runs": rows}


def check_times(kernels: dict[Variant, Kernel], ceilings: Ceilings, batches: tuple[int, ...]) -> Iterator[Record]:
    """Time the stages of vit_lsla_t on each kernel that fits, beside PyTorch's ways to compute the same."""
    print(f"\n{'variant':30s} {'C':>4s} {'batch':>5s} {'us':>9s} {'GB/s':>6s} {'of copy':>8s} {'of ceiling':>16s} "
          f"{'eager':>7s} {'compile':>8s} {'sdpa':>6s} {'unfused':>8s}   (the last four: times slower)")  # fmt: skip
    known: dict[object, dict[str, float]] = {}
    for variant, kernel in kernels.items():
        for (channels, window), side in STAGES.items():
            if variant.window != window or variant.head_width != 32 or variant.channels not in (0, channels):
                continue
            for batch in batches:
                yield _time(variant, kernel, Shape(batch, side, side, channels // 32), ceilings, kernels, known)


def _time(
    variant: Variant,
    kernel: Kernel,
    shape: Shape,
    ceilings: Ceilings,
    kernels: dict[Variant, Kernel],
    known: dict[object, dict[str, float]],
) -> Record:
    size = shape.num_windows * variant.tokens * shape.heads * variant.head_width
    buffers = max(1, min(MOST_BUFFERS, BUFFERS_BYTES // (3 * 2 * size)))
    cases = [random_case(variant, shape, seed, device="cuda") for seed in range(buffers)]
    outputs = [case.output() for case in cases]

    def calls(run: Callable[[Case, Tensor], object]) -> list[Callable[[], object]]:
        return [lambda c=case, y=y: run(c, y) for case, y in zip(cases, outputs)]  # type: ignore[misc]

    us = median_us(calls(kernel))
    work = Work.of(cases[0])
    ceiling, bound = ceilings.time_us(cases[0])
    kind = "fp16" if variant.dtype == "int8" else variant.dtype  # what the others compute in
    key = (variant.kernel == "residual", kind, variant.window, shape)
    if key not in known:  # a compiled formula takes seconds
        known[key] = {name: median_us(calls(run)) for name, run in competitors(variant, cases, kernels).items()}
    others = known[key]
    row: Record = {
        "variant": variant.name, "channels": shape.heads * variant.head_width, "batch": shape.batch, "us": us,
        "bytes_per_s": work.bytes / us * 1e6, "of_copy": work.bytes / us * 1e6 / ceilings.bandwidth,
        "of_ceiling": ceiling / us, "bound": bound,
        **{f"{name}_us": other for name, other in others.items()},
    }  # fmt: skip
    ratio = [f"{others[name] / us:.1f}" if name in others else "-" for name in ("eager", "compile", "sdpa", "unfused")]
    print(f"{variant.name:30s} {row['channels']:4d} {shape.batch:5d} {us:9.2f} {row['bytes_per_s'] / 1e9:6.0f} "
          f"{row['of_copy']:8.0%} {ceiling / us:5.0%} {bound:>10s} {ratio[0]:>7s} {ratio[1]:>8s} {ratio[2]:>6s} "
          f"{ratio[3]:>8s}", flush=True)  # fmt: skip
    return row


def _error(case: Case, y: Tensor) -> float:
    answer = case.answer()
    return float((case.value(y) - answer).norm() / answer.norm())


def _bound(case: Case) -> float:
    if case.variant.dtype in BOUNDS:
        return BOUNDS[case.variant.dtype]
    answer = case.answer()
    return max(
        TIMES_TORCH * float((compute(case.variant, case.real, torch.float32) - answer).norm() / answer.norm()), 5e-7
    )


def _heads(variant: Variant, otherwise: int) -> int:
    return variant.channels // variant.head_width if variant.channels else otherwise


def _kernels(given: Path, output: Path, variants: tuple[Variant, ...], arch: int) -> Path:
    """Return a folder with kernels for this GPU: the one given if it has them, else compiled here."""
    try:
        index = kernel_index.read(given)
        have = {entry.name for entry in index.entries if entry.arch == arch}
        if have >= {variant.name for variant in variants}:
            return given
        print(f"{given} has no kernels for sm_{arch}: compiling them here")
    except EdgeLslaError as error:
        print(f"compiling the kernels here, because: {error}")
    settings = BuildSettings(variants, (arch,), jobs=8)
    return build_kernels(settings, output / "kernels-built-here", lambda *_: None, print).folder


def _load(folder: Path, arch: int, variants: tuple[Variant, ...]) -> Iterator[tuple[Variant, Kernel]]:
    entries: dict[str, Entry] = {e.name: e for e in kernel_index.read(folder).entries if e.arch == arch}
    for variant in variants:
        entry = entries[variant.name]
        yield variant, Kernel(entry, (folder / entry.file).read_bytes())


def _plugin(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    if options.library and options.harness:
        return options.library, options.harness
    build = options.output / "plugin-built-here"
    build.mkdir(parents=True, exist_ok=True)
    return build_library(folder, build, harness=True), build / HARNESS


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m plugins.gpu.check", description=__doc__)
    parser.add_argument("--kernels", type=Path, default=Path("build/plugin/kernels"), help="compiled kernels")
    parser.add_argument("--library", type=Path, help="the plugin library, where it cannot be built here")
    parser.add_argument("--harness", type=Path, help="the harness of the same build")
    parser.add_argument("--variants", default="", help="names, with commas; default: the shipped ones")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--output", type=Path, default=Path("output/gpu-check"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
