"""The built library from outside: what it exports, what it needs, and what its absence of parts is called."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import native_builds
import pytest
from native_builds import NEWEST, OLDEST, compiler, headers, needs_compiler, needs_cross_compiler, needs_headers

from edge_lsla.errors import EdgeLslaError, MissingComponentError, UsageError
from edge_lsla.plugin_library import SECTION
from plugins import library

# JetPack 6 is Ubuntu 22.04: what is built here must load there.
JETPACK_6 = {"GLIBC": (2, 35), "GLIBCXX": (3, 4, 30), "CXXABI": (1, 3, 13), "GCC": (12, 0, 0)}


@pytest.fixture(scope="module")
def released() -> Path:
    """The library as users get it."""
    if OLDEST is None:
        pytest.skip("no TensorRT headers")
    return native_builds.build("released", OLDEST)


def text_of(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def required_versions(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the newest version needed of each library, such as {"GLIBC": (2, 34)}."""
    newest: dict[str, tuple[int, ...]] = {}
    for name, version in re.findall(r"Name: (GLIBC|GLIBCXX|CXXABI|GCC)_([0-9.]+)", text_of("readelf", "-VW", path)):
        parts = tuple(int(part) for part in version.split("."))
        newest[name] = max(newest.get(name, parts), parts)
    return newest


pytestmark = [compiler, needs_compiler]


@headers
@needs_headers
def test_it_exports_the_two_entry_points_and_nothing_else(released: Path) -> None:
    defined = [line.split()[-1] for line in text_of("nm", "-D", "--defined-only", released).splitlines()]
    assert sorted(defined) == ["getCreators", "setLoggerFinder"]


@headers
@needs_headers
def test_it_needs_the_system_libraries_and_none_of_nvidias(released: Path) -> None:
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", text_of("readelf", "-dW", released)))
    assert "libc.so.6" in needed
    allowed = ("libc.so", "libstdc++.so", "libgcc_s.so", "libm.so", "ld-linux")
    assert [name for name in needed if not name.startswith(allowed)] == []
    assert not re.search("nvinfer|cuda", text_of("ldd", released))


@headers
@needs_headers
def test_it_loads_on_jetpack_6(released: Path) -> None:
    versions = required_versions(released)
    assert versions.keys() >= {"GLIBC"}
    for name, version in versions.items():
        assert version <= JETPACK_6[name], name


@headers
@needs_headers
def test_it_loads_without_a_driver(released: Path) -> None:
    # In a process of its own, since the library stays loaded; names of libraries from /proc, as the loader sees them.
    script = f"import ctypes; ctypes.CDLL({str(released)!r}).getCreators; print(open('/proc/self/maps').read())"
    loaded = text_of(sys.executable, "-c", script)
    assert released.name in loaded
    assert "libcuda" not in loaded
    assert "libnvinfer" not in loaded


@headers
@needs_headers
def test_it_carries_the_index_and_keeps_its_stack_unexecutable(released: Path, tmp_path: Path) -> None:
    text_of(
        "objcopy", "-O", "binary", "-j", SECTION, "--set-section-flags", f"{SECTION}=alloc", released, tmp_path / "i"
    )
    assert (tmp_path / "i").read_bytes() == (native_builds.fake_index() / "index.json").read_bytes()
    stripped = tmp_path / "stripped.so"
    text_of("strip", "-o", stripped, released)
    assert SECTION in text_of("readelf", "-SW", stripped)
    stack = next(line for line in text_of("readelf", "-lW", released).splitlines() if "GNU_STACK" in line)
    assert stack.split()[-2] == "RW"


@headers
@needs_headers
def test_dlclose_leaves_it_in_place(released: Path) -> None:
    # TensorRT may close the library while plugins of an engine live on.
    assert "NODELETE" in text_of("readelf", "-dW", released)
    handle = ctypes.CDLL(str(released))._handle
    import _ctypes

    _ctypes.dlclose(handle)
    assert released.name in Path("/proc/self/maps").read_text()


@headers
@needs_headers
def test_a_second_build_compiles_nothing(released: Path) -> None:
    before = released.stat().st_mtime_ns
    assert OLDEST is not None
    again = library.build_library(
        native_builds.fake_index(), released.parent, tensorrt_include=OLDEST, warnings_as_errors=True
    )
    assert again.stat().st_mtime_ns == before


