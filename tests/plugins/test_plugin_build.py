"""The ahead-of-time build: cache, failures by name, what is replaced and when; with the real compiler."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_lsla.errors import EdgeLslaError, UsageError
from plugins import index as kernel_index
from plugins.build import BuildSettings, Built, build_kernels, build_package
from plugins.folder import LOCK, MARKER, WORK
from plugins.package import unpack
from plugins.ptxas import installed
from plugins.variants import parse

JETPACK6 = next((one for one in installed() if one.release == (12, 6)), None)
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or JETPACK6 is None,
    reason="needs triton and ptxas 12.6 (pip install triton==3.6.0 'nvidia-cuda-nvcc-cu12==12.6.*')",
)
SMALL = "attention-w2-d16-fp16"

Build = Callable[..., Built]
Sabotage = Callable[[dict[int, str]], None]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def build(tmp_path: Path, lines: list[str]) -> Build:
    def run(*names: str, archs: tuple[int, ...] = (87,), timeout: float = 100.0) -> Built:
        settings = BuildSettings(tuple(map(parse, names)), archs, jobs=2, timeout=timeout)
        return build_kernels(settings, tmp_path / "out", lambda *_: None, lines.append)

    return run


@pytest.fixture
def sabotage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sabotage:
    """Put a ptxas in place that does something else for some architectures, and is the real one for the others."""
    assert JETPACK6 is not None
    real = JETPACK6.path

    def prepare(actions: dict[int, str]) -> None:
        cases = "".join(f"*sm_{arch}*) {action};;\n" for arch, action in actions.items())
        path = tmp_path / "ptxas"
        path.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}esac\nexec {real} "$@"\n')
        path.chmod(0o755)
        monkeypatch.setenv("EDGE_LSLA_PTXAS", str(path))

    return prepare


def runs(pid: Path) -> bool:
    """Say whether the process of that number is there, and not only waits for its exit code to be taken."""
    try:
        return Path(f"/proc/{int(pid.read_text())}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not pid.exists()


def test_what_is_compiled_once_is_taken_from_the_cache(build: Build, tmp_path: Path, lines: list[str]) -> None:
    first = build(SMALL)
    assert (first.compiled, first.cached) == (2, 0)
    assert [(one.name, one.arch, one.kind) for one in first.index.entries] == [(SMALL, 80, "ptx"), (SMALL, 87, "cubin")]
    assert kernel_index.read(first.folder) == first.index
    assert first.digest == kernel_index.digest((first.folder / "index.json").read_bytes())
    assert lines == []
    again = build(SMALL, SMALL)
    assert (again.compiled, again.cached, again.digest) == (0, 2, first.digest)
    both = build(SMALL, archs=(86, 87))
    assert (both.compiled, both.cached, both.index.architectures) == (1, 2, (86, 87))
    assert kernel_index.read(both.folder) == both.index
    cache = tmp_path / "out" / "cache"
    for path in cache.glob("*.bin"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")  # a disk that failed
    mended = build(SMALL)
    assert (mended.compiled, mended.digest) == (2, first.digest)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MARKER, LOCK, "cache", "kernels"]


def test_an_abort_fails_its_kernel_by_name_and_the_others_go_on(
    build: Build, sabotage: Sabotage, tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build(SMALL, archs=(87,))
    left = tmp_path / "pid"
    sabotage(
        {
            86: "echo 'what it said' >&2; kill -ABRT $$",
            89: f"echo $$ > {left}; kill -SEGV $PPID; sleep 600",  # the worker itself, which has LLVM inside
            90: "echo 'ptxas fatal : Ptx assembly aborted' >&2; exit 255",
        }
    )
    with pytest.raises(EdgeLslaError, match=f"3 of 6 kernels failed.*{SMALL} sm_") as caught:
        build(SMALL, archs=(86, 87, 89, 90, 120))
    assert caught.value.exit_code == 1
    assert {one["arch"]: one["why"] for one in caught.value.details["failed"]} == {
        86: "`ptxas` failed with error code -6 what it said",
        89: "killed by SIGSEGV",
        90: "Internal Triton PTX codegen error ptxas fatal : Ptx assembly aborted",
    }
    assert f"failed: {SMALL} sm_89 cubin: killed by SIGSEGV" in lines
    assert not runs(left)
    out = tmp_path / "out"
    assert kernel_index.read(out / "kernels") == before.index  # nothing was replaced
    assert {path.name for path in (out / "logs").iterdir()} == {f"{SMALL}.sm_{a}.cubin.log" for a in (86, 89, 90)}
    assert not (out / ".work").exists()
    monkeypatch.delenv("EDGE_LSLA_PTXAS")
    mended = build(SMALL, archs=(86, 87, 89, 90, 120))
    assert (mended.compiled, mended.cached) == (3, 3)  # what went well was kept
    assert not (out / "logs").exists()


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(
    build: Build, sabotage: Sabotage, tmp_path: Path
) -> None:
    build(SMALL, archs=(87,))
    pid = tmp_path / "pid"
    sabotage({86: f"echo $$ > {pid}; echo waiting >&2; sleep 600; exit 1"})
    with pytest.raises(EdgeLslaError, match="1 of 3 kernels failed") as caught:
        build(SMALL, archs=(86, 87), timeout=3.0)
    assert caught.value.details["failed"][0]["why"].startswith("no result after 3 s")
    assert not runs(pid)


def test_a_folder_of_somebody_else_is_not_replaced(build: Build, tmp_path: Path) -> None:
    ours = tmp_path / "out" / "kernels"
    ours.mkdir(parents=True)
    (tmp_path / "out" / MARKER).touch()
    (ours / "attention.py").write_text("source")
    with pytest.raises(UsageError, match="no build wrote it"):
        build(SMALL)
    assert (ours / "attention.py").read_text() == "source"


def test_a_package_takes_from_the_cache_and_leaves_kernels_and_library(build: Build, tmp_path: Path) -> None:
    before = build(SMALL)
    (tmp_path / "out" / "library.so").write_bytes(b"of these kernels")
    settings = BuildSettings((parse(SMALL),), (86, 87), jobs=2)
    package = tmp_path / "kernels.tar.gz"
    built, sha256 = build_package(settings, tmp_path / "out", package, lambda *_: None, print)
    assert (built.compiled, built.cached, built.index.architectures) == (1, 2, (86, 87))
    assert hashlib.sha256(package.read_bytes()).hexdigest() == sha256
    assert kernel_index.parse(unpack(package)[0], package) == built.index
    assert kernel_index.read(tmp_path / "out" / "kernels") == before.index
    assert {path.name for path in (tmp_path / "out").iterdir()} == {MARKER, LOCK, "cache", "kernels", "library.so"}


def test_one_build_at_a_time_works_in_a_folder(build: Build, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EdgeLslaError, match="another build is at work"):
            build(SMALL)
    assert not (out / "kernels").exists()


def test_what_a_killed_build_left_is_removed(build: Build, tmp_path: Path) -> None:
    left = tmp_path / "out" / WORK / "3"
    left.mkdir(parents=True)
    (left.parents[1] / MARKER).touch()
    (left / "log").write_text("half")
    assert build(SMALL).compiled == 2
    assert not left.parent.exists()


def test_settings_check_themselves() -> None:
    variant = parse(SMALL)
    for changed in ({"variants": ()}, {"architectures": ()}, {"jobs": 0}, {"timeout": 0.0}):
        with pytest.raises(UsageError):
            BuildSettings(**{"variants": (variant,), "architectures": (87,), **changed})  # type: ignore[arg-type]
