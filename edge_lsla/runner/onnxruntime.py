"""The `onnxruntime` backend: any CPU; the embedded default."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import CompatibilityError, EdgeLslaError, GraphError, MissingComponentError, UsageError
from edge_lsla.operator import DOMAIN
from edge_lsla.runner.profile import LayerTime

# One MatMulInteger of a (uint8) and b (int8), as ONNX, so that the runner needs no onnx; a test writes it again.
PRODUCT = base64.b64decode(
    "CAgSADpCChgKAWEKAWISAXkiDU1hdE11bEludGVnZXISBXByb2JlWgkKAWESBAoCCAJaCQoBYhIECgIIA2IJCgF5EgQKAggGQgQKABAN"
)
MOST_THREADS = 256  # far more only exhaust the machine
# The optional second output, see `calibration.counters`: shares at the ends of ranges, and the input that asks for it.
SATURATION, COUNT, NAMES = "saturation", "count_saturation", "edge_lsla.saturation"


class OnnxRuntimeRunner:
    """Runs a final ONNX model on the CPU; see `edge_lsla.runner.protocol.Runner`.

    Attributes:
        counted: names of the activations that `saturation` tells of; none where the model has no counters.

    Args:
        model: the serialised ONNX file, which is kept for `profile`; or a function that reads it, called again then.
        threads: of one inference; None: as many as the process may use.
        spinning: whether they wait for the next inference by computing, for some milliseconds: it comes sooner, where
            inferences follow each other at once, and keeps a core busy, where they do not.
        where: named in errors.

    Raises:
        GraphError: the model is damaged or has other inputs and outputs than `images` and `logits`.
        CompatibilityError: this ONNX Runtime is too old for the model.
        MissingComponentError: ONNX Runtime is not installed.
    """

    backend = "onnxruntime"

    def __init__(
        self,
        model: bytes | Callable[[], bytes],
        *,
        threads: int | None = None,
        spinning: bool = True,
        where: object = "model",
    ) -> None:
        if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS):
            raise UsageError(f"threads are a number from 1 to {MOST_THREADS}", "threads", "leave it out for all cores")
        runtime = import_onnxruntime()
        self._model: Callable[[], bytes] | None = model if callable(model) else lambda: model
        self._session: Any = open_session(self._model(), threads, where, spinning=spinning)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        names = [output.name for output in outputs]
        if [i.name for i in inputs] != ["images"] or names not in (["logits"], ["logits", SATURATION]):
            raise GraphError("model's inputs and outputs are not images and logits", where, "export it with `export`")
        shape, width = inputs[0].shape, outputs[0].shape[-1]
        if inputs[0].type != "tensor(float)" or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise GraphError(f"images is {inputs[0].type} {shape}", where, "it must be float32 [N, 3, S, S]")
        if not isinstance(shape[2], int) or not isinstance(width, int):
            raise GraphError("model's image size or class count is not fixed", where, "export it with `export`")
        self.image_size, self.classes, self._where = shape[2], width, where
        self._version, self._threads = runtime.__version__, threads
        self.counted = _counted_names(self._session, where) if SATURATION in names else ()

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits float32 [N, classes] of images float32 [N, 3, S, S]; safe to call from several threads.

        Raises:
            UsageError: the images have another shape or type, or the runner is closed.
        """
        session = self._session
        self._check(images)
        with translated_errors(self._where):
            return session.run(["logits"], {"images": images})[0]  # type: ignore[no-any-return]  # untyped library

    def saturation(self, images: NDArray[np.float32]) -> dict[str, float]:
        """Return the share of each activation's values that sit at an end of their range, over all of these images.

        It takes an inference of its own, a little longer than `run`.

        Raises:
            UsageError: the model has no counters, the images have another shape or type, or the runner is closed.
        """
        session = self._session
        self._check(images)
        if not self.counted:
            raise UsageError("the model counts no saturation", self._where, "build it in int8 with --counters")
        with translated_errors(self._where):
            shares = session.run([SATURATION], {"images": images, COUNT: np.array(True)})[0]
        return dict(zip(self.counted, shares.mean(axis=0, dtype=np.float64).tolist()))

    def profile(self, images: NDArray[np.float32], repeats: int = 20) -> tuple[LayerTime, ...]:
        """Measure each kernel for images float32 [N, 3, S, S], in a second session.

        Kernels bear ONNX Runtime's names; `edge_lsla.layer_times.measure_layers` leads them back to the graph's nodes.

        Raises:
            UsageError: the images have another shape or type, `repeats` cannot be used, or the runner is closed.
        """
        from edge_lsla.runner.onnxruntime_profile import profile_model

        model = self._model
        self._check(images)
        assert model is not None  # `_check` refuses a closed runner
        return profile_model(model(), images, repeats, threads=self._threads, where=self._where).times

    def _check(self, images: NDArray[np.float32]) -> None:
        size = self.image_size
        if self._session is None:
            raise UsageError("runner is closed", self._where, "open the bundle again")
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise UsageError(
                f"images are {images.dtype} {list(images.shape)}",
                self._where,
                f"they must be float32 [N, 3, {size}, {size}]",
            )

    def describe(self) -> dict[str, Any]:
        """Return the backend's version, device and settings, JSON-ready."""
        return {"backend": self.backend, "version": self._version, "device": "cpu", "threads": self._threads or "all"}

    def close(self) -> None:
        """Give back the session's memory; calling it again does nothing."""
        self._session = self._model = None

    def __enter__(self) -> OnnxRuntimeRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _counted_names(session: Any, where: object) -> tuple[str, ...]:
    """Return the names of the columns of `saturation`, which the model's metadata holds."""
    switches = [entry.name for entry in session.get_overridable_initializers()]
    try:
        names = json.loads(session.get_modelmeta().custom_metadata_map.get(NAMES, ""))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or COUNT not in switches:
        raise GraphError("the model's saturation counters are damaged", where, "build it again")
    if len(set(names)) != len(names) or session.get_outputs()[1].shape[1:] != [len(names)]:
        raise GraphError("the names of the model's saturation counters do not fit them", where, "build it again")
    return tuple(names)


