"""What the TensorRT runner needs of a GPU and of an engine, as interfaces.

`cuda_context` and `tensorrt_engine` fulfil them with CUDA and TensorRT; tests fulfil them with host memory, and so
check `executor` on machines without a GPU. All calls but `Gpu.current` are made inside `Gpu.current`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.runner.batches import BatchProfile, Part


class DeviceMemory(Protocol):
    """A piece of GPU memory; its maker frees it, once."""

    address: int
    size: int

    def close(self) -> None:
        """Free it."""
        ...


class HostMemory(Protocol):
    """Page-locked memory of the processor, zeroed, which the GPU copies from and to by itself."""

    array: NDArray[np.float32]

    def close(self) -> None:
        """Free it; the array is dangling from then on."""
        ...


class Graph(Protocol):
    """Recorded work, started in one call."""

    def launch(self) -> None:
        """Start it on the stream that it was recorded on; it is done after `Stream.synchronise`."""
        ...

    def close(self) -> None:
        """Free it; the stream must be idle."""
        ...


class Stream(Protocol):
    """Work for the GPU, done in order."""

    handle: int

    def copy_in(self, memory: DeviceMemory, array: NDArray[np.float32]) -> None:
        """Start a copy to the GPU; `array` lies in HostMemory and stays as it is until the stream is synchronised."""
        ...

    def copy_out(self, array: NDArray[np.float32], memory: DeviceMemory) -> None:
        """Start a copy from the GPU into an array in HostMemory."""
        ...

    def synchronise(self) -> None:
        """Wait until all work is done."""
        ...

    def timed(self, work: Callable[[], None]) -> float:
        """Start work, wait for it, and return what it took by the GPU's clock, milliseconds."""
        ...

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record, without doing it, what `work` starts on this stream.

        Raises:
            EdgeLslaError: it cannot be recorded; the stream is usable all the same.
        """
        ...

    def close(self) -> None:
        """Free it; it must be idle."""
        ...


class Gpu(Protocol):
    """A GPU.

    Attributes:
        no_graphs: why nothing can be captured here; None: it can.
    """

    no_graphs: str | None

    def current(self) -> AbstractContextManager[None]:
        """Make this GPU the calling thread's for a block; blocks may be nested."""
        ...

    def allocate(self, size: int) -> DeviceMemory:
        """Allocate so many bytes, > 0, aligned to 256."""
        ...

    def page_lock(self, shape: tuple[int, ...]) -> HostMemory:
        """Allocate a float32 array for copies."""
        ...

    def stream(self) -> Stream:
        """Make a stream of its own, not the default one."""
        ...

    def memory(self) -> tuple[int, int]:
        """Return the free and the total memory, bytes."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return its name and compute capability, JSON-ready; may be called at any time."""
        ...


class Execution(Protocol):
    """An engine made ready for one batch size, with its buffers."""

    def enqueue(self) -> None:
        """Start one inference on the stream that it was made for."""
        ...

    def profile(self) -> list[tuple[str, float]]:
        """Run one inference, wait for it, and return (layer, milliseconds) in the engine's order."""
        ...

    def no_graph(self) -> str | None:
        """Return why it cannot be captured; None: it can."""
        ...

    def close(self) -> None:
        """Free it; the stream must be idle."""
        ...


class Engine(Protocol):
    """A deserialised engine from `images` float32 [N, 3, S, S] to `logits` float32 [N, classes].

    Attributes:
        image_size: S, pixels.
        classes: length of a row of logits.
        profiles: at least one.
        activation_bytes: scratch memory of an execution with the largest batch; 0: none.
    """

    image_size: int
    classes: int
    profiles: tuple[BatchProfile, ...]
    activation_bytes: int

    def execution(
        self, part: Part, images: DeviceMemory, logits: DeviceMemory, activations: DeviceMemory | None, stream: Stream
    ) -> Execution:
        """Make an execution; those that share memory must not run at the same time."""
        ...

    def layers(self) -> str:
        """Return what it says of its layers, JSON; see `inspection.read_layers`."""
        ...

    def close(self) -> None:
        """Free it, after all its executions."""
        ...
