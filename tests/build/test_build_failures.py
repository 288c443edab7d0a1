"""What can go wrong in a build: one sentence each, its exit code, and nothing half-written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from build_parts import RTX, SM86, custom, needs_rtx, small

from edge_lsla.build.tensorrt import builder, work
from edge_lsla.build.tensorrt.builder import build_engine, describe_runtime
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.build.tensorrt.work import PREFIX, UnwritableError
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
         r"does not load: libnvinfer.so.10: cannot open .*, in .*/tensorrt\.py; install it anew: JetPack"),
        ("def broken(:", MissingComponentError, r"does not load: SyntaxError: invalid syntax.*, in .*/tensorrt\.py; "),
        ("raise RuntimeError('half an\\nupgrade')", MissingComponentError, r"Error: half an, in .*tensorrt\.py; "),
        ("import os\nos.nothing", MissingComponentError, r"not load: AttributeError: .*nothing.*, in .*tensorrt\.py"),
        ("raise SystemExit", MissingComponentError, r"does not load: SystemExit, in .*tensorrt\.py"),
        ("import tensorrt_of_nobody", MissingComponentError, r"named 'tensorrt_of_nobody', in .*tensorrt\.py"),
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


def test_a_runtime_without_its_targets_cannot_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("class Builder: pass\n__version__ = '1.7.1'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = r"cannot build: tensorrt_rtx 1\.7\.1, lacks ComputeCapability, .*tensorrt_rtx\.py; pip install"
    with pytest.raises(MissingComponentError, match=words) as caught:
        describe_runtime("tensorrt-rtx")
    assert caught.value.exit_code == 3


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


BUSY_THEN_IDLE = """
import time
while time.process_time() < 0.3:
    pass
print('{"progress": [1, 9, "idle"]}', flush=True)
time.sleep(60)
"""


def test_work_before_it_hangs_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor time of loading TensorRT once counted in the first of two windows."""
    monkeypatch.setattr(builder, "STALL_SECONDS", 3.0)
    idle: list[float] = []
    with subprocess.Popen([sys.executable, "-c", BUSY_THEN_IDLE], stdout=subprocess.PIPE) as process:
        try:
            with pytest.raises(EdgeLslaError, match="TensorRT has stopped working: in the phase 'idle'"):
                builder._listen(process, lambda *_: idle.append(time.monotonic()))
            assert 2.5 < time.monotonic() - idle[0] < 4
        finally:
            process.kill()


