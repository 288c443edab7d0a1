"""What this device is, as far as it decides which engines run here: read from files, metadata and the CUDA driver.

Nothing heavy is imported, and the driver is asked in a process of its own: a broken one may crash or never answer.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import platform
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ != "__main__":  # `_ask_driver` runs this file by itself, where there is no edge_lsla
    from edge_lsla.errors import InputError
    from edge_lsla.plugin_library import PluginLibrary, find_plugin, read_plugin

DRIVER_SECONDS = 30.0  # a driver of eight GPUs without persistence takes about ten

_JETPACK = {"36.3.0": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "38.2.0": "7.0", "38.4.0": "7.1"}
_JETPACK_MAJOR = {"35": "5", "36": "6", "38": "7"}
_RUNTIMES = {
    "tensorrt": r"tensorrt(_cu\d+)?(_bindings)?",
    "tensorrt_rtx": r"tensorrt_rtx(_cu\d+)?(_bindings)?",
    "onnxruntime": r"onnxruntime(_(gpu|openvino|directml|training|qnn|silicon))?",
}


@dataclass(frozen=True)
class Device:
    """This device; what is absent or cannot be read is None.

    Attributes:
        machine: processor: "x86_64", "aarch64", …
        bits: of this Python's addresses: 64, or 32.
        gpu: name of the first GPU.
        capability: its compute capability, 87 for 8.7.
        driver: version of NVIDIA's driver, such as "540.4.0".
        cuda: newest CUDA that the driver knows, such as "12.6".
        l4t: Jetson Linux, such as "36.4.3"; None: not a Jetson.
        jetpack: the JetPack of that release, such as "6.2", or only its first number.
        memory_total, memory_available: of the processor, bytes.
        memory_shared: whether the GPU uses that memory too.
        gpu_memory_total, gpu_memory_available: of the GPU, bytes; where it is shared, the processor's.
        tensorrt, tensorrt_rtx, onnxruntime: versions installed for this Python.
        plugin: the plugin library that would be loaded.
        notices: what was found broken, a sentence each.
    """

    machine: str
    bits: int = 64
    gpu: str | None = None
    capability: int | None = None
    driver: str | None = None
    cuda: str | None = None
    l4t: str | None = None
    jetpack: str | None = None
    memory_total: int | None = None
    memory_available: int | None = None
    memory_shared: bool | None = None
    gpu_memory_total: int | None = None
    gpu_memory_available: int | None = None
    tensorrt: str | None = None
    tensorrt_rtx: str | None = None
    onnxruntime: str | None = None
    plugin: PluginLibrary | None = None
    notices: tuple[str, ...] = ()

    @property
    def target(self) -> str | None:
        """Return the GPU's target, such as "sm87"."""
        return None if self.capability is None else f"sm{self.capability}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        values = dataclasses.asdict(self)
        if self.plugin is not None:
            values["plugin"] |= {"path": str(self.plugin.path), "architectures": list(self.plugin.architectures)}
        return values | {"target": self.target, "notices": list(self.notices)}


