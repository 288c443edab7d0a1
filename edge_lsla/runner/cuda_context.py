"""CUDA through pycuda: the primary context, memory, streams and events; see `edge_lsla.runner.gpu`.

Facts of pycuda 2026.1 that shape this file, read from its source:
- `Context.detach` of a primary context releases nothing unless it is current or the thread is its first one, and leaves
  it on CUDA's stack. So it is retained once a process, as TensorRT does, and detached, while current, at the end;
  left to its destructor it would be released by the wrong call, with a warning on standard error.
- Buffers, streams and events may be freed in any thread, if the context object that they were made under is current
  there; otherwise they leak with a warning.
- A thread that ends with a context on pycuda's stack aborts the process: every push has its pop.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import EdgeLslaError, MissingComponentError, UsageError
from edge_lsla.runner import cuda_graphs
from edge_lsla.runner.gpu import DeviceMemory

LIBCUDA = "libcuda.so.1"
OTHERWISE = "or use the backend onnxruntime"
_NO_DEVICE, _NOT_INITIALISED = 100, 3  # cuda.h, CUresult
_contexts = threading.Lock()


def check_gpu(device: int = 0, libcuda: str = LIBCUDA) -> None:
    """See that there are a driver and this GPU, before anything is asked to be installed for them.

    Raises:
        MissingComponentError: no driver, or no GPU.
        UsageError: no GPU of this number.
        EdgeLslaError: the driver is broken, or this process is a fork of one that uses CUDA.
    """
    try:
        cuda = ctypes.CDLL(libcuda)
    except OSError as error:
        raise MissingComponentError(
            "there is no NVIDIA driver", libcuda, f"install it (JetPack brings it), {OTHERWISE}"
        ) from error
    code, count = cuda.cuInit(0), ctypes.c_int()
    if code == _NOT_INITIALISED:
        raise EdgeLslaError(
            "CUDA does not work in a fork of a process that used it", "cuInit", "start processes with `spawn`"
        )
    if code not in (0, _NO_DEVICE):
        raise EdgeLslaError("the CUDA driver does not start", f"error {code}", f"see `doctor`, {OTHERWISE}")
    if code == _NO_DEVICE or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise MissingComponentError("there is no NVIDIA GPU", "the driver finds none", f"see `doctor`, {OTHERWISE}")
    if device >= count.value:
        raise UsageError(f"there is no GPU {device}", "device", f"give a number from 0 to {count.value - 1}")


def import_pycuda() -> Any:
    """Return pycuda.driver, imported late.

    Raises:
        MissingComponentError: it is not installed, or was built for another machine.
    """
    # Its C++ part is compiled on the machine, so the toolkit must be there.
    install = "pip install pycuda (it needs a C++ compiler and the CUDA toolkit: on a Jetson, apt install cuda-toolkit)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns, guessing at a reason, before it fails
            return importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        raise MissingComponentError("pycuda is not installed", f"Python has no module {error.name}", install) from error
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise MissingComponentError(
            "pycuda does not load", reason, "pip install --force-reinstall --no-cache-dir pycuda"
        ) from error


@contextlib.contextmanager
def translated(cuda: Any, doing: str) -> Iterator[None]:
    """Turn pycuda's exceptions into ours: the one place where that happens."""
    try:
        yield
    except cuda.MemoryError as error:
        raise EdgeLslaError(
            "GPU memory ran out", doing, "close other programs, or build the engine with a smaller largest batch"
        ) from error
    except cuda.Error as error:
        raise EdgeLslaError(
            f"CUDA failed while {doing}", str(error).splitlines()[0][:200], "run `doctor`; restart the program"
        ) from error


class _Primary:
    """A retained primary context; `_primary` keeps one of each GPU to the end of the process."""

    def __init__(self, device: int) -> None:
        cuda = import_pycuda()
        with translated(cuda, "starting"):
            cuda.init()
            self.context = cuda.Device(device).retain_primary_context()
        # Not `atexit`: finalisers run newest first, so this one comes after those of all runners.
        weakref.finalize(self, _detach, self.context, cuda.Error, os.getpid())


_primary = functools.cache(_Primary)


def _detach(context: Any, error: type[Exception], process: int) -> None:
    if os.getpid() == process:
        with contextlib.suppress(error):  # nobody is left to hear it
            context.push()
            context.detach()


