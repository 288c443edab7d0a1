"""What a build will need of memory, what is free, and what a process uses."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.errors import EdgeLslaError
from edge_lsla.tensorrt.flavours import RTX, TENSORRT

MIB = 2**20
# The worker's peak, less what grows with the weights. tensorrt-rtx: measured (1.7.1, x86-64, vit_lsla_t, one profile):
# 667 to 774 MB from 72 MB of float32 ONNX, 510 MB from 19 MB of INT8. tensorrt: an estimate (CUDA context, cuBLAS,
# kernels), not measured.
FIXED_BYTES = {RTX: 640 * MIB, TENSORRT: 1500 * MIB}
# The file, its weights in the network, a copy while they are packed: measured 2.9 times the file.
COPIES_OF_THE_MODEL = 3
PROFILE_BYTES = 64 * MIB  # for each further profile, measured 30 to 50 MB
# TensorRT's own default, all of the GPU's memory, is all memory where CPU and GPU share it.
DEFAULT_WORKSPACE_BYTES = 1024 * MIB
TIGHT = 0.8


def workspace_bytes(settings: BuildSettings) -> int | None:
    """Return the workspace limit of a build; None leaves TensorRT's own, for tensorrt-rtx, which times nothing."""
    if settings.workspace_bytes is not None:
        return settings.workspace_bytes
    return DEFAULT_WORKSPACE_BYTES if settings.backend == TENSORRT else None


def forecast_bytes(settings: BuildSettings, onnx_bytes: int) -> int:
    """Forecast the worker's peak resident size, before any workspace.

    FIXED_BYTES + 3 x the ONNX file + 64 MiB for each profile after the first.
    """
    profiles = PROFILE_BYTES * (len(settings.profiles) - 1)
    return FIXED_BYTES[settings.backend] + COPIES_OF_THE_MODEL * onnx_bytes + profiles


def free_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what a new process may take without swapping: MemAvailable, or what the container leaves of its limit."""
    free = next(
        int(line.split()[1]) * 1024
        for line in (proc / "meminfo").read_text(encoding="ascii").splitlines()
        if line.startswith("MemAvailable:")
    )
    with contextlib.suppress(OSError, ValueError):  # no cgroup version 2, or "max"
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        return max(0, min(free, limit - used))
    return free


def shares_memory(tree: Path = Path("/proc/device-tree/compatible")) -> bool:
    """Tell whether CPU and GPU share memory: a Jetson."""
    try:
        return b"nvidia,tegra" in tree.read_bytes()
    except OSError:
        return False


def check_memory(settings: BuildSettings, onnx_bytes: int, free: int, shared: bool) -> str | None:
    """Compare the forecast with what is free; return a warning in one sentence, or None.

    Args:
        onnx_bytes: size of the graph.
        free: see `free_bytes`.
        shared: see `shares_memory`; the workspace, GPU memory, then counts as well.

    Raises:
        EdgeLslaError: too little is free.
    """
    needed = forecast_bytes(settings, onnx_bytes)
    if needed > free:
        raise EdgeLslaError(
            f"too little memory for the build: about {needed // MIB} MB are needed",
            f"{free // MIB} MB are free",
            "close other programs, or build tensorrt-rtx engines on another machine"
            if settings.backend == RTX
            else "close other programs and the desktop, or add swap",
        )
    wanted = needed + (workspace_bytes(settings) or 0 if shared else 0)
    if wanted > TIGHT * free:
        return (
            f"memory will be tight: the build may take {wanted // MIB} MB of {free // MIB} MB that are free; "
            "close other programs" + (", or lower --workspace" if shared else "")
        )
    return None


def peak_bytes(pid: int | str) -> int:
    """Return a process's largest resident size until now, 0 once it has ended.

    Not `getrusage` or `wait4`: those start from the size of the process that forked it.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used until now, 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
