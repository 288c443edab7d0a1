"""A device described from real files and libraries: recorded system files, a compiled stand-in for the CUDA driver."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_lsla import device as module
from edge_lsla.device import Device, describe_device

ROOT = Path(__file__).parents[1]
RUNTIMES = Path(sys.prefix) / "runtimes"
NOWHERE = "libno-such-driver.so.1"

# Answers as CUDA's documentation says; what it answers comes from the compiler's command line.
DRIVER = """
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifndef INIT
#define INIT 0
#endif
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuInit(unsigned f) {
#ifdef CRASH
  abort();
#endif
#ifdef HANG
  sleep(60);
#endif
  return f ? 1 : INIT;
}
int cuDeviceGet(int *d, int n) { *d = 7; return n != 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, "Orin \\xff", n); return d != 7; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == 75 ? 8 : a == 76 ? 7 : a == 18 ? SHARED : -1;
  return d != 7;
}
int cuDeviceTotalMem_v2(size_t *s, int d) { *s = 7000000000ul; return d != 7; }
int cuDeviceGetPCIBusId(char *s, int n, int d) { strncpy(s, "0000:01:00.0", n); return d != 7; }
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "575.1.2", n); return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *s, void **h) { *h = h; return strcmp(s, "0000:01:00.0"); }
int nvmlDeviceGetMemoryInfo(void *h, unsigned long long *m) { m[0] = 7; m[1] = 5000000000ull; m[2] = 1; return !h; }
"""

compiled = [
    pytest.mark.compiler,
    pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler for a stand-in of the CUDA driver"),
]


def driver(folder: Path, *definitions: str) -> str:
    path = folder / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-w", "-DSHARED=0", *definitions, "-xc", "-", "-o", str(path)]
    subprocess.run(command, input=DRIVER, text=True, check=True)
    return str(path)


def root(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


JETSON = {
    "etc__nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: "
    "Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
    "proc__driver__nvidia__version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n",
    "proc__meminfo": "MemTotal:        7802268 kB\nMemFree:          123456 kB\nMemAvailable:    5123456 kB\n",
}


def test_a_machine_without_anything_is_described_all_the_same(tmp_path: Path) -> None:
    found = describe_device(root=tmp_path, libcuda=NOWHERE, libnvml=NOWHERE, packages=[], plugin=None)
    plain = Device(machine=platform.machine(), bits=64, plugin=found.plugin)
    assert found == plain
    assert found.target is None
    assert json.loads(json.dumps(found.to_dict()))["gpu"] is None


def test_this_machine_is_described_quickly_and_without_heavy_imports() -> None:
    started = time.monotonic()
    found = describe_device()
    assert time.monotonic() - started < module.DRIVER_SECONDS
    import onnxruntime

    assert found.onnxruntime == onnxruntime.__version__
    assert found.memory_total is not None
    assert found.memory_available is not None
    assert 0 < found.memory_available <= found.memory_total
    code = (
        "import sys; from edge_lsla.device import describe_device as d; d()\n"
        "print(sorted({n.partition('.')[0] for n in sys.modules} & {'torch','onnx','onnxruntime','tensorrt','numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_jetson_is_read_from_its_files(tmp_path: Path) -> None:
    found = describe_device(root=root(tmp_path, **JETSON), libcuda=NOWHERE, libnvml=NOWHERE)
    assert (found.l4t, found.jetpack, found.driver) == ("36.4.3", "6.2", "540.4.0")
    assert (found.memory_total, found.memory_available) == (7802268 * 1024, 5123456 * 1024)
    assert found.memory_shared
    assert (found.gpu_memory_total, found.gpu_memory_available) == (found.memory_total, found.memory_available)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("# R38 (release), REVISION: 2.0, GCID: 1", ("38.2.0", "7.0")),
        ("# R36 (release), REVISION: 9.9, GCID: 1", ("36.9.9", "6")),
        ("# R99 (release), REVISION: 1.0, GCID: 1", ("99.1.0", None)),
        ("# R36", (None, None)),
        ("\x00" * 5000, (None, None)),
        ("", (None, None)),
    ],
)
def test_releases_of_jetson_linux(tmp_path: Path, release: str, expected: tuple[str | None, str | None]) -> None:
    found = describe_device(root=root(tmp_path, etc__nv_tegra_release=release), libcuda=NOWHERE, libnvml=NOWHERE)
    assert (found.l4t, found.jetpack) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {
                "proc__driver__nvidia__version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n"
                "GCC version:  gcc version 12.2.0\n"
            },
            "550.54.15",
        ),
        ({"sys__module__nvidia__version": "580.65.06\n"}, "580.65.06"),
        ({"sys__module__nvidia__version": "N/A\n"}, None),
        ({"proc__driver__nvidia__version": "\udcff garbage".encode("utf-8", "replace").decode()}, None),
    ],
)
def test_versions_of_the_driver(tmp_path: Path, files: dict[str, str], expected: str | None) -> None:
    assert describe_device(root=root(tmp_path, **files), libcuda=NOWHERE, libnvml=NOWHERE).driver == expected


class TestDriver:
    pytestmark = compiled

    def test_a_gpu_with_its_own_memory(self, tmp_path: Path) -> None:
        library = driver(tmp_path)
        found = describe_device(root=tmp_path, libcuda=library, libnvml=library)
        assert (found.gpu, found.capability, found.target, found.cuda) == ("Orin \ufffd", 87, "sm87", "12.6")
        assert (found.memory_shared, found.gpu_memory_total, found.gpu_memory_available) == (
            False,
            7 * 10**9,
            5 * 10**9,
        )
        assert (found.driver, found.notices) == ("575.1.2", ())
        assert describe_device(root=tmp_path, libcuda=library, libnvml=NOWHERE).gpu_memory_available is None

    def test_a_gpu_that_shares_the_processors_memory(self, tmp_path: Path) -> None:
        library = driver(tmp_path, "-USHARED", "-DSHARED=1")
        files = {**JETSON}
        del files["etc__nv_tegra_release"]  # a container does not always have it
        found = describe_device(root=root(tmp_path, **files), libcuda=library, libnvml=library)
        assert (found.memory_shared, found.gpu_memory_total) == (True, 7802268 * 1024)
        assert found.driver == "540.4.0"

    def test_a_driver_without_a_gpu(self, tmp_path: Path) -> None:
        found = describe_device(root=tmp_path, libcuda=driver(tmp_path, "-DINIT=100"), libnvml=NOWHERE)
        assert (found.gpu, found.capability, found.cuda, found.notices) == (None, None, "12.6", ())

    def test_a_driver_that_answers_with_an_error(self, tmp_path: Path) -> None:
        library = driver(tmp_path, "-DINIT=803")
        found = describe_device(root=tmp_path, libcuda=library, libnvml=NOWHERE)
        assert found.gpu is None
        assert found.notices == (
            f"the CUDA driver answers with error 803: {library}; restart the device, or install NVIDIA's driver again",
        )

    def test_a_driver_that_crashes(self, tmp_path: Path) -> None:
        found = describe_device(root=tmp_path, libcuda=driver(tmp_path, "-DCRASH"), libnvml=NOWHERE)
        assert found.gpu is None
        assert "crashes when it is asked" in found.notices[0]

    def test_a_driver_that_never_answers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "DRIVER_SECONDS", 0.5)
        found = describe_device(root=tmp_path, libcuda=driver(tmp_path, "-DHANG"), libnvml=NOWHERE)
        assert found.gpu is None
        assert "did not answer" in found.notices[0]

    def test_a_library_that_is_no_driver(self, tmp_path: Path) -> None:
        path = tmp_path / "libcuda.so.1"
        subprocess.run(["cc", "-shared", "-xc", "/dev/null", "-o", str(path)], check=True)
        found = describe_device(root=tmp_path, libcuda=str(path), libnvml=str(path))
        assert found.gpu is None
        assert "crashes" in found.notices[0]


def test_a_file_that_is_no_library_is_no_driver(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(os.urandom(100))
    assert describe_device(root=tmp_path, libcuda=str(tmp_path / "libcuda.so.1"), libnvml=NOWHERE).notices == ()


@pytest.mark.skipif(not list(RUNTIMES.glob("tensorrt-*")), reason="no TensorRT runtime is installed (make runtimes)")
def test_real_packages_are_found_without_importing_them() -> None:
    for folder in RUNTIMES.glob("tensorrt-rtx-*"):
        found = describe_device(packages=[str(folder)], libcuda=NOWHERE)
        assert found.tensorrt_rtx == folder.name.rpartition("-")[2]
        assert (found.tensorrt, found.onnxruntime) == (None, None)
    for folder in RUNTIMES.glob("tensorrt-lean-*"):  # it only runs engines, and its modules have other names
        assert describe_device(packages=[str(folder)], libcuda=NOWHERE).tensorrt is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["tensorrt/__init__.py", "tensorrt-10.3.0.dist-info/METADATA"], "10.3.0"),
        (["tensorrt/__init__.py", "tensorrt-8.5.2.2-py3.8.egg-info"], "8.5.2.2"),
        (["tensorrt/__init__.py", "tensorrt_cu12-10.16.1.11.dist-info/METADATA"], "10.16.1.11"),
        (["tensorrt-10.3.0.dist-info/METADATA"], None),  # metadata that a removed package left
        (["tensorrt/__init__.py", "tensorrt_lean-10.3.0.dist-info/METADATA"], "1.2.3"),
    ],
)
def test_versions_of_packages_in_all_their_forms(tmp_path: Path, files: list[str], expected: str | None) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('__version__ = "1.2.3"\n')
    found = describe_device(root=tmp_path, libcuda=NOWHERE, packages=["/no/such", str(tmp_path)])
    assert found.tensorrt == expected


def test_a_plugin_library_that_cannot_be_used_is_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin.so").write_bytes(os.urandom(300))
    found = describe_device(root=tmp_path, libcuda=NOWHERE, plugin=tmp_path / "plugin.so")
    assert found.plugin is None
    assert found.notices[0].startswith("plugin library is damaged")
    monkeypatch.setenv("EDGE_LSLA_PLUGIN", "/no/such.so")
    assert "plugin library is absent" in describe_device(libcuda=NOWHERE).notices[0]