class CudaGpu:
    """A GPU through pycuda; see `edge_lsla.runner.gpu.Gpu`.

    Args:
        device: its number, as CUDA counts.

    Raises:
        MissingComponentError: pycuda is absent.
        EdgeLslaError: CUDA does not start.
    """

    def __init__(self, device: int = 0) -> None:
        self._cuda = import_pycuda()
        with _contexts:
            self._context = _primary(device).context
        self.no_graphs: str | None = None
        self._graphs: Any = None
        try:
            self._graphs = cuda_graphs.import_driver()
        except MissingComponentError as error:
            self.no_graphs = str(error)
        with translated(self._cuda, "reading the GPU's name"):
            found = self._cuda.Device(device)
            major, minor = found.compute_capability()
            self._description = {"device": found.name(), "capability": f"{major}.{minor}"}

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Push the primary context for this thread, and pop it."""
        with translated(self._cuda, "entering the GPU's context"):
            self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def allocate(self, size: int) -> CudaMemory:
        """Allocate so many bytes; CUDA aligns to 256 and more."""
        return CudaMemory(self._cuda, size)

    def page_lock(self, shape: tuple[int, ...]) -> PageLocked:
        """Allocate a zeroed float32 array."""
        return PageLocked(self._cuda, shape)

    def stream(self) -> CudaStream:
        """Make a stream."""
        return CudaStream(self._cuda, self._graphs)

    def memory(self) -> tuple[int, int]:
        """Return the free and the total memory, bytes."""
        with translated(self._cuda, "asking for free memory"):
            free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def describe(self) -> dict[str, Any]:
        """Return name and compute capability."""
        return dict(self._description)


class CudaMemory:
    """GPU memory; see `edge_lsla.runner.gpu.DeviceMemory`."""

    def __init__(self, cuda: Any, size: int) -> None:
        with translated(cuda, f"allocating {size / 2**20:.1f} MB"):
            self._allocation = cuda.mem_alloc(size)
        self.address, self.size = int(self._allocation), size

    def close(self) -> None:
        """Free it."""
        self._allocation.free()


class PageLocked:
    """Page-locked memory; see `edge_lsla.runner.gpu.HostMemory`."""

    def __init__(self, cuda: Any, shape: tuple[int, ...]) -> None:
        with translated(cuda, f"page-locking {4 * int(np.prod(shape)) / 2**20:.1f} MB"):
            whole = cuda.pagelocked_empty(shape, np.float32)
        self._allocation: Any = whole.base
        self.array: NDArray[np.float32] = whole
        self.array.fill(0)

    def close(self) -> None:
        """Free it; no view of the array may be read again."""
        self.array = np.empty(0, np.float32)
        self._allocation.free()


class CudaStream:
    """A stream with two events to time it; see `edge_lsla.runner.gpu.Stream`."""

    def __init__(self, cuda: Any, graphs: Any) -> None:
        self._cuda, self._graphs = cuda, graphs
        with translated(cuda, "making a stream"):
            self._stream = cuda.Stream()
            self._events = (cuda.Event(), cuda.Event())
        self.handle = int(self._stream.handle)

    def copy_in(self, memory: DeviceMemory, array: NDArray[np.float32]) -> None:
        """Start a copy to the GPU."""
        with translated(self._cuda, "copying images to the GPU"):
            self._cuda.memcpy_htod_async(memory.address, array, self._stream)

    def copy_out(self, array: NDArray[np.float32], memory: DeviceMemory) -> None:
        """Start a copy from the GPU."""
        with translated(self._cuda, "copying logits from the GPU"):
            self._cuda.memcpy_dtoh_async(array, memory.address, self._stream)

    def synchronise(self) -> None:
        """Wait; other Python threads go on."""
        with translated(self._cuda, "computing"):
            self._stream.synchronize()

    def timed(self, work: Callable[[], None]) -> float:
        """Time work by events, milliseconds."""
        before, after = self._events
        with translated(self._cuda, "computing"):
            before.record(self._stream)
            work()
            after.record(self._stream)
            after.synchronize()
            return float(before.time_till(after))

    def capture(self, work: Callable[[], None]) -> cuda_graphs.CudaGraph:
        """Record work as a graph."""
        return cuda_graphs.capture(self._graphs, self.handle, work)

    def close(self) -> None:
        """Free it: pycuda does, once nothing refers to it."""
        del self._stream, self._events
