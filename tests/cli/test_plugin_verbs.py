"""`plugin build` and `plugin info`, as users run them on a machine with neither GPU nor TensorRT library."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lsla import plugin_library
from edge_lsla.errors import EdgeLslaError
from edge_lsla.plugin_library import LIBRARY
from plugins.library import find_tensorrt_includes
from plugins.ptxas import installed

ROOT = Path(__file__).parents[2]
Command = Callable[..., Any]
JETPACK6 = next((one for one in installed() if one.release == (12, 6)), None)
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or JETPACK6 is None,
    reason="needs triton and ptxas 12.6 (pip install triton==3.6.0 'nvidia-cuda-nvcc-cu12==12.6.*')",
)
SMALL = "attention-w2-d16-fp16"  # compiles in a second


def missing_for_a_library() -> str | None:
    programs = [name for name in ("cmake", "c++") if shutil.which(name) is None]
    return f"needs {', '.join(programs)}" if programs else None


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One kernel for two architectures, compiled by the real verb, in a process of its own."""
    folder = tmp_path_factory.mktemp("package")
    path = folder / "kernels.tar.gz"
    arguments = ["--only", SMALL, "--arch", "86,sm_87", "--package", path, "-o", folder / "out", "--json"]
    done = subprocess.run(
        [sys.executable, ROOT / "cli.py", "plugin", "build", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["ok"]
    assert (answer["architectures"], answer["kernels"], answer["spilling"]) == ([86, 87], 3, [])
    assert (answer["package"], answer["library"]) == (str(path), None)
    assert not (folder / "out" / LIBRARY).exists()
    assert not (folder / "out" / "kernels").exists()
    return path


@needs_triton
@pytest.mark.headers
@pytest.mark.compiler
@pytest.mark.skipif(not find_tensorrt_includes(), reason="needs TensorRT headers")
@pytest.mark.skipif(missing_for_a_library() is not None, reason=str(missing_for_a_library()))
def test_a_package_becomes_a_library_without_triton_and_info_tells_what_is_in_it(
    package: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import sys\n"
        "for name in ('triton', 'torch', 'onnx', 'onnxruntime'): sys.modules[name] = None\n"  # imports of them fail
        f"sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'cli.py'\n"
        "import cli; cli.main()"
    )
    headers = find_tensorrt_includes()[0][1]
    arguments = ["plugin", "build", "--kernels", package, "-o", tmp_path, "--tensorrt-include", headers, "--json"]
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "EDGE_LSLA_PTXAS": "/no/ptxas/is/asked/for"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    library = tmp_path / LIBRARY
    built = json.loads(done.stdout.splitlines()[-1])
    assert built["library"] == str(library)

    outcome = command("plugin", "info", library, "--json")
    facts = outcome.json["library"]
    assert facts["path"] == str(library)
    assert facts["architectures"] == [86, 87]
    assert facts["index_digest"] == built["index_digest"]
    assert facts["machine"] == platform.machine()
    variants = {(one["arch"], one["kind"]): one for one in outcome.json["variants"]}
    assert set(variants) == {(80, "ptx"), (86, "cubin"), (87, "cubin")}
    orin = variants[87, "cubin"]
    assert (orin["kernel"], orin["dtype"], orin["window"], orin["head_width"]) == ("attention", "fp16", 2, 16)
    assert orin["spills"] == 0
    assert orin["registers"] > 0
    assert orin["shared_bytes"] >= 0

    monkeypatch.setenv("EDGE_LSLA_PLUGIN", str(library))
    text = command("plugin", "info").out
    assert SMALL in text
    assert "sm_87" in text
    assert facts["index_digest"] in text.replace("\n", "").replace("│", "").replace(" ", "")


@needs_triton
@pytest.mark.headers
@pytest.mark.compiler
@pytest.mark.skipif(not find_tensorrt_includes(), reason="needs TensorRT headers")
@pytest.mark.skipif(missing_for_a_library() is not None, reason=str(missing_for_a_library()))
@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-g++") is None, reason="needs g++-aarch64-linux-gnu")
def test_the_library_for_a_jetson_is_built_here(package: Path, tmp_path: Path, command: Command) -> None:
    outcome = command("plugin", "build", "--kernels", package, "-o", tmp_path, "--target", "aarch64", "--json")
    assert outcome.code == 0, outcome.err
    library = tmp_path / "aarch64" / LIBRARY
    assert outcome.json["library"] == str(library)
    assert command("plugin", "info", library, "--json").json["library"]["machine"] == "aarch64"


@needs_triton
@pytest.mark.compiler
@pytest.mark.skipif(missing_for_a_library() is not None, reason=str(missing_for_a_library()))
def test_absent_headers_are_a_missing_component_after_the_kernels(
    package: Path, tmp_path: Path, command: Command
) -> None:
    toolchain = tmp_path / "bare.cmake"
    toolchain.write_text('set(TENSORRT_INCLUDE_DIR "/absent" CACHE PATH "")\n')
    outcome = command("plugin", "build", "--kernels", package, "-o", tmp_path / "out", "--toolchain", toolchain)
    assert outcome.code == 3
    assert "TensorRT headers" in outcome.err
    assert "--tensorrt-include FOLDER" in outcome.err
    assert f"the kernels are done, in {tmp_path / 'out' / 'kernels'}" in outcome.err
    assert (tmp_path / "out" / "kernels" / "index.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@needs_triton
def test_a_stopped_build_leaves_no_compiler_and_no_half_file(
    number: signal.Signals, tmp_path: Path, process: Callable[..., subprocess.Popen[str]]
) -> None:
    assert JETPACK6 is not None
    pid, ptxas, out = tmp_path / "pid", tmp_path / "ptxas", tmp_path / "out"
    ptxas.write_text(
        f'#!/bin/sh\ncase "$*" in *sm_87*) echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 600;; esac\n'
        f'exec {JETPACK6.path} "$@"\n'
    )
    ptxas.chmod(0o755)
    started = process(
        "plugin", "build", "--only", SMALL, "--arch", "87", "--jobs", 2, "-o", out, "--json",
        env={**os.environ, "EDGE_LSLA_PTXAS": str(ptxas)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not pid.exists():
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started.send_signal(number)
    text, errors = started.communicate(timeout=20)
    state = Path(f"/proc/{int(pid.read_text())}/stat")
    while number == signal.SIGKILL and state.exists():  # the supervisor ends it a moment later
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    assert not (out / "kernels").exists()
    if number == signal.SIGKILL:
        return
    assert started.returncode == 130
    assert json.loads(text.splitlines()[-1])["exit_code"] == 130
    assert errors.splitlines()[-1] == "error: interrupted"
    assert not (out / ".work").exists()
    assert not (out / "kernels").exists()
    assert not [path for path in out.rglob("*") if ".part" in path.name]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--arch", "61"], 2, "no such architecture '61': --arch; give some of 80, 86, 87"),
        (["--arch", ""], 2, "no such architecture ''"),
        (["--variants", "attention-w99-d32-fp16"], 2, "the window is out of range: 99"),
        (["--variants", "lsla"], 2, "this is no variant: lsla; write KERNEL-wWINDOW"),
        (["--only", ","], 2, "nothing to compile"),
        (["--variants", SMALL, "--only", SMALL], 2, "--variants adds, --only replaces"),
        (["--kernels", "a.tar.gz", "--arch", "87"], 2, "--kernels compiles nothing"),
        (["--kernels", "absent.tar.gz"], 2, "No such file or directory"),
        (["--package", "absent/a.tar.gz"], 2, "no such folder to write into"),
        (["--tensorrt-include", "/absent"], 2, "no NvInferRuntime.h in the folder: /absent"),
        (["--target", "riscv64"], 2, "no such machine 'riscv64'"),
        (["--toolchain", "absent.cmake"], 2, "no such file: absent.cmake"),
        (["--kernels", "/dev/zero"], 2, "the package is no regular file: /dev/zero"),
        (["--cuda-include", "a;b"], 2, "CMake cannot work with ';' in a path"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    arguments: list[str], code: int, said: str, tmp_path: Path, command: Command
) -> None:
    outcome = command("plugin", "build", *arguments, "-o", tmp_path / "out")
    assert outcome.code == code
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert not (tmp_path / "out" / "kernels").exists()


@needs_triton
def test_no_suitable_ptxas_is_a_missing_component(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plugins import ptxas

    monkeypatch.setattr(ptxas, "installed", lambda: (ptxas.Ptxas(Path("/usr/local/cuda/bin/ptxas"), "13.0.88"),))
    outcome = command("plugin", "build", "--arch", "87", "-o", tmp_path / "out")
    assert outcome.code == 3
    assert "sm_87" in outcome.err or "sm_80" in outcome.err
    assert "pip install 'nvidia-cuda-nvcc-cu12==12.6.*'" in outcome.err


def test_info_of_what_is_no_plugin_is_refused(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    elf = Path(sys.executable).resolve().read_bytes()
    cases = {"empty.so": b"", "text.so": b"hello" * 100, "cut.so": elf[:5000], "python.so": elf}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        outcome = command("plugin", "info", tmp_path / name)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert "plugin library is damaged, or not one of edge-lsla" in outcome.err
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        outcome = command("plugin", "info", path)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert "plugin library is no regular file" in outcome.err
    assert command("plugin", "info", tmp_path / "absent.so").code == 2
    monkeypatch.setenv("EDGE_LSLA_PLUGIN", str(tmp_path / "absent.so"))
    assert "EDGE_LSLA_PLUGIN names no file" in command("plugin", "info").err


def test_info_without_a_library_says_how_to_make_one(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGE_LSLA_PLUGIN", raising=False)
    monkeypatch.setattr(plugin_library, "INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(plugin_library, "BUILT", tmp_path / "built")
    outcome = command("plugin", "info", "--json")
    assert outcome.code == 3
    assert "plugin build" in outcome.json["error"]


def test_the_verbs_load_no_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "cli.py", "plugin", "build", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "plugins.verbs" in loaded
    assert not loaded & {"triton", "torch", "onnx", "elftools", "plugins.build"}


@pytest.mark.parametrize(
    ("local", "said", "expected"),
    [
        ((87,), "for sm_87, this machine's", (87,)),
        ((), "no GPU with a driver", (86, 87, 89, 90, 110, 120)),
        ((75,), "not made for sm_75", (86, 87, 89, 90, 110, 120)),
    ],
)
def test_the_default_is_this_machines_gpu_and_that_is_said(
    local: tuple[int, ...], said: str, expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from plugins import verbs

    monkeypatch.setattr(verbs, "local_architectures", lambda: local)
    assert verbs._architectures(None, elsewhere=False) == expected
    assert said in "".join(capsys.readouterr())
    assert verbs._architectures(None, elsewhere=True) == (86, 87, 89, 90, 110, 120)
    assert "this is for other machines" in "".join(capsys.readouterr())
    for elsewhere in (False, True):
        assert verbs._architectures("all", elsewhere) == (86, 87, 89, 90, 110, 120)
        assert verbs._architectures("8.7, sm_110,87", elsewhere) == (87, 110)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (86,)),
        (["--arch", "87", "--package", "{}/k.tar.gz"], (87,)),
        (["--package", "{}/k.tar.gz"], (86, 87, 89, 90, 110, 120)),
        (["--toolchain", "{}/some.cmake"], (86, 87, 89, 90, 110, 120)),
        (["--target", "{other}"], (86, 87, 89, 90, 110, 120)),
        (["--target", "{this}"], (86,)),
    ],
)
def test_a_build_for_another_machine_is_not_for_this_machines_gpu(
    arguments: list[str], expected: tuple[int, ...], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plugins import build, library, verbs

    (tmp_path / "some.cmake").touch()
    monkeypatch.setattr(verbs, "local_architectures", lambda: (86,))
    # On either kind of machine; the shipped toolchain is for aarch64.
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(library, "TOOLCHAIN_AARCH64", tmp_path / "some.cmake")
    asked: list[tuple[int, ...]] = []

    def stop(settings: build.BuildSettings, *_: object) -> None:
        asked.append(settings.architectures)
        raise EdgeLslaError("far enough")

    for name in ("build_kernels", "build_package"):
        monkeypatch.setattr(build, name, stop)
    places = [text.format(tmp_path, other="aarch64", this="x86_64") for text in arguments]
    assert command("plugin", "build", *places, "-o", tmp_path / "out").code == 1
    assert asked == [expected]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cmake", "this folder holds what no build wrote"),
        ("logs", "this folder holds what no build wrote"),
        ("a;b", "CMake cannot work with ';' in a path"),
    ],
)
def test_a_folder_that_a_build_may_not_work_in_is_refused_before_any_work(
    name: str, said: str, tmp_path: Path, command: Command
) -> None:
    theirs = tmp_path / "out" / name / "precious"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("data")
    output = theirs.parent / "out" if ";" in name else tmp_path / "out"
    for arguments in (["--only", SMALL, "--arch", "87"], ["--kernels", "absent.tar.gz"]):
        outcome = command("plugin", "build", *arguments, "-o", output)
        assert (outcome.code, outcome.err.count("\n"), outcome.out) == (2, 1, ""), outcome.err
        assert said in outcome.err
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {name, "precious"}


def test_headers_that_the_environment_names_and_are_absent_are_refused_before_any_work(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", "/nope")
    outcome = command("plugin", "build", "--only", SMALL, "--arch", "87", "-o", tmp_path / "out")
    assert outcome.code == 2
    assert "TENSORRT_INCLUDE_DIR names a folder without NvInferRuntime.h: /nope" in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["cache", "kernels", "cmake-x"])
def test_a_toolchain_that_would_claim_the_builds_own_folder_is_refused(
    name: str, tmp_path: Path, command: Command
) -> None:
    toolchain = tmp_path / f"{name}.cmake"
    toolchain.touch()
    outcome = command("plugin", "build", "--kernels", "k.tar.gz", "--toolchain", toolchain, "-o", tmp_path / "out")
    assert outcome.code == 2
    assert "a name of the build's own" in outcome.err
