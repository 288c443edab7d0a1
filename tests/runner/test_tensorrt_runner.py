"""The TensorRT runner on a machine without a GPU: what it says, with the real package where one is installed."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_lsla.errors import CompatibilityError, EdgeLslaError, GraphError, MissingComponentError, UsageError
from edge_lsla.runner.cuda_context import LIBCUDA, check_gpu
from edge_lsla.runner.tensorrt import TensorRtRunner
from edge_lsla.runner.tensorrt_engine import explain

ROOT = Path(__file__).parents[2]
RTX = next(iter(sorted((Path(sys.prefix) / "runtimes").glob("tensorrt-rtx-*"), reverse=True)), None)
needs_rtx = pytest.mark.skipif(RTX is None, reason="tensorrt-rtx is not installed (make runtimes)")
NO_DRIVER = "there is no NVIDIA driver: libcuda.so.1; install it (JetPack brings it), or use the backend onnxruntime"
PRINT_ERROR = """
import sys
from edge_lsla.errors import EdgeLslaError
from edge_lsla.runner.tensorrt import TensorRtRunner
try:
    TensorRtRunner(open(sys.argv[2], "rb").read(), sys.argv[1], where="x.lsla: engine")
except EdgeLslaError as error:
    print(type(error).__name__, error.exit_code, error)
"""
# Without the check for a GPU: how far TensorRT itself comes.
READ_ENGINE = """
import os, sys
from edge_lsla.errors import EdgeLslaError
from edge_lsla.runner.tensorrt_engine import TensorRtEngine, load
try:
    TensorRtEngine(load("tensorrt-rtx"), open(sys.argv[2], "rb").read(), "x.lsla: engine")
except EdgeLslaError as error:
    print(type(error).__name__, error.exit_code, error, flush=True)
