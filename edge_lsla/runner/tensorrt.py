"""The `tensorrt` and `tensorrt-rtx` backends: an engine on an NVIDIA GPU.

It has not run on a GPU yet. Splitting, buffers, graphs' bookkeeping, threads and freeing are tested over host memory,
the CUDA calls over a stand-in for the driver; the TensorRT calls are compared with the APIs of 10.3 to 11.1 and of RTX.

| module | what it holds |
| --- | --- |
| `gpu` | the interfaces between the others |
| `executor`, `lanes`, `batches` | running any number of images, over those interfaces |
| `cuda_context`, `cuda_graphs` | CUDA, through pycuda and cuda-python |
| `tensorrt_engine` | TensorRT |
| `latency`, `profile`, `inspection` | what `measure`, `profile` and `layers` return |
"""

from __future__ import annotations

import os
import weakref
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import GraphError, UsageError
from edge_lsla.runner import cuda_context, tensorrt_engine
from edge_lsla.runner.executor import Executor
from edge_lsla.runner.inspection import EngineLayer, read_layers
from edge_lsla.runner.latency import Latency
from edge_lsla.runner.profile import LayerTime, medians
from edge_lsla.runner.tensorrt_engine import RTX, TENSORRT, TensorRtEngine


class TensorRtRunner:
    """Runs an engine; see `edge_lsla.runner.protocol.Runner`.

    Any number of images may be given: more than the engine's largest batch are run in parts, fewer than its smallest
    are filled up with zeros. Threads take turns.

    Args:
        engine: the serialised engine. It holds native code: pass only what comes from a trusted place.
        backend: "tensorrt" or "tensorrt-rtx".
        where: named in errors.
        plugin_library: for "tensorrt", this project's plugin, if the engine uses it; trusted as well. Loaded for the
            rest of the process.
        device: which GPU, as CUDA counts.
        graphs: use CUDA graphs, where cuda-python is installed and the engine can be captured; `describe` says.

    Raises:
        UsageError: an argument that cannot be used.
        MissingComponentError: no driver, no GPU, no TensorRT, no pycuda, or a plugin that is not there.
        CompatibilityError: the engine is of another TensorRT or GPU.
        GraphError: the engine has other inputs and outputs than `images` and `logits`.
        EdgeLslaError: memory ran out, or the GPU failed. Whatever is raised, nothing of it stays in GPU memory.
    """

    def __init__(
        self,
        engine: bytes,
        backend: str,
        *,
        where: object = "engine",
        plugin_library: str | os.PathLike[str] | None = None,
        device: int = 0,
        graphs: bool = True,
    ) -> None:
        _check(engine, backend, plugin_library, device, where)
        cuda_context.check_gpu(device)
        flavour = tensorrt_engine.load(backend)
        gpu = cuda_context.CudaGpu(device)
        if plugin_library is not None:
            with gpu.current():
                tensorrt_engine.load_plugins(flavour, os.fspath(os.path.abspath(plugin_library)))  # noqa: PTH100
        self.backend = backend
        self._gpu, self._where, self._version, self._plan_bytes = gpu, where, flavour.version, len(engine)
        executor = Executor(gpu, lambda: TensorRtEngine(flavour, engine, where), graphs=graphs, where=where)
        self._executor = executor
        self.image_size, self.classes = executor.image_size, executor.classes
        # Also for a runner that nobody closes: at the interpreter's end this comes before modules and CUDA go.
        self._close = weakref.finalize(self, executor.close)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits float32 [N, classes] of images float32 [N, 3, S, S]; safe to call from several threads.

        Raises:
            UsageError: the images have another shape or type, or the runner is closed.
            EdgeLslaError: the GPU failed.
        """
        self._check_images(images)
        return self._executor.run(images)

    def measure(self, batch: int, repeats: int, warm_up: int = 10) -> Latency:
        """Measure one batch size, alone on this runner: CUDA events, and a synchronised clock of the processor.

        Raises:
            UsageError: the engine does not take this batch in one execution, or the runner is closed.
        """
        return self._executor.measure(batch, repeats, warm_up)

    def layers(self) -> tuple[EngineLayer, ...]:
        """Return the engine's layers, as its inspector tells them.

        Raises:
            UsageError: the runner is closed.
            EdgeLslaError: TensorRT failed.
        """
        return read_layers(self._executor.layers(), self._where)

    def profile(self, images: NDArray[np.float32], repeats: int = 20) -> tuple[LayerTime, ...]:
        """Measure each layer for images float32 [N, 3, S, S], by TensorRT's profiler and without CUDA graphs.

        Layers bear TensorRT's names; `LayerTime.nodes` holds the graph's, as far as the engine tells.

        Raises:
            UsageError: the images have another shape or type or are no batch of the engine, or the runner is closed.
            EdgeLslaError: the GPU failed.
        """
        self._check_images(images)
        rounds = self._executor.profile(images, repeats)
        known = {layer.name: layer for layer in self.layers()}
        times = []
        for name, (milliseconds, calls) in medians(rounds).items():
            layer = known.get(name, EngineLayer(name))
            times.append(LayerTime(name, layer.kind, layer.precision, milliseconds, calls, layer.nodes))
        return tuple(times)

    def describe(self) -> dict[str, Any]:
        """Return the backend's version, device, graphs and memory, JSON-ready."""
        executor = self._executor
        return {
            "backend": self.backend,
            "version": self._version,
            **self._gpu.describe(),
            "profiles": [[profile.smallest, profile.best, profile.largest] for profile in executor.profiles],
            "graphs": executor.graphs,
            "graph_batches": list(executor.graph_batches),
            "memory_bytes": {"engine_file": self._plan_bytes, **executor.memory()},
        }

    def _check_images(self, images: NDArray[np.float32]) -> None:
        size = self.image_size
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise UsageError(
                f"images are {images.dtype} {list(images.shape)}",
                self._where,
                f"they must be float32 [N, 3, {size}, {size}]",
            )

    def close(self) -> None:
        """Give back the GPU's memory, once the execution in progress is done; calling it again does nothing."""
        self._close()

    def __enter__(self) -> TensorRtRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check(engine: object, backend: object, plugin_library: object, device: object, where: object) -> None:
    if backend not in (TENSORRT, RTX):
        raise UsageError(f"no such backend {backend!r}", "backend", f"use {TENSORRT} or {RTX}")
    if not isinstance(engine, bytes) or not engine:
        raise GraphError("engine is empty, or no bytes", where, "build it with `build-engine`")
    if backend == RTX and plugin_library is not None:
        raise UsageError(f"{RTX} takes no plugins", "plugin_library", f"leave it out, or use {TENSORRT}")
    if isinstance(device, bool) or not isinstance(device, int) or device < 0:
        raise UsageError(f"{device!r} is no GPU's number", "device", "give 0 or more")
