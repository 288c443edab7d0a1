"""Run with a stand-in libcuda.so.1 first on LD_LIBRARY_PATH: real pycuda and cuda-python under the executor.

The engine copies the first numbers of each image to its logits, on the stream, so graphs capture it. Prints "done".
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import weakref

import numpy as np

from edge_lsla.errors import EdgeLslaError
from edge_lsla.runner.batches import BatchProfile, Part
from edge_lsla.runner.cuda_context import CudaGpu, check_gpu, import_pycuda
from edge_lsla.runner.executor import Executor
from edge_lsla.runner.gpu import DeviceMemory, Stream

SIZE, CLASSES = 4, 5
# Global, for a pycuda that was linked on a machine without any libcuda.
driver = ctypes.CDLL("libcuda.so.1", ctypes.RTLD_GLOBAL)
driver.stand_in_used.restype = ctypes.c_int64
KINDS = ("memory", "page-locked", "stream", "event", "graph", "executable")


class Copying:
    image_size, classes, activation_bytes = SIZE, CLASSES, 1000
    profiles = (BatchProfile(0, 1, 1, 1), BatchProfile(1, 2, 4, 8))

    def execution(
        self, part: Part, images: DeviceMemory, logits: DeviceMemory, activations: DeviceMemory, stream: Stream
    ) -> CopyingExecution:
        assert activations.size == 1000
        return CopyingExecution(part.batch, images.address, logits.address, stream)

    def close(self) -> None:
        pass


class CopyingExecution:
    def __init__(self, batch: int, images: int, logits: int, stream: Stream) -> None:
        self.arguments = (batch, images, logits, stream)

    def enqueue(self) -> None:
        batch, images, logits, stream = self.arguments
        for row in range(batch):
            to, origin = logits + 4 * CLASSES * row, images + 4 * 3 * SIZE * SIZE * row
            import_pycuda().memcpy_dtod_async(to, origin, 4 * CLASSES, stream._stream)  # type: ignore[attr-defined]

    def no_graph(self) -> None:
        return None

    def close(self) -> None:
        pass


def living() -> dict[str, int]:
    gc.collect()
    return {kind: number for index, kind in enumerate(KINDS) if (number := driver.stand_in_live(index))}


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)


def check(executor: Executor, count: int, seed: int) -> None:
    given = images(count, seed)
    np.testing.assert_array_equal(executor.run(given), given.reshape(count, -1)[:, :CLASSES])


def in_threads(executor: Executor) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(30):
                check(executor, 1 + (seed + number) % 11, seed)
            assert driver.stand_in_depth() == 0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def main() -> None:
    check_gpu(0)
    gpu = CudaGpu()
    assert gpu.no_graphs is None, gpu.no_graphs
    assert gpu.describe() == {"device": "stand-in", "capability": "8.7"}
    for graphs in (True, False):
        executor = Executor(gpu, Copying, graphs=graphs)
        assert executor.graphs == ("on" if graphs else "off: not wanted")
        assert executor.graph_batches == ((1, 4) if graphs else ())
        for count in range(1, 20):
            check(executor, count, count)
        in_threads(executor)
        latency = executor.measure(4, 5)
        assert latency.graph is graphs
        assert latency.device.median == 0.25
        assert executor.memory()["free"] == 2**30 - driver.stand_in_used()
        before = driver.stand_in_used(), living()
        for _ in range(50):
            check(executor, 4, 0)
        assert (driver.stand_in_used(), living()) == before
        thread = threading.Thread(target=executor.close)  # not the thread that made it
        thread.start()
        thread.join()
        assert living() == {}, living()
        executor.close()
    failures = set()
    for calls in range(9):  # two events cannot fail; two graphs can, and then there are none
        driver.stand_in_fail_after(calls)
        try:
            executor = Executor(gpu, Copying)
        except EdgeLslaError as error:
            failures.add(error.what)
        else:
            failures.add(executor.graphs)
            check(executor, 13, 0)
            executor.close()
        assert living() == {}, (calls, living())
    driver.stand_in_fail_after(-1)
    forgotten = Executor(gpu, Copying)
    with gpu.current():
        assert driver.stand_in_depth() == 1
    assert driver.stand_in_depth() == 0
    check(forgotten, 3, 3)
    forgotten.close()
    assert driver.stand_in_complaints() == 0, driver.stand_in_complaints()
    # One that nobody closes: its finaliser, as the runner's, frees it at the interpreter's end without a word.
    left = Executor(gpu, Copying)
    weakref.finalize(gpu, left.close)
    check(left, 5, 5)
    print("\n".join(sorted(failures)))
    print("done")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
