"""Builds the plugin library with CMake, and finds the TensorRT headers that it is built against."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from edge_lsla.errors import EdgeLslaError, MissingComponentError
from plugins.embed import write_sources

SOURCE = Path(__file__).parent / "cpp"
TOOLCHAIN_AARCH64 = SOURCE / "aarch64-linux-gnu.cmake"
LIBRARY = "libedge_lsla_plugin.so"
REGISTER = "libedge_lsla_plugin_register.so"  # beside it, for programs that only dlopen a plugin
HARNESS = Path("harness") / "edge_lsla_harness"
FAKE_DRIVER_DIR = Path("harness") / "fake_driver"
_APT = "install it (apt install {})"


def build_library(
    index_dir: Path,
    build_dir: Path,
    *,
    tensorrt_include: Path | None = None,
    cuda_include: Path | None = None,
    toolchain: Path | None = None,
    sanitize: bool = False,
    record_fields: bool = False,
    warnings_as_errors: bool = False,
    harness: bool = False,
) -> Path:
    """Build libedge_lsla_plugin.so with the kernels of a folder in it.

    Args:
        index_dir: folder with index.json and the kernels.
        build_dir: CMake's folder; a second call builds only what changed. What it prints goes to `build.log` there.
        tensorrt_include: folder with NvInferRuntime.h; None lets CMake look in the usual places.
        cuda_include: folder with cuda_runtime_api.h; None lets CMake look.
        toolchain: CMake toolchain file for a cross build, such as `TOOLCHAIN_AARCH64`.
        sanitize: with AddressSanitizer and UndefinedBehaviorSanitizer.
        record_fields: a test build, whose creators record the fields they get.
        warnings_as_errors: refuse a library that compiles with warnings.
        harness: build the conformance harness too, at `build_dir / HARNESS`.

    Returns:
        The library's path.

    Raises:
        MissingComponentError: CMake, a compiler or headers are absent; the message says what to install.
        InputError, CompatibilityError: the kernels are not what the index says.
        EdgeLslaError: the compiler failed; the message names the log.
    """
    cmake = _require("cmake", "cmake")
    ninja = shutil.which("ninja")
    if ninja is None:
        _require("make", "make")
    if toolchain is None and "CXX" not in os.environ:
        _require("c++", "g++")
    generated = build_dir / "generated"
    write_sources(index_dir, generated)
    options = {
        "EDGE_LSLA_GENERATED_DIR": generated.resolve(),
        "EDGE_LSLA_SANITIZE": sanitize,
        "EDGE_LSLA_RECORD_FIELDS": record_fields,
        "EDGE_LSLA_WERROR": warnings_as_errors,
        "EDGE_LSLA_HARNESS": harness,
        "EDGE_LSLA_PRECOMPILE": harness,  # worth its time only with the harness's many files
        "TENSORRT_INCLUDE_DIR": tensorrt_include and tensorrt_include.resolve(),
        "CUDA_INCLUDE_DIR": cuda_include and cuda_include.resolve(),
        "CMAKE_TOOLCHAIN_FILE": toolchain and toolchain.resolve(),
    }
    configure = [cmake, "-S", str(SOURCE), "-B", str(build_dir), "-G", "Ninja" if ninja else "Unix Makefiles"]
    for name, value in options.items():
        if isinstance(value, bool):
            configure.append(f"-D{name}={'ON' if value else 'OFF'}")
        elif value is not None:
            configure.append(f"-D{name}={value}")
    log = build_dir / "build.log"
    log.write_text("", encoding="utf-8")
    output = _run(configure, log)
    if output is not None:
        raise _configure_error(output, log)
    if _run([cmake, "--build", str(build_dir), "--parallel", str(os.cpu_count() or 1)], log) is not None:
        raise EdgeLslaError("the plugin library does not compile", log, "read the compiler's messages there")
    return build_dir / LIBRARY


def find_tensorrt_includes() -> list[tuple[str, Path]]:
    """Return (version, folder) of each set of TensorRT headers on this machine, each version once, oldest first.

    The folder named by the environment variable TENSORRT_INCLUDE_DIR goes before the system's, those before unpacked
    archives.
    """
    named = os.environ.get("TENSORRT_INCLUDE_DIR")
    places = [Path(named)] if named else []
    places += [Path(f"/usr/include/{platform.machine()}-linux-gnu"), Path("/usr/include"), Path("/usr/local/include")]
    for root in (Path("/opt"), Path("/usr/local"), Path("/usr/src")):
        places += [folder / "include" for folder in sorted([*root.glob("TensorRT*"), *root.glob("tensorrt*")])]
    found: dict[str, Path] = {}
    for folder in places:
        version = _version(folder)
        if version is not None:
            found.setdefault(version, folder)
    return sorted(found.items(), key=lambda item: tuple(int(part) for part in item[0].split(".")))


def _version(folder: Path) -> str | None:
    """Read "10.3.0" from NvInferVersion.h; None where the folder holds no TensorRT headers."""
    try:
        text = (folder / "NvInferVersion.h").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if not (folder / "NvInferRuntime.h").exists():
        return None
    defined: dict[str, str] = dict(re.findall(r"^#define (\w+) (\w+)", text, re.MULTILINE))
    parts = []
    for part in ("MAJOR", "MINOR", "PATCH"):
        value = defined.get(f"NV_TENSORRT_{part}", "")
        value = defined.get(value, value)  # from 10.13 on: NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE
        if not value.isdecimal():
            return None
        parts.append(value)
    return ".".join(parts)


def _require(program: str, package: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise MissingComponentError("a program that builds the plugin is absent", program, _APT.format(package))
    return path


def _run(command: list[str], log: Path) -> str | None:
    """Run a command, append what it says to the log, and return that if it failed."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except OSError as error:
        raise EdgeLslaError("cannot run a program that builds the plugin", command[0], error.strerror) from error
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{done.stdout}")
    return done.stdout if done.returncode else None


def _configure_error(output: str, log: Path) -> EdgeLslaError:
    text = " ".join(output.split())  # CMake breaks messages into lines
    missing = re.search(r"Missing component: (.*?): (.*?); (.*?)(?= Call Stack| -- | CMake Error|$)", text)
    if missing:
        return MissingComponentError(missing[1], missing[2], missing[3])
    compiler = re.search(
        r"(?:CMAKE_CXX_COMPILER: |No (?=CMAKE_CXX_COMPILER))(\S+) (?:is not a full path|could be)", text
    )
    if compiler:
        name = compiler[1]
        package = "g++-aarch64-linux-gnu" if "aarch64" in name else "g++"
        return MissingComponentError("the C++ compiler is absent", name, _APT.format(package))
    return EdgeLslaError("CMake cannot prepare the plugin's build", log, "read its messages there")