os._exit(0)  # not through the destructors, which may crash without a GPU
"""


@functools.cache
def has_driver() -> bool:
    try:
        ctypes.CDLL(LIBCUDA)
    except OSError:
        return False
    return True


no_driver = pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
compiled = [
    pytest.mark.compiler,
    pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler for a stand-in of the CUDA driver"),
]


def stand_in(folder: Path, *definitions: str) -> Path:
    path = folder / "libcuda.so.1"
    source = Path(__file__).parent / "stand_in_cuda.c"
    options = ["-shared", "-fPIC", "-D_GNU_SOURCE", *definitions]
    subprocess.run(["cc", *options, str(source), "-o", str(path), "-ldl", "-lpthread"], check=True)
    return path


def python(
    script: str, *arguments: str, packages: Path | None = None, libraries: Path | None = None
) -> tuple[str, str]:
    """Run a script; return its standard output and error."""
    paths = [str(ROOT), *([str(packages)] if packages else [])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LD_LIBRARY_PATH": str(libraries or "")}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip(), done.stderr.strip()


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan"
    path.write_bytes(b"no engine" * 1000)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"backend": "onnxruntime"}, UsageError, "no such backend 'onnxruntime': backend; use tensorrt or"),
        ({"engine": b""}, GraphError, "engine is empty"),
        ({"engine": "x"}, GraphError, "no bytes"),
        ({"plugin_library": "x.so"}, UsageError, "takes no plugins"),
        ({"device": -1}, UsageError, "GPU's number"),
        ({"device": True}, UsageError, "GPU's number"),
        ({"device": "0"}, UsageError, "GPU's number"),
    ],
)
def test_arguments_are_checked_before_anything_is_loaded(
    arguments: dict[str, Any], error: type[EdgeLslaError], match: str
) -> None:
    with pytest.raises(error, match=match):
        TensorRtRunner(**{"engine": b"plan", "backend": "tensorrt-rtx", **arguments})


@no_driver
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_without_a_driver_it_says_so_before_it_asks_for_packages(backend: str) -> None:
    with pytest.raises(MissingComponentError) as caught:
        TensorRtRunner(b"plan", backend)
    assert str(caught.value) == NO_DRIVER


@no_driver
@needs_rtx
def test_with_tensorrt_and_without_a_driver_it_says_the_same(plan: str) -> None:
    out, err = python(PRINT_ERROR, "tensorrt-rtx", plan, packages=RTX)
    assert out == f"MissingComponentError 3 {NO_DRIVER}"
    assert err == ""


@no_driver
@needs_rtx
def test_tensorrt_refuses_what_is_no_engine(plan: str) -> None:
    """The real runtime reads it: the sentence comes from what it logged."""
    out, _ = python(READ_ENGINE, "tensorrt-rtx", plan, packages=RTX)
    assert out == (
        "CompatibilityError 4 this is no engine of this TensorRT: x.lsla: engine; build it again with `build-engine`"
    )


class TestStandInDriver:
    pytestmark = compiled

    @pytest.mark.parametrize(
        ("definition", "error", "words"),
        [
            ("-DINIT=100", MissingComponentError,
             "there is no NVIDIA GPU: the driver finds none; see `doctor`, or use the backend onnxruntime"),
            ("-DGPUS=0", MissingComponentError,
             "there is no NVIDIA GPU: the driver finds none; see `doctor`, or use the backend onnxruntime"),
            ("-DINIT=803", EdgeLslaError,
             "the CUDA driver does not start: error 803; see `doctor`, or use the backend onnxruntime"),
            ("-DINIT=3", EdgeLslaError,
             "CUDA does not work in a fork of a process that used it: cuInit; start processes with `spawn`"),
            ("-DGPUS=1", UsageError, "there is no GPU 1: device; give a number from 0 to 0"),
        ],
    )  # fmt: skip
    def test_what_the_driver_says_is_told(
        self, tmp_path: Path, definition: str, error: type[EdgeLslaError], words: str
    ) -> None:
        with pytest.raises(EdgeLslaError) as caught:
            check_gpu(1, str(stand_in(tmp_path, definition)))
        assert type(caught.value) is error
        assert str(caught.value) == words

    def test_a_gpu_is_found(self, tmp_path: Path) -> None:
        check_gpu(0, str(stand_in(tmp_path)))

    @pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="tensorrt is installed")
    def test_a_gpu_without_tensorrt(self, tmp_path: Path, plan: str) -> None:
        stand_in(tmp_path)
        out, err = python(PRINT_ERROR, "tensorrt", plan, libraries=tmp_path)
        assert out.startswith("MissingComponentError 3 TensorRT is not installed: Python has no module tensorrt; ")
        assert "JetPack brings it" in out
        assert err == ""

    @needs_rtx
    @pytest.mark.skipif(importlib.util.find_spec("pycuda") is not None, reason="pycuda is installed")
    def test_a_gpu_and_tensorrt_without_pycuda(self, tmp_path: Path, plan: str) -> None:
        stand_in(tmp_path)
        out, err = python(PRINT_ERROR, "tensorrt-rtx", plan, packages=RTX, libraries=tmp_path)
        assert out == (
            "MissingComponentError 3 pycuda is not installed: Python has no module pycuda; pip install pycuda "
            "(it needs a C++ compiler and the CUDA toolkit: on a Jetson, apt install cuda-toolkit)"
        )
        assert err == ""

    @needs_rtx
    def test_a_pycuda_that_does_not_load(self, tmp_path: Path, plan: str) -> None:
        """As after an update of CUDA or Python: its compiled half is missing."""
        stand_in(tmp_path)
        package = tmp_path / "pycuda"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "driver.py").write_text(
            "import warnings\nwarnings.warn('a guess')\nraise ImportError('libcurand.so.10: cannot open\\nmore')\n"
        )
        script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PRINT_ERROR}"
        out, err = python(script, "tensorrt-rtx", plan, packages=RTX, libraries=tmp_path)
        assert out == (
            "MissingComponentError 3 pycuda does not load: libcurand.so.10: cannot open; "
            "pip install --force-reinstall --no-cache-dir pycuda"
        )
        assert err == ""

    @pytest.mark.skipif(
        importlib.util.find_spec("pycuda") is None or importlib.util.find_spec("cuda") is None,
        reason="pycuda and cuda-python are not installed",
    )
    def test_the_executor_over_pycuda_and_cuda_python(self, tmp_path: Path) -> None:
        """Numbers, threads, leaks, lost contexts, and each allocation failing; see cuda_probe.py."""
        found = importlib.util.find_spec("pycuda._driver")
        assert found is not None
        driver = str(found.origin)
        symbols = subprocess.run(["nm", "-Du", driver], capture_output=True, text=True, check=True).stdout.split()
        wanted = {symbol for symbol in symbols if symbol.startswith("cu") and symbol[2:3].isupper()}
        made = subprocess.run(
            ["nm", "-D", "--defined-only", str(stand_in(tmp_path))], capture_output=True, text=True, check=True
        ).stdout.split()
        stand_in(tmp_path, "-DSTUBS=" + " ".join(f"STUBBED({symbol})" for symbol in sorted(wanted - set(made))))
        probe = (Path(__file__).parent / "cuda_probe.py").read_text(encoding="utf-8")
        out, err = python(probe, libraries=tmp_path)
        assert out.splitlines()[-1] == "done"
        assert err == ""


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("IPluginRegistry::getCreator: Error Code 4: API Usage Error (Cannot find plugin: LslaAttention, version: 1, "
         "namespace:.)", MissingComponentError, "no plugin resolves edge_lsla::LslaAttention: x; build the plugin on"),
        ("getPluginCreator could not find plugin: Other version: 1", MissingComponentError,
         "the engine needs a plugin Other, which nothing here provides: x; build it again here"),
        ("[defaultAllocator.cpp::allocate::58] Error Code 1: Cuda Runtime (out of memory)", EdgeLslaError,
         "memory ran out while reading the engine: x; close other programs"),
        ("Error Code 2: OutOfMemory (Requested size was 33554432 bytes.)", EdgeLslaError,
         "memory ran out while reading the engine: x"),
        ("IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion "
         "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 239, "
         "Serialized Engine Version: 238)", CompatibilityError, "the engine is of another TensorRT (238, here 239)"),
        ("The engine plan file is generated on an incompatible device, expecting compute 8.7 got compute 8.6, please "
         "rebuild.", CompatibilityError, "the engine is for compute capability 8.6, this GPU has 8.7"),
        ("Error Code 1: Cuda Driver (cudaError 35: CUDA driver version is insufficient for CUDA runtime version)",
         MissingComponentError, "the NVIDIA driver is too old for this TensorRT, or does not start: x; update the"),
        ("Error Code 1: Myelin (something new)", EdgeLslaError, "TensorRT failed while reading the engine: x; use "
         "another backend, or report it (Error Code 1: Myelin (something new))"),
    ],
    ids=["our plugin", "another plugin", "allocator", "requested size", "version", "capability", "driver", "unknown"],
)  # fmt: skip
def test_what_tensorrt_says_is_translated(line: str, error: type[EdgeLslaError], words: str) -> None:
    """Words of TensorRT 8 to 10 from published logs; none could be provoked here."""
    told = explain([line], "reading the engine", "x")
    assert type(told) is error
    assert str(told).startswith(words)
