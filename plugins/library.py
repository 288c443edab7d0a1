"""Builds the plugin library with CMake, and finds the TensorRT headers that it is built against."""

from __future__ import annotations

import itertools
import os
import platform
import re
import shutil
from pathlib import Path

from edge_lsla.errors import EdgeLslaError, MissingComponentError, UsageError
from edge_lsla.plugin_library import LIBRARY
from plugins.embed import write_sources
from plugins.processes import Process

SOURCE = Path(__file__).parent / "cpp"
TOOLCHAIN_AARCH64 = SOURCE / "aarch64-linux-gnu.cmake"
REGISTER = "libedge_lsla_plugin_register.so"  # beside it, for programs that only dlopen a plugin
HARNESS = Path("harness") / "edge_lsla_harness"
FAKE_DRIVER_DIR = Path("harness") / "fake_driver"
TENSORRT_VARIABLE = "TENSORRT_INCLUDE_DIR"
HEADER = "NvInferRuntime.h"
_APT = "install it (apt install {})"
# What CMake takes for its own in a path, or hands on to Make, Ninja or the shell without quoting it.
_UNSAFE = re.compile(r"""[\x00-\x1f\x7f"\\;$#|?\ud800-\udfff]""")
# Of a linker the lines before its "error: ld returned 1 exit status".
_TELLING = re.compile(r"\berror: |\bld(\.\w+)?: (?!.*(warning|in function))|undefined reference to|No space left")


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
        UsageError: a path has a character that CMake cannot work with, or TENSORRT_INCLUDE_DIR names no headers.
        InputError, CompatibilityError: the kernels are not what the index says.
        EdgeLslaError: the compiler failed; the message names the log.
    """
    for path in (SOURCE, index_dir, build_dir, tensorrt_include, cuda_include, toolchain):
        if path is not None:
            check_path(path)
    check_environment()
    cmake = _require("cmake", "cmake")
    ninja = shutil.which("ninja")
    if ninja is None:
        _require("make", "make")
    if toolchain is None and "CXX" not in os.environ:
        _require("c++", "g++")
    generated = build_dir / "generated"
    write_sources(index_dir, generated)
    options = {
        "CMAKE_BUILD_TYPE": "Release",  # said, for it would be taken from the environment
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
    output = _run([cmake, "--build", str(build_dir), "--parallel", str(os.cpu_count() or 1)], log)
    if output is not None:
        what = f"the plugin library does not compile ({_first_error(output)})"
        raise EdgeLslaError(what, log, "read the compiler's messages there")
    return build_dir / LIBRARY


def check_path(path: Path) -> None:
    """Refuse a path that does not survive the way through CMake and Make or Ninja.

    Raises:
        UsageError: it has one of those characters, or bytes that are no UTF-8.
    """
    for form in (path.absolute(), path.resolve()):
        if found := _UNSAFE.search(str(form)):
            shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in str(form))
            raise UsageError(f"CMake cannot work with {found[0]!r} in a path", shown, "choose another folder")


def check_environment() -> None:
    """Refuse a TENSORRT_INCLUDE_DIR without headers, which CMake would pass over for the system's.

    Raises:
        UsageError: it has none.
    """
    named = os.environ.get(TENSORRT_VARIABLE)
    if named and not (Path(named) / HEADER).is_file():
        raise UsageError(f"{TENSORRT_VARIABLE} names a folder without {HEADER}", named, "correct or unset it")


def find_tensorrt_includes() -> list[tuple[str, Path]]:
    """Return (version, folder) of each set of TensorRT headers on this machine, each version once, oldest first.

    The folder named by the environment variable TENSORRT_INCLUDE_DIR goes before the system's, those before unpacked
    archives.
    """
    named = os.environ.get(TENSORRT_VARIABLE)
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
    if not (folder / HEADER).exists():
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
    """Run a command, its output appended to the log; return that output if it failed. Leaving early kills it."""
    temporary = log.with_name("tmp")  # compilers that are killed leave files
    temporary.mkdir(exist_ok=True)
    # Compilers' messages in English, and paths in UTF-8.
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "", "TMPDIR": str(temporary.resolve())}
    if named := environment.get(TENSORRT_VARIABLE):
        environment[TENSORRT_VARIABLE] = str(Path(named).resolve())  # CMake would begin elsewhere
    with log.open("ab") as file:
        file.write(os.fsencode(f"$ {' '.join(command)}\n"))
        file.flush()
        start = file.tell()
        process = Process(command, file, environment)
        try:
            process.wait()
        finally:
            code = process.kill()
    with log.open("rb") as written:
        written.seek(start)
        return written.read().decode("utf-8", "replace") if code else None


def _configure_error(output: str, log: Path) -> EdgeLslaError:
    text = " ".join(output.split())  # CMake breaks messages into lines
    missing = re.search(r"Missing component: (.*?): (.*?); (.*?)(?= Call Stack| -- | CMake Error|$)", text)
    if missing:
        return MissingComponentError(missing[1], missing[2], missing[3])
    named = re.search(r"Could not find compiler set in environment variable (\w+): (.+?)\.(?= |$)", text)
    if named:
        return MissingComponentError("the C++ compiler is absent", named[2], f"correct or unset {named[1]}")
    compiler = re.search(
        r"(?:CMAKE_CXX_COMPILER: |No (?=CMAKE_CXX_COMPILER))(\S+) (?:is not a full path|could be)", text
    )
    if compiler:
        name = compiler[1]
        package = "g++-aarch64-linux-gnu" if "aarch64" in name else "g++"
        return MissingComponentError("the C++ compiler is absent", name, _APT.format(package))
    what = f"CMake cannot prepare the plugin's build ({_first_error(output)})"
    return EdgeLslaError(what, log, "read its messages there")


def _first_error(output: str) -> str:
    """Return the line that says what is wrong: a compiler's, else CMake's, else the last one."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    cmake = [f"{line} {after}" for line, after in itertools.pairwise(lines) if line.startswith("CMake Error")]
    return (telling or cmake or lines[-1:] or ["it said nothing"])[0][:300]
