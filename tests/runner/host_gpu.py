"""A GPU and an engine in host memory, behind the interfaces of `edge_lsla.runner.gpu`: nothing of CUDA is imitated.

A stream does its work when somebody waits for it; everything made is counted until it is closed, and `log` keeps the
order. `fails_at` makes the so manieth request fail.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_lsla.errors import EdgeLslaError
from edge_lsla.runner.batches import BatchProfile, Part

SIZE, CLASSES = 4, 5
PROFILES = (BatchProfile(0, 1, 1, 1), BatchProfile(1, 2, 4, 8))


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([count, seed]).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)


def formula(given: np.ndarray) -> np.ndarray:
    """What the engine computes."""
    return given.reshape(len(given), -1)[:, :CLASSES] * np.float32(2) + np.float32(1)


@dataclass
class HostGpu:
    no_graphs: str | None = None
    fails_at: int | None = None
    log: list[str] = field(default_factory=list)
    living: list[Any] = field(default_factory=list)
    requests: int = 0
    inside: threading.local = field(default_factory=threading.local)
    capture_fails: bool = False

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self.inside.depth = self.depth + 1
        try:
            yield
        finally:
            self.inside.depth -= 1

    @property
    def depth(self) -> int:
        return getattr(self.inside, "depth", 0)

    def make(self, made: Any, name: str) -> None:
        assert self.depth, f"{name} outside the context"
        self.requests += 1
        if self.requests == self.fails_at:
            raise EdgeLslaError("GPU memory ran out", name)
        made.gpu, made.name = self, name
        self.living.append(made)
        self.log.append(f"+{name}")

    def gone(self, made: Any) -> None:
        assert self.depth, f"{made.name} freed outside the context"
        self.living.remove(made)  # a second time it is not there
        self.log.append(f"-{made.name}")

    def allocate(self, size: int) -> Memory:
        return Memory(self, size)

    def page_lock(self, shape: tuple[int, ...]) -> Locked:
        return Locked(self, shape)

    def stream(self) -> HostStream:
        return HostStream(self)

    def memory(self) -> tuple[int, int]:
        assert self.depth
        return 1000 - 10 * len(self.living), 1000

    def describe(self) -> dict[str, Any]:
        return {"device": "host"}


class Made:
    gpu: HostGpu
    name: str

    def close(self) -> None:
        self.gpu.gone(self)


class Memory(Made):
    def __init__(self, gpu: HostGpu, size: int) -> None:
        assert size > 0
        self.size, self.address = size, id(self)
        self.numbers = np.full(size // 4, np.nan, np.float32)
        gpu.make(self, f"memory {size}")


class Locked(Made):
    def __init__(self, gpu: HostGpu, shape: tuple[int, ...]) -> None:
        self.array = np.zeros(shape, np.float32)
        gpu.make(self, "page-locked")


class HostStream(Made):
    def __init__(self, gpu: HostGpu) -> None:
        self.handle, self.waiting, self.captured = 7, [], None  # type: ignore[var-annotated]
        gpu.make(self, "stream")

    def start(self, work: Callable[[], None]) -> None:
        assert self.gpu.depth
        (self.waiting if self.captured is None else self.captured).append(work)

    def copy_in(self, memory: Memory, array: np.ndarray) -> None:
        self.start(lambda: memory.numbers.__setitem__(slice(array.size), array.ravel()))

    def copy_out(self, array: np.ndarray, memory: Memory) -> None:
        self.start(lambda: np.copyto(array, memory.numbers[: array.size].reshape(array.shape)))

    def synchronise(self) -> None:
        assert self.captured is None
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()

    def timed(self, work: Callable[[], None]) -> float:
        work()
        self.synchronise()
        return 0.5

    def capture(self, work: Callable[[], None]) -> HostGraph:
        assert not self.waiting, "captured while busy"
        self.captured = []
        try:
            work()
            if self.gpu.capture_fails:
                raise EdgeLslaError("CUDA failed while capturing a CUDA graph")
            return HostGraph(self, self.captured)
        finally:
            self.captured = None

    def close(self) -> None:
        assert not self.waiting, "freed while busy"
        super().close()


class HostGraph(Made):
    def __init__(self, stream: HostStream, works: list[Callable[[], None]]) -> None:
        self.stream, self.works = stream, works
        stream.gpu.make(self, "graph")

    def launch(self) -> None:
        assert self in self.gpu.living
        self.stream.waiting.extend(self.works)


class HostEngine(Made):
    image_size, classes, activation_bytes = SIZE, CLASSES, 400

    def __init__(self, gpu: HostGpu, profiles: tuple[BatchProfile, ...] = PROFILES) -> None:
        self.profiles = profiles
        self.fails: BaseException | None = None
        self.batches: list[int] = []  # as computed
        self.busy = threading.Lock()
        gpu.make(self, "engine")

    def execution(
        self, part: Part, images: Memory, logits: Memory, activations: Memory | None, stream: HostStream
    ) -> HostExecution:
        assert activations is not None
        assert activations.size == self.activation_bytes
        profile = self.profiles[part.profile]
        assert profile.smallest <= part.batch <= profile.largest
        return HostExecution(self, part, images, logits, stream)


class HostExecution(Made):
    def __init__(self, engine: HostEngine, part: Part, images: Memory, logits: Memory, stream: HostStream) -> None:
        self.engine, self.part, self.images, self.logits, self.stream = engine, part, images, logits, stream
        engine.gpu.make(self, f"execution {part.batch}")

    def enqueue(self) -> None:
        if self.engine.fails is not None:
            raise self.engine.fails
        self.stream.start(self.compute)

    def compute(self) -> None:
        assert self in self.gpu.living, "computed after it was freed"
        assert self.engine.busy.acquire(blocking=False), "two at a time"
        batch = self.part.batch
        given = self.images.numbers[: batch * 3 * SIZE * SIZE].reshape(batch, 3, SIZE, SIZE)
        self.logits.numbers[: batch * CLASSES] = formula(given).ravel()
        self.engine.batches.append(batch)
        self.engine.busy.release()

    def no_graph(self) -> str | None:
        return None