def open_session(
    model: bytes,
    threads: int | None,
    where: object,
    *,
    spinning: bool = True,
    profile: Path | None = None,
    optimised: Path | None = None,
) -> Any:
    """Make a session with the runner's options.

    Args:
        spinning: see `OnnxRuntimeRunner`.
        profile: what the name of a file with kernels' times is to begin with.
        optimised: where to write the graph that will run.

    Raises:
        EdgeLslaError: ONNX Runtime refuses the model; see `translated_errors`.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # its errors arrive as exceptions; the log would only repeat them
    options.intra_op_num_threads = threads or 0
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if b"QuantizeLinear" in model and integer_products_saturate():
        # Slower, and exact; elsewhere it would only be slower.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    with translated_errors(where):
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@functools.lru_cache(maxsize=1)
def integer_products_saturate() -> bool:
    """Say whether this CPU gets uint8 x int8 products wrong, by trying one.

    x86 CPUs without VNNI add pairs of such products in 16 bits, where they saturate, and the logits of an INT8 model
    are then plainly wrong. `make check-old-cpu` shows it on an emulated one.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(PRODUCT, options, providers=["CPUExecutionProvider"])
    left, right = np.full((4, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    return bool((session.run(None, {"a": left, "b": right})[0] != 64 * 255 * 127).any())


def import_onnxruntime() -> Any:
    """Return the module, imported late so that `import edge_lsla` stays light.

    Raises:
        MissingComponentError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingComponentError("ONNX Runtime is missing", "onnxruntime", "pip install onnxruntime") from error
    return onnxruntime


@contextlib.contextmanager
def translated_errors(where: object) -> Iterator[None]:
    """Turn ONNX Runtime's exceptions into ours: the one place where that happens."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        yield
    except (state.InvalidProtobuf, state.InvalidGraph, state.NoSuchFile, state.InvalidArgument) as error:
        raise _refused(where, error) from error
    except state.NotImplemented as error:
        raise CompatibilityError(
            "this ONNX Runtime lacks an operation of the model", f"{where}: {_reason(error)}", "update it"
        ) from error
    except (state.Fail, state.RuntimeException, state.EPFail, state.ModelLoaded) as error:
        if newer := re.search(r"(?i)opset \d+(?= is under development)|(?:model IR |ir_)version: ?\d+.*", str(error)):
            raise CompatibilityError(
                "this ONNX Runtime is too old for the model", f"{where}: {newer[0]}", "update it"
            ) from error
        raise _refused(where, error) from error


# What of ONNX Runtime's words, to what is wrong and what to do; {0} is the match's first group.
_KNOWN = (
    (r"(?i)bad_?\s?alloc|failed to allocate|out of memory", "memory ran out", "close other programs"),
    (f"{DOMAIN}:(\\w+)\\S* is not a registered function",
     "the graph's {0} has no body for ONNX Runtime",
     "give the fused graph with its local functions (fuse without --for-plugin)"),
    (r"(\S+?)(?:\(-?\d+\))? is not a registered function|No Op registered for (\S+)|No opset import for domain (\S+)",
     "ONNX Runtime knows no such operator", "export with standard ONNX operators"),
    (r"not acyclic", "the graph's nodes need each other in a circle", "export it again"),
    (r"is not a graph input, initializer, or output", "a node reads what nothing makes", "export it again"),
    (r"Deserialize tensor|does not match expected size|protobuf parsing|type information",
     "the ONNX file is damaged", "export it again"),
    (r"(?i)\b(node|model|optype|tensor|graph|shape)", "ONNX Runtime cannot run the model", "export it again"),
)  # fmt: skip


def _refused(where: object, error: Exception) -> EdgeLslaError:
    """The error for what ONNX Runtime says of a model: the model's fault, unless memory ran out."""
    place = f"{where}: {_reason(error)}"
    for pattern, what, remedy in _KNOWN:
        if match := re.search(pattern, str(error)):
            kind = EdgeLslaError if what == "memory ran out" else GraphError
            return kind(what.format(*(group or "" for group in match.groups())), place, remedy)
    return EdgeLslaError("ONNX Runtime failed", place, "run `doctor`, which shows what is installed")


def _reason(error: Exception) -> str:
    """Return ONNX Runtime's words without its codes and source files, in one line, cut between words."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    # "/onnxruntime_src/…/model.cc:256 onnxruntime::Model::Model(…) " says where in its source.
    text = re.sub(r"(?:/\S*/)?\w+\.(?:cc|h):\d+ (?:[^()]*::[^()]*\([^()]*\)(?: const)? |\w+ )?", " ", text)
    return textwrap.shorten(text, 300, placeholder=" …").rstrip(".") or type(error).__name__
