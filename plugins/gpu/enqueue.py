"""A case through the plugin itself: the harness makes the plugin as an engine would, and enqueues it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from edge_lsla import operator
from edge_lsla.errors import EdgeLslaError
from plugins.gpu.cases import EPSILON, TYPES, Case
from plugins.variants import INPUTS

NAMES = {"attention": operator.NAME, "residual": operator.RESIDUAL_NAME, "quantised": operator.QUANTISED_NAME}
SCALARS = ("x_scale", "query_scale", "y_scale")
SECONDS = 120


def run(harness: Path, library: Path, case: Case, *, graph: bool, per_sample: int = 1) -> tuple[Tensor, float]:
    """Run a case on this machine's GPU in a process of its own.

    Args:
        harness, library: of the same build.
        case: its tensors may be anywhere.
        graph: capture the enqueues in a CUDA graph and replay it.
        per_sample: enqueues between two events.

    Returns:
        y on the CPU, and the median time of an enqueue in microseconds.

    Raises:
        EdgeLslaError: the harness failed, in its own words.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = case.inputs[0]
        (folder / "case.txt").write_text(describe(case, graph=graph, per_sample=per_sample), encoding="utf-8")
        for label, tensor in zip(INPUTS[case.variant.kernel], case.inputs):
            (folder / f"{label}.bin").write_bytes(tensor.cpu().contiguous().numpy().tobytes())
        command = [str(harness), "run", str(library), str(folder / "case.txt")]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EdgeLslaError("the harness could not be run", str(error)[:300]) from error
        if result.returncode:
            words = (result.stderr.strip() or result.stdout.strip()).splitlines()
            raise EdgeLslaError("the harness failed", "; ".join(words[-2:]) or f"exit code {result.returncode}")
        data = bytearray((folder / "y.bin").read_bytes())
        y = torch.frombuffer(data, dtype=output.dtype).reshape(output.shape)
        return y, json.loads(result.stdout.splitlines()[-1])["median_ms"] * 1000


def describe(case: Case, *, graph: bool, per_sample: int) -> str:
    """Write a case in the harness's language (plugins/cpp/harness/case_file.h)."""
    kinds = {kind: name for name, kind in TYPES.items()}
    lines = [
        f"operator {NAMES[case.variant.kernel]}",
        f"field num_heads int32 {case.shape.heads}",
        f"field window int32 {case.variant.window}",
    ]
    if case.variant.kernel == "residual":
        lines.append(f"field epsilon float32 {EPSILON!r}")
    for label, tensor in zip(INPUTS[case.variant.kernel], case.inputs):
        lines.append(f"input {label} {kinds[tensor.dtype]} {_dimensions(label, tensor)} {label}.bin")
    y = case.inputs[0]
    lines.append(f"output y {kinds[y.dtype]} {_dimensions('y', y)} y.bin")
    lines += [f"graph {'yes' if graph else 'no'}", f"per_sample {per_sample}"]
    return "\n".join(lines) + "\n"


def _dimensions(label: str, tensor: Tensor) -> str:
    return "scalar" if label in SCALARS else ",".join(map(str, tensor.shape))
