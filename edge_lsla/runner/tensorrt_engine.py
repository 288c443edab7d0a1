"""A deserialised TensorRT engine and its execution contexts; see `edge_lsla.runner.gpu.Engine`.

Every TensorRT call of the runner is here. The names are those of 10.3 to 11.1 and of TensorRT for RTX 1.7 (checked
by tests/runner/test_tensorrt_runner_names.py); nothing of it has run on a GPU yet.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

from edge_lsla.errors import CompatibilityError, EdgeLslaError, GraphError, MissingComponentError
from edge_lsla.runner.batches import BatchProfile, Part
from edge_lsla.runner.gpu import DeviceMemory, Stream
from edge_lsla.tensorrt import flavours, messages

TENSORRT, RTX = "tensorrt", "tensorrt-rtx"
IMAGES, LOGITS = "images", "logits"
BUILD = "build it with `build-engine`"
load = flavours.load
# What TensorRT says of a plugin that a plan needs: 8 and 10 have different words for it.
_NO_PLUGIN = r"(?i:not find plugin):?\s*(\w+)"
_NO_MEMORY = (
    r"(?i:out ?of ?memory)|std::bad_alloc|cudaError(?:MemoryAllocation| 2\b)|Requested amount of (?:GPU )?memory"
)
_NO_DRIVER = r"CUDA driver version is insufficient|CUDA initialization failure"


@functools.cache
def load_plugins(flavour: flavours.Flavour, library: str) -> None:
    """Load a plugin library once; a second registration of the same plugins is an error to TensorRT.

    Raises:
        MissingComponentError: TensorRT did not load it.
    """
    flavours.load_plugin_library(flavour, library)


def explain(lines: list[str], doing: str, where: object) -> EdgeLslaError:
    """Translate what TensorRT logged while it ran an engine: the one place where that happens."""
    known = _known(lines, doing, where)
    if known is not None:
        return known
    said = messages.short(lines[-1]) if lines else "it gave no reason"
    return EdgeLslaError(f"TensorRT failed while {doing}", where, f"use another backend, or report it ({said})")


def _known(lines: list[str], doing: str, where: object) -> EdgeLslaError | None:
    # First what means something else to one who runs an engine than to one who builds it.
    for line in lines:
        if plugin := re.search(_NO_PLUGIN, line):
            if plugin[1] in messages.OURS:
                return messages.missing_plugin(plugin[1], str(where))
            return MissingComponentError(
                f"the engine needs a plugin {plugin[1]}, which nothing here provides", where, "build it again here"
            )
        if re.search(_NO_MEMORY, line):
            return EdgeLslaError(
                f"memory ran out while {doing}", where,
                "close other programs, or build the engine with a smaller largest batch",
            )  # fmt: skip
    told = messages.explain(lines, str(where))
    if isinstance(told, MissingComponentError) and any(re.search(_NO_DRIVER, line) for line in lines):
        # A driver is there: the runner looked for one before.
        return MissingComponentError(
            "the NVIDIA driver is too old for this TensorRT, or does not start", where,
            "update the driver (`doctor` shows it), or use the backend onnxruntime",
        )  # fmt: skip
    return None if told.what == f"TensorRT failed while {where}" else told  # so the table says that it does not know


class TensorRtEngine:
    """An engine; the GPU's context is current in every call.

    Args:
        flavour: a loaded TensorRT.
        data: the serialised engine. It holds native code: the caller has seen that it comes from a trusted place.
        where: named in errors.

    Raises:
        CompatibilityError: it is of another TensorRT or GPU, or damaged.
        MissingComponentError: a plugin that it needs is not loaded.
        GraphError: its inputs and outputs are not `images` and `logits` as the runner needs them.
        EdgeLslaError: memory ran out, or TensorRT failed.
    """

    def __init__(self, flavour: flavours.Flavour, data: bytes, where: object) -> None:
        trt = flavour.module
        self._flavour, self._where = flavour, where
        self._kept = messages.ErrorLines()
        self._logger = messages.make_logger(trt, self._kept)
        self._runtime: Any = None
        self._engine: Any = None
        self._settings: Any = None
        try:
            with self._translated("starting"):
                self._runtime = trt.Runtime(self._logger)
            with self._translated("reading the engine"):
                self._engine = self._runtime.deserialize_cuda_engine(data)
            if self._engine is None:
                raise self._refusal()
            self._read_tensors()
            self._read_profiles()
            self.activation_bytes = int(self._engine.device_memory_size_v2)
            if flavour.names_targets:
                self._settings = self._rtx_settings()
        except BaseException:
            self.close()  # now, while the context is current; a traceback may keep this object for long
            raise

    def execution(
        self, part: Part, images: DeviceMemory, logits: DeviceMemory, activations: DeviceMemory | None, stream: Stream
    ) -> TensorRtExecution:
        """Make an execution context for one batch, in memory shared with the others.

        Raises:
            EdgeLslaError: memory ran out, or TensorRT failed.
            GraphError: the engine gives logits of another shape than it should.
        """
        context: Any = None
        try:
            with self._translated("making an execution context"):
                context = self._create_context()
                if context is None or not self._prepare(context, part, images, logits, activations, stream):
                    raise self._failure(f"preparing a batch of {part.batch}")
                given = tuple(int(size) for size in context.get_tensor_shape(LOGITS))
            if given != (part.batch, self.classes):
                # It would write past the end of the buffer.
                raise GraphError(f"engine gives logits {list(given)} for a batch of {part.batch}", self._where, BUILD)
        except BaseException:
            context = None  # freed now: the traceback keeps this frame
            raise
        return TensorRtExecution(self, context, stream)

    def _prepare(
        self,
        context: Any,
        part: Part,
        images: DeviceMemory,
        logits: DeviceMemory,
        activations: DeviceMemory | None,
        stream: Stream,
    ) -> bool:
        if activations is not None:
            context.set_device_memory(activations.address, activations.size)
        if self._free_batch:
            # It may copy on the stream; the first inference is on the same one.
            if not context.set_optimization_profile_async(part.profile, stream.handle):
                return False
            if not context.set_input_shape(IMAGES, (part.batch, 3, self.image_size, self.image_size)):
                return False
        addresses = {IMAGES: images.address, LOGITS: logits.address}
        return all(context.set_tensor_address(name, address) for name, address in addresses.items())

    def enqueue(self, context: Any, stream: Stream) -> None:
        """Start an inference in a context."""
        with self._translated("computing"):
            if not context.execute_async_v3(stream.handle):
                raise self._failure("computing")

    def layers(self) -> str:
        """Return what the engine inspector says, JSON; see `inspection.read_layers`."""
        trt = self._flavour.module
        with self._translated("inspecting the engine"):
            inspector = self._engine.create_engine_inspector()
            return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def attach_profiler(self, context: Any, reports: list[tuple[str, float]]) -> None:
        """Let a context report each layer's milliseconds to a list, when it is asked to."""
        with self._translated("attaching the profiler"):
            context.profiler = make_profiler(self._flavour.module, reports)
            # True by default: then starting an inference waits for it, and reports within.
            context.enqueue_emits_profile = False

    def report_times(self, context: Any) -> None:
        """Let a context report its last inference, which is done, to the list of `attach_profiler`."""
        with self._translated("profiling"):
            if not context.report_to_profiler():
                raise self._failure("profiling")

    def no_graph(self, context: Any, stream: Stream) -> str | None:
        """Return why a context cannot be captured; only TensorRT for RTX knows before it is tried."""
        if self._flavour.names_targets and not context.is_stream_capturable(stream.handle):
            return f"{self._flavour.title} cannot capture this engine"
        return None

    def close(self) -> None:
        """Free it, after all its executions."""
        self._settings = None
        self._engine = None
        self._runtime = None

    def _create_context(self) -> Any:
        if self._settings is not None:
            return self._engine.create_execution_context(self._settings)
        trt = self._flavour.module
        return self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def _rtx_settings(self) -> Any:
        """Return RTX's settings of an execution: its own default compiles kernels for a batch after the first runs.

        A graph captured before that would keep the slow kernels for good.
        """
        trt = self._flavour.module
        settings = self._engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        settings.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        return settings

    def _read_tensors(self) -> None:
        trt, engine, where = self._flavour.module, self._engine, self._where
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if inputs != [IMAGES] or [name for name in names if name not in inputs] != [LOGITS]:
            raise GraphError("engine's inputs and outputs are not images and logits", where, BUILD)
        for name in names:
            if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
                raise GraphError(f"{name} is {engine.get_tensor_dtype(name).name}, not float32", where, BUILD)
        images = [int(size) for size in engine.get_tensor_shape(IMAGES)]
        logits = [int(size) for size in engine.get_tensor_shape(LOGITS)]
        if len(images) != 4 or images[1] != 3 or images[2] != images[3] or images[2] < 1:
            raise GraphError(f"engine takes images {images}", where, "it must be float32 [N, 3, S, S], S fixed")
        if len(logits) != 2 or logits[1] < 1:
            raise GraphError(f"engine gives logits {logits}", where, "they must be float32 [N, classes]")
        self.image_size, self.classes = images[2], logits[1]
        self._batch = images[0]
        self._free_batch = images[0] < 0

    def _read_profiles(self) -> None:
        engine = self._engine
        if not self._free_batch:
            self.profiles: tuple[BatchProfile, ...] = (BatchProfile(0, self._batch, self._batch, self._batch),)
            return
        found = []
        for index in range(engine.num_optimization_profiles):
            sizes = [int(shape[0]) for shape in engine.get_tensor_profile_shape(IMAGES, index)]
            if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise GraphError(f"engine has no usable profile {index}: {sizes}", self._where, BUILD)
            found.append(BatchProfile(index, *sizes))
        if not found:
            raise GraphError("engine has no profile for its batch", self._where, BUILD)
        self.profiles = tuple(found)

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        self._kept.lines.clear()  # what was logged before has been raised, and a runner lives for months
        try:
            yield
        except (RuntimeError, TypeError) as error:  # pybind11 says so when the library returns a null pointer
            lines = [*self._kept.lines] or [str(error)]
            raise explain(lines, doing, self._where) from error

    def _failure(self, doing: str) -> EdgeLslaError:
        return explain([*self._kept.lines], doing, self._where)

    def _refusal(self) -> EdgeLslaError:
        lines = [*self._kept.lines]
        known = _known(lines, "reading the engine", self._where)
        if known is not None:
            return known
        said = messages.short(lines[-1]) if lines else "it gives no reason"
        return CompatibilityError(
            f"{self._flavour.title} does not accept the engine ({said})", self._where,
            "build it again on this device with `build-engine`",
        )  # fmt: skip


