"""The executions of an engine, one for each batch size in use, and their CUDA graphs; a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import EdgeLslaError
from edge_lsla.runner.batches import Part
from edge_lsla.runner.gpu import DeviceMemory, Engine, Execution, Graph, Stream

OTHERS = 4  # batch sizes kept ready besides the profiles' best ones


class Lane:
    """One batch size: copy in, infer, copy out.

    Each has an execution of its own, because a graph is bound to the state of the one it was captured from
    (TensorRT's developer guide, "CUDA Graphs").
    """

    def __init__(self, execution: Execution, stream: Stream, pairs: tuple[Any, Any]) -> None:
        self._execution, self._stream = execution, stream
        (self._images, self._host_images), (self._logits, self._host_logits) = pairs
        self._graph: Graph | None = None
        self._runs = 0

    @property
    def has_graph(self) -> bool:
        """Whether `run` launches a graph."""
        return self._graph is not None

    @property
    def warm(self) -> bool:
        """Whether it has run: TensorRT does work at the first run that must not be captured."""
        return self._runs > 0

    def run(self) -> None:
        """Start everything on the stream."""
        if self._graph is not None:
            self._graph.launch()
        else:
            self._work()
        self._runs += 1

    def capture(self) -> None:
        """Make a graph of it; the stream must be idle.

        Raises:
            EdgeLslaError: it cannot be captured; then this lane is good for nothing but `close`.
        """
        self._graph = self._stream.capture(self._work)

    def no_graph(self) -> str | None:
        """Return why it cannot be captured; None: it can."""
        return self._execution.no_graph()

    def close(self) -> None:
        """Free the graph, then the execution it was captured from; the stream must be idle."""
        graph, self._graph = self._graph, None
        try:
            if graph is not None:
                graph.close()
        finally:
            self._execution.close()

    def _work(self) -> None:
        self._stream.copy_in(self._images, self._host_images)
        self._execution.enqueue()
        self._stream.copy_out(self._host_logits, self._logits)


class Lanes:
    """The lanes of an engine: its profiles' best batches for good, and `OTHERS` more, the latest used.

    A lane is captured when it is asked for after it has run once, so a batch size that comes once costs no capture.

    Args:
        engine, stream, images, logits, activations: what executions are made from.
        hosts: page-locked arrays of the largest batch, images and logits.
        no_graphs: why there are to be no graphs; None: there are.
    """

    def __init__(
        self,
        engine: Engine,
        stream: Stream,
        images: DeviceMemory,
        logits: DeviceMemory,
        activations: DeviceMemory | None,
        hosts: tuple[NDArray[np.float32], NDArray[np.float32]],
        *,
        no_graphs: str | None,
    ) -> None:
        self._engine, self._stream = engine, stream
        self._images, self._logits, self._activations = images, logits, activations
        self._hosts = hosts
        self._best = [Part(profile.index, profile.best, profile.best) for profile in engine.profiles]
        self._lanes: OrderedDict[tuple[int, int], Lane] = OrderedDict()  # oldest use first
        self.no_graphs = no_graphs

    @property
    def captured(self) -> tuple[int, ...]:
        """Return the batch sizes that have a graph."""
        return tuple(sorted(batch for (_, batch), lane in list(self._lanes.items()) if lane.has_graph))

    def prepare(self, runs: int) -> None:
        """Make the best batches' lanes, run each so often (at least once), and capture it."""
        for part in self._best:
            for _ in range(runs):
                self.take(part).run()
                self._stream.synchronise()
            self.take(part)

    def take(self, part: Part) -> Lane:
        """Return the lane for a part; the stream must be idle.

        Raises:
            EdgeLslaError: an execution cannot be made.
        """
        key = (part.profile, part.batch)
        if key not in self._lanes:
            self._make_room(key)
            self._lanes[key] = self._make(part)
        self._lanes.move_to_end(key)
        lane = self._lanes[key]
        if self.no_graphs is None and lane.warm and not lane.has_graph:
            self._capture(part, key)
        return self._lanes[key]

    def close(self) -> None:
        """Free all lanes; the stream must be idle."""
        while self._lanes:
            _, lane = self._lanes.popitem()
            lane.close()

    def _make(self, part: Part) -> Lane:
        execution = self._engine.execution(part, self._images, self._logits, self._activations, self._stream)
        images, logits = (host[: part.batch] for host in self._hosts)
        return Lane(execution, self._stream, ((self._images, images), (self._logits, logits)))

    def _capture(self, part: Part, key: tuple[int, int]) -> None:
        lane = self._lanes[key]
        self.no_graphs = lane.no_graph()
        if self.no_graphs is not None:
            return
        try:
            lane.capture()
        except BaseException as error:
            self._lanes.pop(key).close()
            if not isinstance(error, EdgeLslaError):
                raise
            # For good: what cannot be captured in one size cannot in another, and trying costs time in each run.
            self.no_graphs = str(error)
            self._lanes[key] = self._make(part)

    def _make_room(self, key: tuple[int, int]) -> None:
        best = {(part.profile, part.batch) for part in self._best}
        others = [other for other in self._lanes if other not in best]
        if key not in best and len(others) >= OTHERS:
            self._lanes.pop(others[0]).close()  # first, so that there is never one more