@headers
@needs_headers
@needs_cross_compiler
def test_the_aarch64_library_passes_the_harness_under_an_emulator() -> None:
    assert NEWEST is not None
    path = native_builds.build("aarch64", NEWEST, toolchain=library.TOOLCHAIN_AARCH64, harness=True)
    assert "AArch64" in text_of("readelf", "-hW", path)
    assert all(version <= JETPACK_6[name] for name, version in required_versions(path).items())
    emulator = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
    for fake_driver in (False, True):
        done = native_builds.run_harness(path, "check", path, fake_driver=fake_driver, before=emulator)
        assert done.returncode == 0, done.stdout
        assert re.search(r"^PASSED: \d+ checks, 0 failed", done.stdout, re.MULTILINE)


def test_absent_tensorrt_headers_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingComponentError, match=r"TensorRT headers are not found: NvInferRuntime\.h.*"
                       r"apt install libnvinfer-headers-dev.*-DTENSORRT_INCLUDE_DIR=FOLDER$"):  # fmt: skip
        library.build_library(native_builds.fake_index(), tmp_path / "build", tensorrt_include=tmp_path)


@headers
@needs_headers
def test_absent_cuda_headers_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        MissingComponentError, match=r"CUDA header is not found: cuda_runtime_api\.h; .*cuda-cudart-dev"
    ):
        library.build_library(
            native_builds.fake_index(), tmp_path / "build", tensorrt_include=OLDEST, cuda_include=tmp_path
        )


def test_headers_older_than_ten_are_refused(tmp_path: Path) -> None:
    (tmp_path / "NvInferRuntime.h").touch()
    (tmp_path / "NvInferVersion.h").write_text(
        "#define NV_TENSORRT_MAJOR 8 //!< major\n#define NV_TENSORRT_MINOR 6\n#define NV_TENSORRT_PATCH 1\n"
    )
    with pytest.raises(MissingComponentError, match=r"headers are too old: .*, version 8\.6; install TensorRT 10\.3"):
        library.build_library(native_builds.fake_index(), tmp_path / "build", tensorrt_include=tmp_path)


def test_an_absent_cross_compiler_is_named_with_the_remedy(tmp_path: Path) -> None:
    toolchain = tmp_path / "toolchain.cmake"
    toolchain.write_text("set(CMAKE_SYSTEM_NAME Linux)\nset(CMAKE_CXX_COMPILER aarch64-absent-g++)\n")
    with pytest.raises(MissingComponentError, match=r"compiler is absent: aarch64-absent-g\+\+; .*g\+\+-aarch64"):
        library.build_library(native_builds.fake_index(), tmp_path / "build", toolchain=toolchain)


@pytest.mark.parametrize(("present", "absent", "package"), [((), "cmake", "cmake"), (("cmake",), "make", "make"),
                                                            (("cmake", "ninja"), "c\\+\\+", "g\\+\\+")])  # fmt: skip
def test_absent_programs_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], absent: str, package: str
) -> None:
    for program in present:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingComponentError, match=rf"absent: {absent}; install it \(apt install {package}\)"):
        library.build_library(native_builds.fake_index(), tmp_path / "build")


@headers
@needs_headers
def test_a_compiler_error_names_the_log(tmp_path: Path) -> None:
    # Headers that CMake accepts and the compiler does not.
    (tmp_path / "NvInferRuntime.h").write_text("#error broken header\n")
    assert OLDEST is not None
    (tmp_path / "NvInferVersion.h").write_text((OLDEST / "NvInferVersion.h").read_text())
    with pytest.raises(
        EdgeLslaError, match=r"does not compile \(.*NvInferRuntime\.h:1:2: error: #error broken header\): .*build\.log"
    ):
        library.build_library(native_builds.fake_index(), tmp_path / "build", tensorrt_include=tmp_path)
    assert "broken header" in (tmp_path / "build" / "build.log").read_text()


def test_headers_are_found_with_either_form_of_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "NvInferRuntime.h").touch()
    version = tmp_path / "NvInferVersion.h"
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    version.write_text(
        "#define NV_TENSORRT_MAJOR 99 //!< x\n#define NV_TENSORRT_MINOR 3\n#define NV_TENSORRT_PATCH 0\n"
    )
    assert ("99.3.0", tmp_path) in library.find_tensorrt_includes()
    version.write_text(
        "#define TRT_MAJOR_ENTERPRISE 99\n#define TRT_MINOR_ENTERPRISE 13\n#define TRT_PATCH_ENTERPRISE 3\n"
        "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n#define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE //!< x\n"
        "#define NV_TENSORRT_PATCH TRT_PATCH_ENTERPRISE\n"
    )
    assert ("99.13.3", tmp_path) == library.find_tensorrt_includes()[-1]  # oldest first
    version.write_text("nothing\n")
    assert tmp_path not in [folder for _, folder in library.find_tensorrt_includes()]