def make_profiler(trt: Any, reports: list[tuple[str, float]]) -> Any:
    """Return a trt.IProfiler that appends (layer, milliseconds)."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the base exists once TensorRT is loaded
        def __init__(self) -> None:
            super().__init__()  # pybind11 refuses an object whose base was not made

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            reports.append((layer_name, float(ms)))

    return Profiler()


class TensorRtExecution:
    """An execution context; see `edge_lsla.runner.gpu.Execution`."""

    def __init__(self, engine: TensorRtEngine, context: Any, stream: Stream) -> None:
        self._engine, self._context, self._stream = engine, context, stream
        self._reports: list[tuple[str, float]] | None = None  # a profiler's, once there is one

    def enqueue(self) -> None:
        """Start an inference."""
        self._engine.enqueue(self._context, self._stream)

    def profile(self) -> list[tuple[str, float]]:
        """Run one inference, wait for it, and return (layer, milliseconds) as TensorRT reports them."""
        owner = self._engine
        if self._reports is None:
            self._reports = []
            owner.attach_profiler(self._context, self._reports)
        self._reports.clear()
        owner.enqueue(self._context, self._stream)
        self._stream.synchronise()
        owner.report_times(self._context)
        return [*self._reports]

    def no_graph(self) -> str | None:
        """Return why it cannot be captured."""
        return self._engine.no_graph(self._context, self._stream)

    def close(self) -> None:
        """Free it."""
        self._context = None