def test_one_that_works_now_and_then_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as it must in a window; the rest it waits, for a GPU."""
    monkeypatch.setattr(builder, "STALL_SECONDS", 1.0)
    code = (
        "import time\n"
        "for _ in range(5):\n"
        "    time.sleep(0.5)\n"
        "    start = time.process_time()\n"
        "    while time.process_time() - start < 0.1: pass\n"
        "print('{\"facts\": {}}', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert builder._listen(process, lambda *_: None)[0] == {"facts": {}}


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
import os, psutil, resource, signal, sys
from pathlib import Path
from edge_lsla.build.tensorrt.builder import build_engine
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.errors import EdgeLslaError

what, model, folder = sys.argv[1:]
def step(done, total, phase):
    if what == "die" and phase != "loading TensorRT":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "die together" and phase != "loading TensorRT":
        workers = psutil.Process().children()
        for one in workers:
            one.kill()
        for one in workers:
            one.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "die written" and phase == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait" and phase != "loading TensorRT":
        psutil.Process().children()[0].suspend()
        print("at work", flush=True)
        sys.stdin.readline()
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
    store.mkdir(exist_ok=True)
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
@pytest.mark.parametrize("what", ["die together", "die written"])
def test_what_killed_builds_left_is_removed_by_the_next(what: str, tiny: dict[str, bytes], tmp_path: Path) -> None:
    """Killed with its worker, or when the engine is written and the worker has nobody to tell."""
    assert call(what, tiny["fp32"], tmp_path).returncode == -signal.SIGKILL
    left = list((tmp_path / "store").iterdir())
    assert len(left) == 1 or what == "die written"  # then the worker may have been quicker
    call("build", small(), tmp_path)
    assert not list((tmp_path / "store").iterdir())


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_killed_builds_among_temporary_files_go_too(
    tiny: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("die together", tiny["fp32"], tmp_path).returncode == -signal.SIGKILL
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "store"))
    assert list((tmp_path / "store").iterdir())
    (tmp_path / "work").mkdir()
    build_engine(small(), SM86, work=tmp_path / "work")
    assert not list((tmp_path / "store").iterdir())


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_a_build_at_work_keeps_its_folder(tiny: dict[str, bytes], tmp_path: Path) -> None:
    """Also while nothing but its worker lives, which holds the lock as well."""
    model, store = tmp_path / "m.onnx", tmp_path / "store"
    model.write_bytes(tiny["fp32"])
    store.mkdir()
    command = [sys.executable, "-c", CALLER, "wait", str(model), str(store)]
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{RTX}"}
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "at work\n"
        (folder,) = store.iterdir()
        build_engine(small(), SM86, work=store)
        assert list(store.iterdir()) == [folder]
        (worker,) = psutil.Process(caller.pid).children()
        caller.kill()
        caller.wait()
        try:
            build_engine(small(), SM86, work=store)
            assert list(store.iterdir()) == [folder]
        finally:
            worker.kill()
        end = time.monotonic() + 10
        while worker.is_running() and time.monotonic() < end:
            time.sleep(0.02)
    build_engine(small(), SM86, work=store)
    assert not list(store.iterdir())


@needs_rtx
def test_asking_for_the_version_leaves_nothing(tmp_path: Path) -> None:
    """Killed at any moment: there is no folder to leave."""
    code = (
        "import os, signal, sys\n"
        "from edge_lsla.build.tensorrt import builder\n"
        "def killed(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "builder._listen = killed\n"
        "builder.describe_runtime('tensorrt-rtx')"
    )
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{RTX}", "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tiny: dict[str, bytes], tmp_path: Path) -> None:
    """The limit on file sizes stands for the disk: the graph fits below it, the engine does not."""
    result = call("fill", tiny["fp32"], tmp_path)
    store = tmp_path / "store"
    assert result.stdout == f"1 cannot write the engine (File too large): {store}; free some space there\n", (
        result.stderr
    )
    assert not list(store.iterdir())


SMALL_DISK = """
set -e
mount -t tmpfs -o size=64k none "$1"
TMPDIR="$1" exec "$2" -c "$3" "$4" "$5" "$6"
"""


@pytest.mark.parametrize("given", [True, False])
def test_a_full_folder_is_named_before_the_work(given: bool, tiny: dict[str, bytes], tmp_path: Path) -> None:
    """A real file system of 64 KiB, in a name space of its own; the graph of 470 KB does not fit."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a file system of his own")
    disk, model = tmp_path / "disk", tmp_path / "m.onnx"
    disk.mkdir()
    model.write_bytes(tiny["fp32"])
    caller = CALLER if given else CALLER.replace("work=Path(folder)", "work=None")
    command = ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(disk), sys.executable, caller, "build", str(model)]
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{RTX}"}
    done = subprocess.run([*command, str(disk)], env=variables, capture_output=True, text=True, timeout=60, check=False)
    where = "" if given else ", or set TMPDIR to another folder"
    wanted = f"1 cannot write the build's files (No space left on device): {disk}; free some space there{where}\n"
    assert done.stdout == wanted, done.stderr


@pytest.mark.usefixtures("rtx")
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, why in (("none", "No such file or directory"), ("file", "Not a directory")):
        with pytest.raises(
            UnwritableError, match=rf"cannot write the build's files \({why}\): .*{name}; make it a folder"
        ):
            build_engine(small(), SM86, work=tmp_path / name)


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_what_was_never_locked_is_removed_a_day_later(tmp_path: Path) -> None:
    """On a file system without locks, and between two steps of making a folder."""
    old, new, other = tmp_path / f"{PREFIX}old", tmp_path / f"{PREFIX}new", tmp_path / "building-site"
    for folder in (old, new, other):
        folder.mkdir()
        (folder / "plan").write_bytes(b"half")
        os.utime(folder, (0, 0))
    os.utime(new)
    (tmp_path / f"{PREFIX}link").symlink_to(other)
    build_engine(small(), SM86, work=tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["building-site", f"{PREFIX}link", f"{PREFIX}new"]
    assert (other / "plan").exists()


def test_a_folder_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between making the lock's file and holding it, in which another build looks."""
    flock, calls = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not calls:  # another build is quicker, and done
            (folder,) = tmp_path.iterdir()
            shutil.rmtree(folder)
        calls.append(how)
        flock(handle, how)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # which is swept too
    monkeypatch.setattr(work.fcntl, "flock", late)
    with work.work_folder(tmp_path, 0) as made:
        assert len(calls) == 2
        assert (made.path / work.LOCK).exists()
    assert not list(tmp_path.iterdir())
