"""Running an engine for any number of images, from any thread: buffers, executions, CUDA graphs, and who frees what."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.runner.batches import Part, split
from edge_lsla.runner.gpu import DeviceMemory, Engine, Gpu, HostMemory, Stream
from edge_lsla.runner.lanes import Lanes
from edge_lsla.runner.latency import Latency, Percentiles
from edge_lsla.runner.profile import check_profile

WARM_UP = 3  # executions of each best batch at load: libraries load code, clocks rise
MOST_REPEATS = 1_000_000


class Executor:
    """Owns an engine, its buffers and one stream on a GPU; one execution at a time, whatever thread asks.

    Everything is made here, in this order: engine, stream, buffers, executions with their graphs. It is freed in the
    opposite order by `close`, and when making one of them fails.

    Args:
        gpu: where.
        open_engine: deserialises the engine; called once.
        graphs: whether to use CUDA graphs, where they can be had.
        where: named in errors.

    Raises:
        EdgeLslaError: whatever the GPU or the engine raises; nothing is left behind.
    """

    def __init__(
        self, gpu: Gpu, open_engine: Callable[[], Engine], *, graphs: bool = True, where: object = "engine"
    ) -> None:
        self._gpu, self._where = gpu, where
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._open = False
        with gpu.current(), contextlib.ExitStack() as made:
            try:
                before, _ = gpu.memory()
                engine = open_engine()
                made.callback(engine.close)
                self.image_size, self.classes, self.profiles = engine.image_size, engine.classes, engine.profiles
                self.activation_bytes = engine.activation_bytes
                self._engine = engine
                self._make_buffers(made, engine)
                self._lanes = Lanes(
                    engine, self._stream, self._images, self._logits, self._activations,
                    (self._host_images.array, self._host_logits.array),
                    no_graphs=gpu.no_graphs if graphs else "not wanted",
                )  # fmt: skip
                made.callback(self._lanes.close)
                # An execution or a copy that was started may still use what is freed next.
                made.callback(self._settle)
                self._lanes.prepare(WARM_UP)
                self._stream.synchronise()
                after, _ = gpu.memory()
                self.taken_bytes = max(0, before - after)
            except BaseException as error:
                # A traceback keeps the frames it went through, and they what was being made: until after the rest.
                traceback.clear_frames(error.__traceback__)
                raise
            self._made = made.pop_all()
            self._open = True

    def _make_buffers(self, made: contextlib.ExitStack, engine: Engine) -> None:
        def keep(resource: Any) -> Any:
            made.callback(resource.close)
            return resource

        batch = max(profile.largest for profile in engine.profiles)
        shape, row = (batch, 3, engine.image_size, engine.image_size), (batch, engine.classes)
        size = np.dtype(np.float32).itemsize
        self._stream: Stream = keep(self._gpu.stream())
        self._host_images: HostMemory = keep(self._gpu.page_lock(shape))
        self._host_logits: HostMemory = keep(self._gpu.page_lock(row))
        self._images: DeviceMemory = keep(self._gpu.allocate(size * int(np.prod(shape))))
        self._logits: DeviceMemory = keep(self._gpu.allocate(size * int(np.prod(row))))
        # One for all executions: they never run at the same time, and each of its own would cost as much again.
        self._activations: DeviceMemory | None = None
        if engine.activation_bytes:
            self._activations = keep(self._gpu.allocate(engine.activation_bytes))
        self.buffer_bytes = self._images.size + self._logits.size
        self.page_locked_bytes = self._host_images.array.nbytes + self._host_logits.array.nbytes

    @property
    def graphs(self) -> str:
        """Return "on", or why there are none."""
        reason = self._lanes.no_graphs
        return "on" if reason is None else f"off: {reason}"

    @property
    def graph_batches(self) -> tuple[int, ...]:
        """Return the batch sizes that have a graph now."""
        return self._lanes.captured

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits float32 [N, classes] of images float32 [N, 3, S, S], for any N."""
        logits = np.empty((len(images), self.classes), np.float32)
        with self._entered():
            first = 0
            for part in split(len(images), self.profiles):
                rows = slice(first, first + part.images)
                first += part.images
                self._put(images[rows], part.batch)
                with self._settled_on_failure():
                    self._lanes.take(part).run()
                    self._stream.synchronise()
                logits[rows] = self._host_logits.array[: part.images]
        return logits

    def measure(self, batch: int, repeats: int, warm_up: int = 10) -> Latency:
        """Measure executions of zeros, of one batch size, with nothing else of this executor in between.

        Raises:
            UsageError: no profile takes this batch in one execution, or `repeats` or `warm_up` make no sense.
        """
        for name, value, least in (("batch", batch, 1), ("repeats", repeats, 1), ("warm_up", warm_up, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_REPEATS:
                raise UsageError(f"{name} is not a number from {least} to {MOST_REPEATS}", name, "correct it")
        part = self._whole(batch)
        zeros = np.zeros((batch, 3, self.image_size, self.image_size), np.float32)
        logits = np.empty((batch, self.classes), np.float32)
        device, host = [], []
        with self._entered(), self._settled_on_failure():
            lane = self._lanes.take(part)
            lane.run()
            self._stream.synchronise()
            lane = self._lanes.take(part)  # captured now, if it can be
            for round_ in range(warm_up + repeats):
                started = time.perf_counter()
                self._put(zeros, batch)
                milliseconds = self._stream.timed(lane.run)
                logits[:] = self._host_logits.array[:batch]
                ended = time.perf_counter()
                if round_ >= warm_up:
                    device.append(milliseconds)
                    host.append(1000 * (ended - started))
        return Latency(batch, repeats, lane.has_graph, Percentiles.of(device), Percentiles.of(host))

    def profile(self, images: NDArray[np.float32], repeats: int) -> list[list[tuple[str, float]]]:
        """Measure layers for images float32 [N, 3, S, S], in an execution of its own and without a CUDA graph.

        Returns:
            For each inference, (layer, milliseconds) as the engine reports them.

        Raises:
            UsageError: no profile takes this batch in one execution, or `repeats` cannot be used.
        """
        check_profile(len(images), repeats)
        part = self._whole(len(images))
        with self._entered():
            execution = self._engine.execution(part, self._images, self._logits, self._activations, self._stream)
            try:
                self._put(images, part.batch)
                self._stream.copy_in(self._images, self._host_images.array[: part.batch])
                return [execution.profile() for _ in range(WARM_UP + repeats)][WARM_UP:]
            finally:
                self._settle()  # also when it failed: what is freed next may still be used
                execution.close()

    def layers(self) -> str:
        """Return what the engine says of its layers, JSON.

        Raises:
            UsageError: the executor is closed.
        """
        with self._entered():
            return self._engine.layers()

    def memory(self) -> dict[str, int | None]:
        """Return memory in bytes, JSON-ready; `free` and `total` of the GPU are None once this is closed."""
        free = total = None
        with self._lock:
            if self._open and os.getpid() == self._process:
                with self._gpu.current():
                    free, total = self._gpu.memory()
        return {
            "activations": self.activation_bytes,
            "buffers": self.buffer_bytes,
            "page_locked": self.page_locked_bytes,
            # By what was free before and after: weights and code as well, and whatever others took meanwhile.
            "taken_at_load": self.taken_bytes,
            "free": free,
            "total": total,
        }

    def close(self) -> None:
        """Free everything, once the execution in progress is done; calling it again does nothing."""
        if os.getpid() != self._process:
            return  # a fork has none of this, and may not call CUDA
        with self._lock:
            if self._open:
                self._open = False
                with self._gpu.current():
                    self._made.close()

    def _whole(self, batch: int) -> Part:
        """Return the one execution that takes a batch.

        Raises:
            UsageError: there is none.
        """
        parts = split(batch, self.profiles)
        if len(parts) != 1 or parts[0].batch != batch:
            taken = ", ".join(f"{profile.smallest} to {profile.largest}" for profile in self.profiles)
            raise UsageError(f"the engine takes no batch of {batch} in one go", self._where, f"it takes {taken}")
        return parts[0]

    @contextlib.contextmanager
    def _entered(self) -> Any:
        if os.getpid() != self._process:
            raise UsageError("runner was made before this process was forked", self._where, "open the bundle again")
        with self._lock:
            if not self._open:
                raise UsageError("runner is closed", self._where, "open the bundle again")
            with self._gpu.current():
                yield

    @contextlib.contextmanager
    def _settled_on_failure(self) -> Any:
        try:
            yield
        except BaseException:  # Ctrl-C too: the next call writes into buffers that the GPU may still be reading
            self._settle()
            raise

    def _settle(self) -> None:
        with contextlib.suppress(EdgeLslaError):  # what failed before is what the caller must hear
            self._stream.synchronise()

    def _put(self, images: NDArray[np.float32], batch: int) -> None:
        self._host_images.array[: len(images)] = images
        self._host_images.array[len(images) : batch] = 0
