"""Small bundles that run, and the real runner behind the slots' protocol."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_lsla.bundle import GoldenSet, NewArtifact, Passport, Tolerance, write_bundle
from edge_lsla.preprocessing import Preprocessing, normalise
from edge_lsla.runner.model import SelfTest, load
from edge_lsla.slots.comparison import Answers, Crop
from edge_lsla.slots.settings import SlotSettings

LABELS = ("ant", "bee", "lady beetle")
SIDE = 32

# A trial that is over as soon as its few batches are.
QUICK = SlotSettings(shadow_batches=3, shadow_seconds=0, shadow_share=1, probation_seconds=0, probation_batches=3,
                     latency_ratio=1000, latency_window_seconds=0, spare_memory_mb=0, spare_disk_mb=0)  # fmt: skip


@functools.cache
def network() -> bytes:
    """An ONNX file: a convolution, its mean over the picture, three classes."""
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["map"], "convolution", strides=[4, 4]),
        helper.make_node("Relu", ["map"], ["positive"], "relu"),
        helper.make_node("ReduceMean", ["positive"], ["means"], "mean", axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "head"], ["logits"], "head"),
    ]
    weights = [
        numpy_helper.from_array(rng.standard_normal((8, 3, 4, 4)).astype(np.float32), "kernel"),
        numpy_helper.from_array(rng.standard_normal((8, len(LABELS))).astype(np.float32), "head"),
    ]
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", len(LABELS)])
    graph = helper.make_graph(nodes, "tiny", [images], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def write(path: Path, name: str, logits_off_by: float = 0.0, labels: tuple[str, ...] = LABELS) -> Path:
    """Write a bundle of the network; `logits_off_by` makes its golden set one that no device reproduces."""
    import onnxruntime

    pixels = np.random.default_rng(6).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    preprocessing = Preprocessing(SIDE)
    session = onnxruntime.InferenceSession(network(), providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(None, {"images": normalise(one[None], preprocessing)})[0] for one in pixels])
    passport = Passport(
        name=name, created="2025-01-31T12:00:00Z", edge_lsla="0.1.0", model={"name": name}, labels=labels,
        preprocessing=preprocessing, digests={}, precisions={"fp32": {}}, fidelity={},
    )  # fmt: skip
    golden = GoldenSet(pixels, {("onnxruntime", "fp32"): logits + np.float32(logits_off_by)}, {"fp32": Tolerance(1e-3)})
    write_bundle(path, passport, [NewArtifact(network(), "onnxruntime", "fp32")], golden)
    return path


class Opened:
    """The runner's model as a `LoadedModel`, which a test can slow down or let fail."""

    def __init__(self, path: Path) -> None:
        self._model = load(path, threads=1)
        self.name = self._model.manifest.name
        self.digest = self._model.artifact.sha256 + self.name  # the tests' bundles share their artifact
        self.precision = self._model.artifact.precision
        self.delay = 0.0
        self.raises: Exception | None = None
        self.closed = False

    def classify(self, crops: Sequence[Crop]) -> Answers:
        assert not self.closed
        time.sleep(self.delay)
        if self.raises is not None:
            raise self.raises
        return self._model(list(crops), top=1)

    def selftest(self) -> SelfTest:
        return self._model.selftest()

    def close(self) -> None:
        self.closed = True
        self._model.close()


class Opener:
    """Opens models; `prepare`, by name, is done to each."""

    def __init__(self, **prepare: Callable[[Opened], None]) -> None:
        self.prepare = prepare
        self.opened: list[Opened] = []

    def __call__(self, path: Path) -> Opened:
        model = Opened(path)
        self.prepare.get(model.name, lambda model: None)(model)
        self.opened.append(model)
        return model

    def last(self, name: str) -> Opened:
        return [model for model in self.opened if model.name == name][-1]


class Feed:
    """Threads that classify all the time, and note who answered."""

    def __init__(self, answer: Callable[[Sequence[Crop]], Any], threads: int = 1, pause: float = 0.001) -> None:
        self._pause = pause
        self._answer, self._stop = answer, threading.Event()
        self.answers: list[str] = []
        self.errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(seed,), name="feed") for seed in range(threads)]

    def _run(self, seed: int) -> None:
        crops = list(np.random.default_rng(seed).integers(0, 256, (2, 40, 40, 3), np.uint8))
        while not self._stop.wait(self._pause):
            try:
                answered = self._answer(crops)
                assert len(answered.predictions) == len(crops)
                self.answers.append(answered.digest)
            except Exception as error:
                self.errors.append(error)

    def __enter__(self) -> Feed:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)


class Told:
    """Collects outcomes, and lets a test wait for one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.outcomes: list[Any] = []

    def __call__(self, outcome: Any) -> None:
        with self._changed:
            self.outcomes.append(outcome)
            self._changed.notify_all()

    def wait(self, what: str, seconds: float = 30.0) -> Any:
        with self._changed:
            found = self._changed.wait_for(lambda: [one for one in self.outcomes if one.what == what], seconds)
        assert found, f"no {what!r} among {self.outcomes}"
        return found[-1]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for what nobody notifies of."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
