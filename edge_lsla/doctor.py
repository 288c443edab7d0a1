"""What this machine has for edge-lsla, checked one by one, each with a remedy.

Nothing of it is loaded here: a library that is broken may crash whoever loads it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla.errors import EdgeLslaError

if TYPE_CHECKING:
    from edge_lsla.device import Device

IMPORT_SECONDS = 60.0
NO_NEED = "the CPU default needs none"
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
    ]
    return (*checks, *_gpu_checks(), *_trust_checks())


def _package(module: str, name: str, needed: bool, remedy: str) -> Check:
    loads, said = _load(f"import {module} as m; print(getattr(m, '__version__', 'found'))")
    return Check(name, needed, loads, said, remedy)


def _load(code: str) -> tuple[bool, str]:
    """Run a line of Python in a process of its own, as a broken library may crash it; return its last line or error."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    try:
        done = subprocess.run(
            command, cwd="/", capture_output=True, text=True, errors="replace", timeout=IMPORT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, _first_line(error)
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode == 0, said[-1][:300] if said else f"ends with {done.returncode}"


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


def _gpu_checks() -> list[Check]:
    from edge_lsla.device import Device, describe_device

    try:
        device = describe_device()
    except Exception as error:  # it raises nothing; a doctor must not fall ill all the same
        device = Device(platform.machine(), notices=(_first_line(error),))
    checks = [
        _guarded("NVIDIA driver", lambda: _driver(device)),
        _guarded("NVIDIA GPU", lambda: _gpu(device)),
        _runtime("tensorrt", "TensorRT (backend tensorrt)", device),
        _runtime("tensorrt-rtx", "TensorRT for RTX (backend tensorrt-rtx)", device),
        _guarded("Plugin library (backend tensorrt)", lambda: _plugin(device)),
        _installed("pycuda", ("pycuda.driver",), "pycuda (engines)", _pycuda_remedy(device)),
        _installed("cuda-python", ("cuda.bindings.driver", "cuda.cuda"), "cuda-python (CUDA graphs)",
                   "pip install cuda-python"),
    ]  # fmt: skip
    if device.l4t is not None:
        jetpack = f"{device.jetpack or 'unknown'}, Jetson Linux {device.l4t}"
        remedy = "sudo apt install nvidia-jetpack"
        checks.insert(2, Check("JetPack", False, device.jetpack is not None, jetpack, remedy))
    return checks


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    """Look for something; whatever goes wrong meanwhile is what was found."""
    try:
        return look()
    except EdgeLslaError as error:
        what = error.what if error.where is None else f"{error.what}: {error.where}"
        return Check(name, False, False, what, error.remedy or "")
    except Exception as error:
        return Check(name, False, False, _first_line(error), "report this with the output of `doctor --json`")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _driver(device: Device) -> Check:
    name, remedy = "NVIDIA driver", f"{NO_NEED}; on Ubuntu: sudo ubuntu-drivers install"
    if device.l4t is not None:
        remedy = f"{NO_NEED}; sudo apt install nvidia-jetpack"
    broken = next((notice for notice in device.notices if "CUDA driver" in notice), None)
    if broken is not None:
        what, _, rest = broken.partition("; ")
        return Check(name, False, False, what, rest or remedy)
    if device.driver is None and device.cuda is None:
        return Check(name, False, False, "none", remedy)
    cuda = f", CUDA {device.cuda}" if device.cuda else ""
    return Check(name, False, True, f"{device.driver or 'of unknown version'}{cuda}")


def _gpu(device: Device) -> Check:
    if device.gpu is None and device.target is None:
        remedy = f"{NO_NEED}; with a driver, `nvidia-smi` lists the GPUs"
        return Check("NVIDIA GPU", False, False, "none that CUDA can use", remedy)
    memory, kind = device.gpu_memory_total, "shared with the CPU" if device.memory_shared else "of its own"
    size = f", {memory / 2**20:,.0f} MB {kind}" if memory else ""
    return Check("NVIDIA GPU", False, True, f"{device.gpu or 'unknown'}, {device.target or 'unknown'}{size}")


def _runtime(backend: str, name: str, device: Device) -> Check:
    def look() -> Check:
        from edge_lsla.build.tensorrt.builder import describe_runtime

        facts = describe_runtime(backend)  # in a process of its own
        return Check(name, False, True, facts.version + (f", for {', '.join(facts.targets)}" if facts.targets else ""))

    found = _guarded(name, look)
    if not found.found and backend == "tensorrt" and device.l4t is None:
        return Check(name, False, False, found.detail, "pip install tensorrt")
    return found


def _plugin(device: Device) -> Check:
    name, remedy = "Plugin library (backend tensorrt)", "in a checkout: python cli.py plugin build"
    library = device.plugin
    if library is None:
        broken = next((notice for notice in device.notices if notice.startswith("plugin library")), "none")
        return Check(name, False, False, broken.partition("; ")[0], remedy)
    held = ", ".join(f"sm{one}" for one in library.architectures) or "no GPU"
    detail = f"{library.path}, kernels for {held}" + (f", PTX from sm{library.ptx}" if library.ptx else "")
    if library.machine != device.machine:
        return Check(name, False, False, f"{detail}; it is for {library.machine}", remedy)
    if device.capability is None:
        return Check(name, False, True, detail)
    if device.capability in library.architectures:
        return Check(name, False, True, f"{detail}; they fit this GPU, {device.target}")
    if library.ptx is not None and device.capability >= library.ptx:
        return Check(name, False, True, f"{detail}; the driver compiles them for this GPU, {device.target}, slower")
    return Check(
        name, False, False, f"{detail}; none fits this GPU, {device.target}", f"{remedy} --arch {device.capability}"
    )


def _pycuda_remedy(device: Device) -> str:
    if device.l4t is not None:
        return "sudo apt install cuda-toolkit, then pip install pycuda"
    return "pip install pycuda (it needs a C++ compiler and the CUDA toolkit)"


def _installed(package: str, modules: tuple[str, ...], name: str, remedy: str) -> Check:
    """Look for a package by its metadata, and let another process import one of its modules."""

    def look() -> Check:
        from importlib import metadata

        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            return Check(name, False, False, "not installed", remedy)
        tried = []
        for module in modules:
            loads, said = _load(f"import {module}")
            if loads:
                return Check(name, False, True, version)
            tried.append(said)
        return Check(name, False, False, f"{version}, does not load: {tried[0]}", remedy)

    return _guarded(name, look)


def _trust_checks() -> list[Check]:
    return [
        _installed("cryptography", ("cryptography.hazmat.primitives.asymmetric.ed25519",), "cryptography (signatures)",
                   "pip install cryptography"),
        _guarded("Trusted keys", _keys),
        _guarded("Engine cache", _cache),
    ]  # fmt: skip


def _keys() -> Check:
    from edge_lsla.bundle.trust import trusted_keys, trusted_keys_folder

    folder = trusted_keys_folder()
    count = len(trusted_keys(folder))
    remedy = f"only for bundles that others signed: mkdir -p {folder}, and put their .pub files there"
    return Check("Trusted keys", False, count > 0, f"{count or 'none'} in {folder}", remedy)


def _cache() -> Check:
    from edge_lsla.bundle.trust import check_folder, user_folder
    from edge_lsla.engine_cache import VARIABLE

    folder = user_folder(VARIABLE, "XDG_CACHE_HOME", ".cache", "engines").absolute()
    if not os.path.lexists(folder):
        return Check("Engine cache", False, True, f"empty; the first engine makes {folder}")
    check_folder(folder, "engine cache", VARIABLE, private=True)
    sizes = [path.lstat().st_size for path in folder.glob("*.engine")]
    free = shutil.disk_usage(folder).free // 2**20
    detail = f"{folder}, {len(sizes)} engines, {sum(sizes) / 1e6:,.1f} MB; {free:,} MB are free there"
    remedy = f"free some space, or set {VARIABLE} to a folder elsewhere"
    return Check("Engine cache", False, free >= SMALLEST_FREE_MB, detail, remedy)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
