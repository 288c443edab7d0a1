"""What can go wrong in a build: one sentence each, its exit code, and nothing half-written."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from build_parts import RTX, SM86, custom, needs_rtx, small

from edge_lsla.build.tensorrt import builder
from edge_lsla.build.tensorrt.builder import build_engine, describe_runtime
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.errors import CompatibilityError, EdgeLslaError, GraphError, MissingComponentError

ROOT = Path(__file__).parents[2]
TENSORRT = BuildSettings("tensorrt")


def workers() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children() if any("build.tensorrt.worker" in p for p in child.cmdline())
    ]


def kill_with(number: int) -> Any:
    """A `step` that sends a signal to the worker once it is at work."""

    def step(done: int, total: int, phase: str) -> None:
        if phase != "loading TensorRT":
            for worker in workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.send_signal(number)

    return step


@pytest.mark.parametrize(
    ("backend", "words"),
    [("tensorrt", r"not installed: .* tensorrt; JetPack"), ("tensorrt-rtx", "pip install tensorrt-rtx-cu13")],
)
def test_a_missing_package_says_what_to_install(
    backend: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A finder that hides an installed one, in the worker.
    name = backend.replace("-", "_")
    (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('no module', name='{name}')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    targets = ("sm86",) if backend == "tensorrt-rtx" else ()
    with pytest.raises(MissingComponentError, match=words) as caught:
        build_engine(small(), BuildSettings(backend, targets))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", MissingComponentError,
         "does not load: libnvinfer.so.10: cannot open"),
        ("__version__ = '10.3.0'", MissingComponentError, "cannot build: tensorrt 10.3.0"),
        ("", MissingComponentError, "cannot build: tensorrt without a version"),
        ("class Builder: pass\n__version__ = '8.6.1'", CompatibilityError, r"TensorRT 8.6.1 is not supported: 10.3 to"),
        ("class Builder: pass\n__version__ = '12.0'", CompatibilityError, r"TensorRT 12.0 is not supported"),
    ],
)  # fmt: skip
def test_a_package_that_cannot_be_used_says_why(
    source: str, error: type[EdgeLslaError], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(error, match=words):
        describe_runtime("tensorrt")


@needs_rtx
def test_no_gpu_for_tensorrt_says_what_needs_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TensorRT's builder is a null pointer without a GPU; pybind11 then raises, and the logger has said why."""
    (tmp_path / "tensorrt.py").write_text(
        "from tensorrt_rtx import *\n__version__ = '10.3.0'\n"
        "class Builder:\n    def __init__(self, logger):\n"
        "        logger.log(ILogger.ERROR, 'CUDA initialization failure with error: 35')\n"
        "        raise TypeError('pybind11::init(): factory function returned nullptr')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{RTX}")
    with pytest.raises(MissingComponentError, match=r"no GPU driver.*: CUDA error 35; .*tensorrt-rtx"):
        build_engine(small(), TENSORRT)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", GraphError, "not an ONNX model"),
        (small()[:150], GraphError, "corrupt or cut short"),
        (small(input="x"), GraphError, "input is not 'images'"),
        (small(output="y"), GraphError, "output is not 'logits'"),
        (custom("LslaAttention"), GraphError, r"takes no plugins.*: node attention_0 \(LslaAttention\)"),
    ],
)
def test_a_wrong_graph_is_refused_before_anything_starts(
    data: bytes, error: type[EdgeLslaError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "_run", None)
    with pytest.raises(error, match=words) as caught:
        build_engine(data, SM86)
    assert caught.value.exit_code == 2


def test_too_little_memory_is_refused_before_the_build(monkeypatch: pytest.MonkeyPatch, rtx: None) -> None:
    if RTX is None:
        pytest.skip("tensorrt-rtx is not installed (make runtimes)")
    describe_runtime("tensorrt-rtx")
    monkeypatch.setattr(builder, "free_bytes", lambda: 100 * 2**20)
    monkeypatch.setattr(builder, "_run", None)
    with pytest.raises(EdgeLslaError, match="too little memory for the build"):
        build_engine(small(), SM86)


@needs_rtx
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, r"killed, most likely because memory ran out: .* at \d\d+ MB; .*--workspace"),
        (signal.SIGSEGV, r"crashed \(segmentation fault\).*: building a tensorrt-rtx engine, in the phase"),
        (signal.SIGABRT, "TensorRT aborted"),
        (signal.SIGTERM, "was ended by SIGTERM"),
    ],
)
def test_a_worker_that_dies_is_one_sentence(number: int, words: str, tiny: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(EdgeLslaError, match=words) as caught:
        build_engine(tiny["fp32"], SM86, kill_with(number), work=tmp_path)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_a_worker_that_hangs_is_ended(tiny: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe_runtime("tensorrt-rtx")
    monkeypatch.setattr(builder, "STALL_SECONDS", 1.0)
    started = time.monotonic()
    with pytest.raises(EdgeLslaError, match=r"TensorRT has stopped working: in the phase 'parsing', at \d+ MB; free"):
        build_engine(tiny["fp32"], SM86, kill_with(signal.SIGSTOP), work=tmp_path)
    assert time.monotonic() - started < 20
    assert not workers()
    assert not list(tmp_path.iterdir())


def test_what_an_abort_leaves_on_standard_error_is_understood() -> None:
    """As the worker died with 450 MB of addresses; with more, TensorRT for RTX may hang instead, now and then."""
    said = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    error = builder._crash(-signal.SIGABRT, "building a tensorrt-rtx engine", "parsing", 2**25, said)
    assert str(error).startswith(
        "memory ran out: building a tensorrt-rtx engine, in the phase 'parsing', at 32 MB; close"
    )
    unknown = builder._crash(-signal.SIGABRT, "building", "parsing", 0, "one\nterminate called for no reason\n\n")
    assert str(unknown).startswith("TensorRT aborted: terminate called for no reason: building, in the phase 'parsing'")
    assert "was ended by SIGXCPU" in str(builder._crash(-signal.SIGXCPU, "building", "parsing", 0, ""))
    assert "TensorRT ended with 3: building" in str(builder._crash(3, "building", "parsing", 0, ""))


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_an_interruption_ends_the_worker_and_leaves_nothing(tiny: dict[str, bytes], tmp_path: Path) -> None:
    seen: list[psutil.Process] = []

    def interrupt(done: int, total: int, phase: str) -> None:
        if phase != "loading TensorRT":
            seen.extend(workers())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(tiny["fp32"], SM86, interrupt, work=tmp_path)
    assert len(seen) == 1
    assert not seen[0].is_running()
    assert not list(tmp_path.iterdir())


CALLER = """
import os, resource, signal, sys
from pathlib import Path
from edge_lsla.build.tensorrt.builder import build_engine
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.errors import EdgeLslaError

what, model, folder = sys.argv[1:]
def step(done, total, phase):
    if what == "die" and phase != "loading TensorRT":
        os.kill(os.getpid(), signal.SIGKILL)
if what == "fill":
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    build_engine(Path(model).read_bytes(), BuildSettings("tensorrt-rtx", ("sm86",)), step, work=Path(folder))
except EdgeLslaError as error:
    print(error.exit_code, error)
"""


def call(what: str, data: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    model, store = folder / "m.onnx", folder / "store"
    model.write_bytes(data)
    store.mkdir()
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{RTX}"}
    command = [sys.executable, "-c", CALLER, what, str(model), str(store)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)


@needs_rtx
def test_the_worker_of_a_caller_that_is_killed_ends_and_cleans_up(tiny: dict[str, bytes], tmp_path: Path) -> None:
    assert call("die", tiny["fp32"], tmp_path).returncode == -signal.SIGKILL
    end = time.monotonic() + 10
    while (left := list((tmp_path / "store").iterdir())) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


@needs_rtx
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tiny: dict[str, bytes], tmp_path: Path) -> None:
    """The limit on file sizes stands for the disk: the graph fits below it, the engine does not."""
    result = call("fill", tiny["fp32"], tmp_path)
    assert result.stdout.startswith("1 cannot write the engine: "), result.stdout + result.stderr
    assert "free some space" in result.stdout
    assert not list((tmp_path / "store").iterdir())


@pytest.mark.usefixtures("rtx")
def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeLslaError, match=r"cannot write the build's files: .*none; No such file"):
        build_engine(small(), SM86, work=tmp_path / "none")


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_what_a_power_cut_left_is_removed_a_day_later(tmp_path: Path) -> None:
    old, new = tmp_path / "building-old", tmp_path / "building-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "plan").write_bytes(b"half")
    os.utime(old, (0, 0))
    build_engine(small(), SM86, work=tmp_path)
    assert sorted(tmp_path.iterdir()) == [new]
