"""Builds of the plugin library shared by the tests: made once a session, from a fake index."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from plugin_index import write_fake_index

from plugins import library

HEADERS = dict(library.find_tensorrt_includes())
OLDEST = next(iter(HEADERS.values()), None)
NEWEST = next(reversed(HEADERS.values()), None)

compiler = pytest.mark.compiler
headers = pytest.mark.headers
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None or shutil.which("cmake") is None, reason="no C++ compiler or no CMake"
)
needs_headers = pytest.mark.skipif(
    not HEADERS, reason="no TensorRT headers (libnvinfer-headers-dev, or /opt/TensorRT-*)"
)
needs_cross_compiler = pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("qemu-aarch64") is None,
    reason="no g++-aarch64-linux-gnu or no qemu-user",
)


@functools.cache
def _folder() -> Path:
    # For the whole process: several test files share a build, and pytest's own folders come with a fixture only.
    folder = Path(tempfile.mkdtemp(prefix="edge-lsla-native-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _no_driver() -> Path:
    """Return a folder whose libcuda.so.1 cannot be loaded; the loader stops there instead of looking further."""
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    (folder / "libcuda.so.1").write_text("not a library")
    return folder


@functools.cache
def fake_index() -> Path:
    return write_fake_index(_folder() / "index")


@functools.cache
def build(name: str, tensorrt_include: Path, **options: bool | Path) -> Path:
    """Return the library of a build with warnings as errors; a second request for the same one costs nothing."""
    return library.build_library(
        fake_index(),
        _folder() / name,
        tensorrt_include=tensorrt_include,
        warnings_as_errors=True,
        **options,  # type: ignore[arg-type]
    )


def sanitized(version: str) -> Path:
    return build(f"sanitized-{version}", HEADERS[version], sanitize=True, harness=HEADERS[version] in (OLDEST, NEWEST))


def harness_for(version: str) -> Path:
    """Return the library beside the harness that drives this version's: its own, or for those between, the oldest."""
    return sanitized(version if HEADERS[version] in (OLDEST, NEWEST) else next(iter(HEADERS)))


def run_harness(
    harness_of: Path, *arguments: str | Path, fake_driver: bool = False, before: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the harness that was built beside a library, with the fake driver or, even on a GPU machine, with none."""
    folder = harness_of.parent
    driver = str(folder / library.FAKE_DRIVER_DIR if fake_driver else _no_driver())
    # Into files: checks hold standard error back while they read the plugin's messages, and a report would be lost.
    reports = Path(tempfile.mkdtemp(dir=_folder())) / "report"
    variables = {**os.environ, "ASAN_OPTIONS": f"log_path={reports}", "UBSAN_OPTIONS": f"log_path={reports}", **env}
    if before:  # under an emulator the variable is for the emulated program, not for the emulator
        before = (*before, "-E", f"LD_LIBRARY_PATH={driver}")
    else:
        variables["LD_LIBRARY_PATH"] = driver
    command = [*before, str(folder / library.HARNESS), *(str(argument) for argument in arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    done.stderr += "".join(path.read_text(errors="replace") for path in sorted(reports.parent.iterdir()))
    return done