@headers
@needs_headers
@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("CXX", "/nope", MissingComponentError, "the C++ compiler is absent: /nope; correct or unset CXX"),
        ("CXXFLAGS", "-fnope", EdgeLslaError, "unrecognized command-line option"),
        ("LDFLAGS", "-Wl,--nope", EdgeLslaError, "unrecognized option '--nope'"),
        ("LDFLAGS", "-fuse-ld=gold -B/nope -lnope", EdgeLslaError, "cannot find -lnope"),
    ],
)
def test_a_compiler_that_does_not_work_is_quoted(
    name: str, value: str, error: type[EdgeLslaError], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")  # compilers speak the user's language
    with pytest.raises(error) as caught:
        library.build_library(native_builds.fake_index(), tmp_path / "build", tensorrt_include=OLDEST)
    assert said in str(caught.value)
    assert "build.log" in str(caught.value) or error is MissingComponentError


@headers
@needs_headers
def test_an_absent_linker_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("cmake", "make", "c++", "as", "sh"):  # binutils without ld
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", f"{tmp_path / 'c++'} -B{tmp_path} -fuse-ld=lld")
    with pytest.raises(EdgeLslaError, match=r"cannot prepare the plugin's build \(collect2: fatal error: cannot find"):
        library.build_library(native_builds.fake_index(), tmp_path / "build", tensorrt_include=OLDEST)


@headers
@needs_headers
def test_the_environment_does_not_choose_the_build_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMAKE_BUILD_TYPE", "Debug")
    library.build_library(native_builds.fake_index(), tmp_path / "a 'b' (c)", tensorrt_include=OLDEST)
    assert "CMAKE_BUILD_TYPE:STRING=Release" in (tmp_path / "a 'b' (c)" / "CMakeCache.txt").read_text()


def test_a_named_folder_without_headers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    said = rf"TENSORRT_INCLUDE_DIR names a folder without NvInferRuntime\.h: {tmp_path}; correct or unset it"
    with pytest.raises(UsageError, match=said):
        library.build_library(native_builds.fake_index(), tmp_path / "build")


@headers
@needs_headers
def test_a_named_folder_is_taken_from_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert NEWEST is not None
    (tmp_path / "headers").symlink_to(NEWEST)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", "headers")
    library.build_library(native_builds.fake_index(), tmp_path / "build")
    assert f"TENSORRT_INCLUDE_DIR:PATH={NEWEST}" in (tmp_path / "build" / "CMakeCache.txt").read_text()


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a;b", "a$b", "a#b", "a|b", "a?b", "a\nb", "a\udcffb"])
def test_a_path_that_cmake_cannot_take_is_refused_before_it_runs(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"CMake cannot work with .* in a path: .*; choose another folder") as caught:
        library.build_library(native_builds.fake_index(), tmp_path / name)
    str(caught.value).encode("utf-8")  # it can be printed
    (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / name)
    with pytest.raises(UsageError, match="CMake cannot work with"):
        library.check_path(tmp_path / "link")
    library.check_path(tmp_path / "a b")


@headers
@needs_headers
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_build_takes_its_compilers_along(number: signal.Signals, tmp_path: Path) -> None:
    compiler, pid = tmp_path / "compiler", tmp_path / "pid"
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *plugin.cpp*) echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 300;; esac\n'
        'exec c++ "$@"\n'
    )
    compiler.chmod(0o755)
    script = (
        "import signal, sys\nfrom pathlib import Path\nfrom plugins.library import build_library\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "build_library(*map(Path, sys.argv[1:3]), tensorrt_include=Path(sys.argv[3]))\n"
    )
    arguments = [native_builds.fake_index(), tmp_path / "build", OLDEST]
    started = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stderr=subprocess.DEVNULL,
        env={**os.environ, "CXX": str(compiler), "PYTHONPATH": str(Path(library.__file__).parents[1])},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not pid.exists():
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started.send_signal(number)
    started.wait(timeout=20)
    while runs(int(pid.read_text())):  # of a build that was killed, the supervisor does it a moment later
        assert time.monotonic() < deadline
        time.sleep(0.05)


def runs(process: int) -> bool:
    """Say whether the process is there, and not only waits for its exit code to be taken."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
