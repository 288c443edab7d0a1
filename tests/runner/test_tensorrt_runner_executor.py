"""The logic of the TensorRT runner over host memory; see host_gpu.py."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from host_gpu import CLASSES, PROFILES, SIZE, HostEngine, HostGpu, formula, images

from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.runner import executor as module
from edge_lsla.runner.batches import BatchProfile
from edge_lsla.runner.executor import Executor
from edge_lsla.runner.lanes import OTHERS

SOME = [1, 2, 3, 4, 5, 8, 9, 17, 25]


class Bench:
    """A GPU, an engine on it, and an executor of them."""

    def __init__(self, profiles: tuple[BatchProfile, ...] = PROFILES, graphs: bool = True, **gpu: Any) -> None:
        self.gpu = HostGpu(**gpu)
        self.executor = Executor(self.gpu, lambda: self.keep(HostEngine(self.gpu, profiles)), graphs=graphs)

    def keep(self, engine: HostEngine) -> HostEngine:
        self.engine = engine
        return engine

    def check(self, count: int, seed: int = 0) -> None:
        given = images(count, seed)
        np.testing.assert_array_equal(self.executor.run(given), formula(given))

    def living(self, kind: str) -> list[str]:
        return sorted(made.name for made in self.gpu.living if made.name.startswith(kind))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.executor.close()
    assert bench.gpu.living == []
    assert bench.gpu.depth == 0


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize(
    "profiles", [PROFILES, (BatchProfile(0, 4, 4, 4),), (BatchProfile(0, 3, 5, 7),)], ids=["two", "fixed", "from 3"]
)
def test_any_number_of_images_gives_the_same_numbers(profiles: tuple[BatchProfile, ...], graphs: bool) -> None:
    bench = Bench(profiles, graphs)
    for repeat in range(2):
        for count in SOME:
            bench.check(count, repeat)
    assert bench.executor.graphs == ("on" if graphs else "off: not wanted")
    bench.executor.close()
    assert bench.gpu.living == []


def test_no_images_give_no_logits(bench: Bench) -> None:
    logits = bench.executor.run(images(0))
    assert logits.shape == (0, CLASSES)
    assert logits.dtype == np.float32


def test_images_may_lie_anyhow_in_memory(bench: Bench) -> None:
    given = images(8)[::-2].transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(bench.executor.run(given), formula(np.ascontiguousarray(given)))


def test_answers_are_the_callers_to_keep(bench: Bench) -> None:
    first = bench.executor.run(images(4, 1))
    kept = first.copy()
    bench.executor.run(images(4, 2))
    np.testing.assert_array_equal(first, kept)


def test_a_rest_is_padded_with_zeros_not_with_older_images() -> None:
    bench = Bench((BatchProfile(0, 4, 4, 4),))
    bench.check(4)
    bench.executor.run(images(2))
    memory = next(made for made in bench.gpu.living if made.name == f"memory {4 * 4 * 3 * SIZE * SIZE}")
    pixels = memory.numbers.reshape(4, -1)
    assert pixels[:2].all()
    assert not pixels[2:].any()
    bench.executor.close()


def test_best_batches_are_captured_at_load_and_others_at_their_second_use(bench: Bench) -> None:
    assert bench.executor.graph_batches == (1, 4)
    assert bench.engine.batches == [1] * module.WARM_UP + [4] * module.WARM_UP
    bench.check(3)
    assert bench.executor.graph_batches == (1, 4)
    bench.check(3)
    assert bench.executor.graph_batches == (1, 3, 4)


def test_the_number_of_executions_and_graphs_is_bounded(bench: Bench) -> None:
    for count in [2, 3, 5, 6, 7, 8] * 3:
        bench.check(count)
        bench.check(count)
        assert len(bench.living("execution")) <= len(PROFILES) + OTHERS
        assert len(bench.living("graph")) <= len(PROFILES) + OTHERS
    # The best batches stay, of the others the latest.
    assert bench.executor.graph_batches == (1, 4, 5, 6, 7, 8)
    assert bench.living("execution") == [f"execution {batch}" for batch in (1, 4, 5, 6, 7, 8)]
    bench.check(5)
    bench.check(2)
    assert bench.living("execution") == [f"execution {batch}" for batch in (1, 2, 4, 5, 7, 8)]


def test_an_old_execution_goes_before_a_new_one_is_made(bench: Bench) -> None:
    for count in (2, 3, 5, 6):
        bench.check(count)
    bench.gpu.log.clear()
    bench.check(7)
    assert bench.gpu.log == ["-execution 2", "+execution 7"]


def test_running_makes_nothing_new_once_it_is_warm(bench: Bench) -> None:
    for _ in range(2):
        bench.check(8)
    made = bench.gpu.requests
    for seed in range(100):
        bench.check(8, seed)
    assert bench.gpu.requests == made


def test_without_cuda_python_it_runs_and_says_so() -> None:
    bench = Bench(no_graphs="cuda-python is not installed: CUDA graphs; pip install cuda-python")
    for count in SOME:
        bench.check(count)
    assert bench.executor.graphs == "off: cuda-python is not installed: CUDA graphs; pip install cuda-python"
    assert bench.executor.graph_batches == ()
    bench.executor.close()


def test_a_failed_capture_falls_back_for_good_with_a_fresh_execution() -> None:
    bench = Bench(capture_fails=True)
    assert bench.gpu.log.count("+execution 1") == 2
    assert bench.gpu.log.count("+execution 4") == 1
    for count in SOME * 2:
        bench.check(count)
    assert bench.executor.graphs == "off: CUDA failed while capturing a CUDA graph"
    assert bench.living("graph") == []
    bench.executor.close()
    assert bench.gpu.living == []


def test_what_is_freed_goes_in_the_opposite_order_of_making() -> None:
    bench = Bench()
    made = [entry[1:] for entry in bench.gpu.log]
    bench.gpu.log.clear()
    bench.executor.close()
    freed = [entry[1:] for entry in bench.gpu.log]
    fixed = [name for name in made if not name.startswith(("execution", "graph"))]
    assert fixed[:2] == ["engine", "stream"]
    # A graph before the execution that it was captured from, both before buffers, stream and engine.
    assert freed == ["graph", "execution 4", "graph", "execution 1", *reversed(fixed)]


def test_whatever_step_fails_everything_made_is_freed() -> None:
    whole = Bench()
    steps = whole.gpu.requests
    whole.executor.close()
    assert steps == 1 + 1 + 2 + 3 + 2 * 2
    failed, without_graphs = set(), 0
    for step in range(1, steps + 1):
        gpu = HostGpu(fails_at=step)
        with contextlib.suppress(EdgeLslaError):
            executor = Executor(gpu, lambda gpu=gpu: HostEngine(gpu))  # type: ignore[misc]
            # Only graphs can be done without.
            assert executor.graphs == "off: GPU memory ran out: graph"
            without_graphs += 1
            executor.close()
            failed.add(step)
        assert gpu.living == [], step
        assert gpu.depth == 0
    assert without_graphs == 2
    assert failed == {steps - 2, steps}


def test_an_engine_that_does_not_open_leaves_nothing() -> None:
    gpu = HostGpu()

    def refuse() -> HostEngine:
        raise EdgeLslaError("the engine is of another TensorRT")

    with pytest.raises(EdgeLslaError, match="another TensorRT"):
        Executor(gpu, refuse)
    assert gpu.log == []
    assert gpu.depth == 0


@pytest.mark.parametrize("error", [EdgeLslaError("TensorRT failed"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_failure_while_running_leaves_a_usable_executor(error: BaseException) -> None:
    bench = Bench(graphs=False)
    bench.check(4)
    bench.engine.fails = error
    with pytest.raises(type(error)):
        bench.executor.run(images(4, 1))
    stream = next(made for made in bench.gpu.living if made.name == "stream")
    assert stream.waiting == []  # the copy that had been started is over before its buffer is written again
    bench.engine.fails = None
    bench.check(4, 2)
    bench.executor.close()


def test_four_threads_take_turns(bench: Bench) -> None:
    def work(seed: int) -> None:
        for number in range(40):
            bench.check(1 + (seed + number) % 11, seed)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert bench.gpu.depth == 0


def test_closing_waits_for_the_execution_in_progress_and_then_refuses() -> None:
    bench = Bench(graphs=False)
    started, go = threading.Event(), threading.Event()

    execution = bench.gpu.living[-1]
    enqueue = execution.enqueue

    def slow() -> None:
        started.set()
        assert go.wait(10)
        enqueue()

    execution.enqueue = slow
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(bench.check, 4)
        assert started.wait(10)
        closing = pool.submit(bench.executor.close)
        go.set()
        running.result(10)
        closing.result(10)
    assert bench.gpu.living == []
    bench.executor.close()
    for use in (lambda: bench.executor.run(images(1)), lambda: bench.executor.measure(1, 1)):
        with pytest.raises(UsageError, match="runner is closed"):
            use()
    assert bench.executor.memory()["free"] is None


def test_a_fork_may_neither_run_nor_free(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "getpid", lambda: -1)
        with pytest.raises(UsageError, match="before this process was forked"):
            bench.executor.run(images(1))
        bench.executor.close()
        assert bench.executor.memory()["free"] is None
    bench.check(1)


@pytest.mark.parametrize("graphs", [True, False])
def test_measuring(graphs: bool) -> None:
    bench = Bench(graphs=graphs)
    before = len(bench.engine.batches)
    latency = bench.executor.measure(3, repeats=5, warm_up=2)
    assert bench.engine.batches[before:] == [3] * (1 + 2 + 5)
    assert (latency.batch, latency.repeats, latency.graph) == (3, 5, graphs)
    assert latency.device.median == latency.device.p99 == 0.5
    host = latency.host
    assert 0 < host.least <= host.median <= host.p90 <= host.p99 <= host.most
    assert json.loads(json.dumps(latency.to_dict()))["device"]["median"] == 0.5
    bench.executor.close()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [((9, 1), "no batch of 9 in one go: engine; it takes 1 to 1, 2 to 8"), ((0, 1), "batch is not"),
     ((1, 0), "repeats"), ((1, 1, -1), "warm_up"), ((True, 1), "batch is not"), ((1, 2.0), "repeats")],
)  # fmt: skip
def test_measuring_what_cannot_be(bench: Bench, arguments: tuple[Any, ...], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        bench.executor.measure(*arguments)


def test_memory_is_reported(bench: Bench) -> None:
    page_locked = buffers = 8 * 4 * (3 * SIZE * SIZE + CLASSES)
    made = len(bench.gpu.living)
    assert bench.executor.memory() == {
        "activations": 400, "buffers": buffers, "page_locked": page_locked,
        "taken_at_load": 10 * made, "free": 1000 - 10 * made, "total": 1000,
    }  # fmt: skip


def test_what_a_failing_step_had_in_hand_is_freed_before_the_rest() -> None:
    """Frames of the traceback hold it; an execution context must not outlive its engine and its buffers."""
    order: list[str] = []

    class InHand:
        def __del__(self) -> None:
            order.append("in hand")

    class Failing(HostEngine):
        def execution(self, *arguments: Any) -> Any:
            in_hand = InHand()
            raise EdgeLslaError("TensorRT failed", type(in_hand).__name__)

        def close(self) -> None:
            order.append("engine")
            super().close()

    gpu = HostGpu()
    with pytest.raises(EdgeLslaError, match="InHand"):
        Executor(gpu, lambda: Failing(gpu))
    assert order == ["in hand", "engine"]
    assert gpu.living == []
