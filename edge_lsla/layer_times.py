"""Measured time of each layer of a bundle; in ONNX Runtime, kernels led back to the nodes that they compute.

ONNX Runtime keeps a node's name, or leaves traces: the body of a function is written in place of its call, reading the
call's tensors; a fused node makes the tensors of the last node that went into it; what was changed for another layout
has the old name or tensor within the new name. What leads to no node are ONNX Runtime's own additions, such as changes
of layout; they keep its name. Checked with 1.20, 1.23 and 1.32.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_lsla.build.tensorrt.nodes import TensorNode, name_bodies, read_nodes
from edge_lsla.runner.profile import LayerTime, check_profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_lsla.bundle import Bundle
    from edge_lsla.runner.protocol import Runner

_INLINED = re.compile(r"(_inlfunc_.*?)_body_[0-9]+(?![0-9])")  # the latter is `name_bodies`' part of it
_SUFFIX = re.compile(r"(_nchwc)?(_token_[0-9]+)?$")


@dataclass(frozen=True)
class Measured:
    """Times of an artifact's layers on this device.

    Attributes:
        artifact, backend, precision: what ran.
        runner: what it ran on, as `Runner.describe` says.
        batch, repeats: images in an inference, and how many were measured.
        layers: in the order in which they run.
        inference_ms: median of whole inferences, not profiled.
        passed_over: why backends that `auto` prefers do not run.
    """

    artifact: str
    backend: str
    precision: str
    runner: dict[str, Any]
    batch: int
    repeats: int
    layers: tuple[LayerTime, ...]
    inference_ms: float
    passed_over: tuple[str, ...] = ()

    @property
    def total_ms(self) -> float:
        """Sum of the layers; profiling adds to each, and what lies between them is not in it."""
        return sum(layer.milliseconds for layer in self.layers)

    @property
    def slowest(self) -> list[LayerTime]:
        """The layers, slowest first."""
        return sorted(self.layers, key=lambda layer: -layer.milliseconds)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            **{key: value for key, value in vars(self).items() if key not in ("layers", "passed_over")},
            "passed_over": list(self.passed_over),
            "total_ms": round(self.total_ms, 6),
            "layers": [layer.to_dict() for layer in self.layers],
        }


def measure_layers(
    model: bytes, images: NDArray[np.float32], repeats: int = 20, *, threads: int | None = None, where: object = "model"
) -> tuple[LayerTime, ...]:
    """Measure each node of a graph in ONNX Runtime.

    Args:
        model: the serialised ONNX file.
        images: float32 [N, 3, S, S], one batch.
        repeats: inferences that count.
        threads: of one inference; None: all.

    Returns:
        A row for each node of the graph that takes time of its own, with all its kernels, and one for each kernel that
        belongs to none (`nodes` is empty), in the order in which they first run.

    Raises:
        EdgeLslaError: see `edge_lsla.runner.onnxruntime_profile.profile_model`.
    """
    from edge_lsla.runner.onnxruntime_profile import profile_model

    measured = profile_model(name_bodies(model), images, repeats, threads=threads, where=where)
    return attribute(measured.times, read_nodes(model), read_nodes(measured.optimised))


def profile_bundle(
    bundle: Bundle,
    backend: str = "auto",
    precision: str | None = None,
    *,
    repeats: int = 20,
    threads: int | None = None,
) -> Measured:
    """Measure the layers of the artifact that runs here, on pictures of the golden set.

    Raises:
        EdgeLslaError: see `edge_lsla.runner.choosing.choose`, and `Runner.profile`.
    """
    import numpy as np

    from edge_lsla.preprocessing import normalise
    from edge_lsla.runner.choosing import Request, choose

    check_profile(1, repeats)
    chosen = choose(bundle, Request(backend, precision, threads))
    artifact = chosen.artifact
    with chosen.runner as runner:
        facts = runner.describe()
        batch = min((profile[0] for profile in facts.get("profiles", ())), default=1)
        golden = normalise(bundle.golden_inputs(), bundle.manifest.preprocessing)
        images = np.resize(golden, (batch, *golden.shape[1:]))
        inference = _median_run(runner, images, repeats)
        if runner.backend == "onnxruntime":
            where = f"{bundle.path}: {artifact.name}"
            layers = measure_layers(bundle.read(artifact), images, repeats, threads=threads, where=where)
        else:
            layers = runner.profile(images, repeats)
    return Measured(
        artifact.name, artifact.backend, artifact.precision, facts, batch, repeats, layers, inference,
        chosen.passed_over,
    )  # fmt: skip


def attribute(
    kernels: Iterable[LayerTime], nodes: Sequence[TensorNode], optimised: Sequence[TensorNode]
) -> tuple[LayerTime, ...]:
    """Lead kernels back to a graph's nodes; see `measure_layers`.

    Args:
        kernels: as ONNX Runtime names them.
        nodes: of the graph, its functions' nodes named by `name_bodies`.
        optimised: of the graph that ran.
    """
    by_name = {node.name: node for node in nodes if node.name}
    makers = {tensor: node.name for node in nodes if node.name for tensor in node.outputs if tensor}
    ran = {node.name: node for node in optimised}
    calls = _calls(nodes, optimised)

    def source(name: str) -> str | None:
        if name in by_name:
            return name
        if inlined := _INLINED.match(name):
            return calls.get(inlined[1])
        for tensor in ran[name].outputs if name in ran else ():
            if tensor in makers:
                return makers[tensor]
        short = _SUFFIX.sub("", name)
        return short if short in by_name else makers.get(short)

    rows: dict[tuple[str, bool], list[LayerTime]] = {}
    for kernel in kernels:
        node = source(kernel.name)
        rows.setdefault((kernel.name, False) if node is None else (node, True), []).append(kernel)
    return tuple(_row(name, by_name[name].operator if known else "", of) for (name, known), of in rows.items())


def costs(times: Iterable[LayerTime], layers: Collection[str]) -> dict[str, float]:
    """Return milliseconds by layer, of the graph's nodes named in `layers`.

    Where a runtime computes several of them in one step, its time is divided equally among them. A layer that was not
    seen is absent.
    """
    found: dict[str, float] = {}
    for one in times:
        within = [name for name in dict.fromkeys(one.nodes) if name in layers]
        for name in within:
            found[name] = found.get(name, 0.0) + one.milliseconds / len(within)
    return found


def _row(name: str, operator: str, kernels: list[LayerTime]) -> LayerTime:
    slowest = max(kernels, key=lambda kernel: kernel.milliseconds)
    return LayerTime(
        name=name,
        kind=operator or slowest.kind,
        precision=slowest.precision,
        milliseconds=sum(kernel.milliseconds for kernel in kernels),
        calls=sum(kernel.calls for kernel in kernels),
        nodes=(name,) if operator else (),
    )


def _calls(nodes: Sequence[TensorNode], optimised: Sequence[TensorNode]) -> dict[str, str]:
    """Return which call each body that was written into the graph stands for, by the tensors that both read."""
    reads: dict[str, set[str]] = {}
    for node in optimised:
        if inlined := _INLINED.match(node.name):
            reads.setdefault(inlined[1], set()).update(node.inputs)
    found = {}
    calls = [node for node in nodes if node.domain and node.name]
    for body, tensors in reads.items():
        shared = sorted(((len(tensors & set(call.inputs)), call.name) for call in calls), reverse=True)
        if shared and shared[0][0] and (len(shared) == 1 or shared[1][0] < shared[0][0]):  # else it is not sure
            found[body] = shared[0][1]
    return found


def _median_run(runner: Runner, images: Any, repeats: int) -> float:
    for _ in range(3):
        runner.run(images)
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        runner.run(images)
        taken.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(taken), 6)