def describe_device(
    *,
    root: Path = Path("/"),
    libcuda: str = "libcuda.so.1",
    libnvml: str = "libnvidia-ml.so.1",
    packages: Sequence[str] | None = None,
    plugin: Path | None = None,
) -> Device:
    """Describe this device; nothing is raised for what is absent or broken.

    Args:
        root: where `proc`, `sys` and `etc` lie.
        libcuda, libnvml: NVIDIA's driver libraries, names or paths.
        packages: folders in which Python packages are looked for; None: `sys.path`.
        plugin: the plugin library; None: the one that `find_plugin` finds.
    """
    notices: list[str] = []
    packages = sys.path if packages is None else packages
    asked = _ask_driver(libcuda, libnvml, notices)
    memory = {
        key: int(kb) * 1024 for key, kb in re.findall(r"(?m)^(\w+):\s+(\d{1,15}) kB$", _text(root / "proc/meminfo"))
    }
    release = re.search(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", _text(root / "etc/nv_tegra_release"))
    l4t = f"{release[1]}.{release[2]}" if release else None
    kernel = re.search(r"Kernel Module\s.*?(\d+(?:\.\d+)+)", _text(root / "proc/driver/nvidia/version"))
    module = re.fullmatch(r"\d+(\.\d+)+", _text(root / "sys/module/nvidia/version").strip())
    shared = asked.get("integrated", True if l4t else None)
    own = {"gpu_memory_total": asked.get("memory_total"), "gpu_memory_available": asked.get("memory_available")}
    if shared:
        own = {"gpu_memory_total": memory.get("MemTotal"), "gpu_memory_available": memory.get("MemAvailable")}
    return Device(
        machine=platform.machine(),
        bits=struct.calcsize("P") * 8,
        gpu=asked.get("gpu"),
        capability=asked.get("capability"),
        driver=kernel[1] if kernel else module[0] if module else asked.get("driver"),
        cuda=asked.get("cuda"),
        l4t=l4t,
        jetpack=_JETPACK.get(l4t or "", _JETPACK_MAJOR.get((l4t or "").partition(".")[0])),
        memory_total=memory.get("MemTotal"),
        memory_available=memory.get("MemAvailable"),
        memory_shared=shared,
        **own,
        tensorrt=_installed("tensorrt", packages),
        tensorrt_rtx=_installed("tensorrt_rtx", packages),
        onnxruntime=_installed("onnxruntime", packages),
        plugin=_plugin(plugin, notices),
        notices=tuple(notices),
    )


def _plugin(path: Path | None, notices: list[str]) -> PluginLibrary | None:
    path = find_plugin() if path is None else path
    try:
        return None if path is None else read_plugin(path)
    except InputError as error:
        notices.append(str(error))
        return None


def _installed(module: str, folders: Sequence[str]) -> str | None:
    """Return the version of a module without importing it: from its metadata's name, or its `__version__` line."""
    # Wheels name the folder tensorrt_rtx_cu13-1.7.1.116.dist-info, Debian also tensorrt-10.3.0-py3.10.egg-info.
    pattern = re.compile(rf"(?:{_RUNTIMES[module]})-(?P<version>\d[^-]*)(-py[\d.]+)?\.(dist|egg)-info")
    for folder in folders:
        try:
            names = sorted(os.listdir(folder or "."))  # noqa: PTH208  sys.path holds text, and "" for here
        except OSError:
            continue
        if module not in names:
            continue
        for name in names:
            if found := pattern.fullmatch(name):
                return found["version"]
        line = re.search(r"""(?m)^__version__ = ["'](\d[\w.+]*)["']""", _text(Path(folder) / module / "__init__.py"))
        return line[1] if line else None
    return None


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(2**20)
    except OSError:
        return ""


def _ask_driver(libcuda: str, libnvml: str, notices: list[str]) -> dict[str, Any]:
    try:
        # By path and isolated, so that nothing in the working folder is imported.
        command = [sys.executable, "-I", "-S", __file__, libcuda, libnvml]
        done = subprocess.run(
            command, capture_output=True, timeout=DRIVER_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        notices.append(f"the CUDA driver did not answer within {DRIVER_SECONDS:.0f} s: {libcuda}; restart the device")
        return {}
    except (OSError, ValueError):
        answer = None
    if not isinstance(answer, dict):
        notices.append(f"the CUDA driver crashes when it is asked: {libcuda}; install NVIDIA's driver again")
        return {}
    if problem := answer.pop("problem", None):
        notices.append(f"{problem}: {libcuda}; restart the device, or install NVIDIA's driver again")
    return answer


def _driver_answers(libcuda: str, libnvml: str) -> dict[str, Any]:
    """Ask the CUDA driver, without a context: making one takes memory and time."""
    try:
        cuda = ctypes.CDLL(libcuda)
    except OSError:
        return {}
    number, device, name, address = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256), b""
    found: dict[str, Any] = {}
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        found["cuda"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if error := cuda.cuInit(0):
        # 100: there is a driver and no GPU, which is nothing broken.
        return found if error == 100 else found | {"problem": f"the CUDA driver answers with error {error}"}
    if cuda.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return found
    if cuda.cuDeviceGetName(name, 256, device) == 0:
        found["gpu"] = name.value.decode("utf-8", "replace")

    def attribute(which: int) -> int | None:
        return number.value if cuda.cuDeviceGetAttribute(ctypes.byref(number), which, device) == 0 else None

    major, minor, integrated = attribute(75), attribute(76), attribute(18)  # cuda.h, CUdevice_attribute
    if major is not None and minor is not None:
        found["capability"] = major * 10 + minor
    if integrated is not None:
        found["integrated"] = bool(integrated)
    size, bus = ctypes.c_size_t(), ctypes.create_string_buffer(64)
    if cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device) == 0:
        found["memory_total"] = size.value
    if cuda.cuDeviceGetPCIBusId(bus, 64, device) == 0:
        address = bus.value  # CUDA and NVML number GPUs differently
    return found | _nvml_answers(libnvml, address)


def _nvml_answers(libnvml: str, address: bytes) -> dict[str, Any]:
    """Ask the management library for what needs a context elsewhere; a Jetson's knows less."""
    try:
        nvml = ctypes.CDLL(libnvml)
        if nvml.nvmlInit_v2() != 0:
            return {}
        found: dict[str, Any] = {}
        text, handle, sizes = ctypes.create_string_buffer(96), ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()
        if nvml.nvmlSystemGetDriverVersion(text, 96) == 0:
            found["driver"] = text.value.decode("ascii", "replace")
        known = nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle)) == 0
        if known and nvml.nvmlDeviceGetMemoryInfo(handle, sizes) == 0:
            found["memory_available"] = sizes[1]  # total, free, used
    except (OSError, AttributeError):  # AttributeError: a library that lacks a function
        return {}
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_driver_answers(sys.argv[1], sys.argv[2])))
