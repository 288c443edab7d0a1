"""What this machine has for edge-lsla, checked one by one, each with a remedy."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SMALLEST_FREE_MB = 500


@dataclass(frozen=True)
class Check:
    """One thing that was looked for.

    Attributes:
        name: what.
        needed: whether the CPU default cannot work without it.
        found: whether it is there.
        detail: a version or a place, or what is wrong.
        remedy: what to do where it is absent.
    """

    name: str
    needed: bool
    found: bool
    detail: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return asdict(self)


def examine() -> tuple[Check, ...]:
    """Run every check; none of them raises."""
    checks = [
        Check("Python", True, sys.version_info >= (3, 10), platform.python_version(), "use Python 3.10 or newer"),
        _package("numpy", "NumPy", True, "pip install numpy"),
        _package("PIL", "Pillow", True, "pip install pillow"),
        _package("onnxruntime", "ONNX Runtime (backend onnxruntime)", True, "pip install onnxruntime"),
        _cpu(),
        _disk(),
        _package("av", "PyAV (videos, streams, cameras)", False, "pip install av opencv-python"),
        _package("cv2", "OpenCV (preview window)", False, "pip install av opencv-python"),
        _display(),
        _cameras(),
        _package("torch", "PyTorch (checkpoints, training)", False, "in a checkout: make demo sets it up"),
        _package("onnx_graphsurgeon", "onnx-graphsurgeon (fuse)", False, "in a checkout: make demo sets it up"),
        _gpu(),
    ]
    return tuple(checks)


def _package(module: str, name: str, needed: bool, remedy: str) -> Check:
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a broken native library may raise anything, and a doctor must not fall ill
        return Check(name, needed, False, str(error).splitlines()[0] if str(error) else "cannot be imported", remedy)
    return Check(name, needed, True, str(getattr(imported, "__version__", "found")))


def _cpu() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags = _read("/proc/cpuinfo")
    fast = [name for name in ("avx512_vnni", "avx_vnni", "asimddp", "i8mm") if name in flags.split()]
    detail = f"{cores} cores, {platform.machine()}, INT8 instructions: {', '.join(fast) or 'none known'}"
    return Check("CPU", True, True, detail)


def _disk() -> Check:
    folder = next(p for p in (Path.cwd(), *Path.cwd().parents) if p.exists())
    free = shutil.disk_usage(folder).free // 2**20
    remedy = f"free at least {SMALLEST_FREE_MB} MB"
    return Check("Free disk space", True, free >= SMALLEST_FREE_MB, f"{free:,} MB in the working folder", remedy)


def _display() -> Check:
    shown = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY") or ""
    remedy = "without one `infer camera` prints a line a second; `--save` keeps a video"
    return Check("Display", False, bool(shown), shown or "none", remedy)


def _cameras() -> Check:
    found = sorted(str(p) for p in Path("/dev").glob("video*"))
    remedy = "plug one in, or use a URL, a file or `synthetic`"
    return Check("Cameras (V4L2)", False, bool(found), ", ".join(found) or "none", remedy)


def _gpu() -> Check:
    tegra = _read("/etc/nv_tegra_release").splitlines()
    if tegra:
        return Check("NVIDIA GPU", False, True, f"Jetson, {tegra[0].strip('# ')}")
    driver = _read("/proc/driver/nvidia/version").splitlines()
    remedy = "the CPU default needs none"
    return Check("NVIDIA GPU", False, bool(driver), driver[0] if driver else "no driver", remedy)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
