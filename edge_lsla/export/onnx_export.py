"""The verb `export`: a PyTorch classifier becomes one ONNX file, written only if ONNX Runtime agrees with PyTorch."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from edge_lsla.atomic import atomic_path
from edge_lsla.description import Description, attach
from edge_lsla.errors import AccuracyError, GraphError, UsageError

INPUT = "images"
OUTPUT = "logits"
PARITY_BATCHES = (1, 3)  # two sizes, neither that of the trace, so that a frozen batch shows
TRACE_BATCH = 2  # torch.export would specialise on 0 and 1
OLDEST_OPSET, NEWEST_OPSET = 20, 23  # Gelu is an operator from 20; TensorRT 10.3 reads up to 20


@dataclass(frozen=True)
class ExportSettings:
    """How a model is exported and how closely the result must agree.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    opset: int = field(default=20, metadata={"help": "ONNX opset; 20 is read by every supported TensorRT"})
    tolerance: float = field(
        default=1e-4, metadata={"help": "largest difference from PyTorch, relative to max(1, max|logit|)"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the random images of the parity check"})

    def __post_init__(self) -> None:
        if type(self.opset) is not int or not OLDEST_OPSET <= self.opset <= NEWEST_OPSET:
            raise UsageError(
                "export needs another opset", "opset", f"give {OLDEST_OPSET} to {NEWEST_OPSET}, not {self.opset!r}"
            )
        if not isinstance(self.tolerance, (int, float)) or not 0 < self.tolerance < 1:
            raise UsageError("tolerance must lie between 0 and 1", "tolerance", f"got {self.tolerance!r}")
        if type(self.seed) is not int or self.seed < 0:
            raise UsageError("seed must be a non-negative integer", "seed", f"got {self.seed!r}")


@dataclass(frozen=True)
class ExportReport:
    """What was written: the file's figures and the largest |ONNX Runtime - PyTorch| over all parity logits."""

    opset: int
    nodes: int
    max_abs_difference: float
    bytes: int
    sha256: str


def export_onnx(
    model: nn.Module,
    image_size: int,
    destination: str | os.PathLike[str],
    settings: ExportSettings | None = None,
    *,
    description: Description | None = None,
) -> ExportReport:
    """Export a classifier to a single ONNX file and prove that ONNX Runtime computes the same logits.

    The graph takes `images` [N, 3, image_size, image_size] float32 with a free N and gives `logits` [N, classes]
    float32. The same weights give the same bytes. The model's training mode is restored afterwards. A description
    (labels, preprocessing) goes into the file's metadata.

    Raises:
        UsageError: the image size cannot be used, or the destination cannot be written.
        GraphError: the model does not run at this size, or cannot be expressed in ONNX.
        AccuracyError: the logits differ by more than the tolerance; nothing is written.
    """
    settings = settings or ExportSettings()
    if type(image_size) is not int or image_size <= 0:
        raise UsageError("image size must be a positive number of pixels", "image_size", f"got {image_size!r}")
    training = model.training
    model.eval()
    try:
        samples = [_sample(batch, image_size, settings.seed + batch) for batch in PARITY_BATCHES]
        expected = [_run_torch(model, sample) for sample in samples]
        proto = trace(model, image_size, settings.opset).model_proto
    finally:
        model.train(training)
    _tidy(proto, image_size, settings.opset)
    if description is not None:
        attach(proto, description)
    data = _serialise(proto)
    session = _open(data)
    worst = 0.0
    for sample, logits in zip(samples, expected):
        worst = max(worst, _compare(session, sample, logits, settings.tolerance))
    with atomic_path(destination) as temporary:
        temporary.write_bytes(data)
    return ExportReport(
        opset=settings.opset,
        nodes=len(proto.graph.node),
        max_abs_difference=worst,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _sample(batch: int, image_size: int, seed: int) -> NDArray[np.float32]:
    """Draw images [batch, 3, S, S] float32, standard normal as after normalisation."""
    return np.random.default_rng(seed).standard_normal((batch, 3, image_size, image_size), dtype=np.float32)


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's parameters lie."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _run_torch(model: nn.Module, sample: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        with torch.no_grad():
            logits = model(torch.from_numpy(sample).to(device_of(model)))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise GraphError(
            "the model does not run on images of this size",
            f"{sample.shape[2]} px",
            f"give the image size of its configuration ({_first_line(error)})",
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[0] != sample.shape[0]:
        raise GraphError("the model does not give logits [N, classes]", type(model).__name__, "export a classifier")
    if logits.dtype != torch.float32:
        raise GraphError("the model's logits are not float32", logits.dtype, "export in float32; convert afterwards")
    values: NDArray[np.float32] = logits.cpu().numpy()
    return values


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress prints, log lines and warnings away from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    # torch and onnxscript warn about their own internals (deprecated pytree calls, missing torchvision); whatever
    # concerned this model would show in the parity check.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        for category in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        try:
            yield
        finally:
            logger.setLevel(level)


def trace(model: nn.Module, image_size: int, opset: int) -> torch.onnx.ONNXProgram:
    """Run torch's dynamo exporter; the names of nodes depend on all of this function.

    Raises:
        GraphError: torch cannot express the model.
    """
    images = torch.zeros(TRACE_BATCH, 3, image_size, image_size, device=device_of(model))
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                # Keyed by position: the parameter of forward may have any name.
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
            if program is None:
                raise GraphError("torch gave no ONNX program", type(model).__name__, "report this")
            return program
    except GraphError:
        raise
    except Exception as error:  # the exporter raises its own classes and those of sympy, dynamo and onnxscript
        raise GraphError(
            "torch cannot express the model in ONNX with a free batch size",
            type(model).__name__,
            f"use operations that torch.export knows ({_first_line(error)})",
        ) from error


def _tidy(proto: Any, image_size: int, opset: int) -> None:
    """Remove what names this machine or varies between runs, and say what made the file."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for node in graph.node:
        attributes = sorted(node.attribute, key=lambda attribute: str(attribute.name))
        del node.attribute[:]
        node.attribute.extend(attributes)
    value_info = sorted(graph.value_info, key=lambda info: str(info.name))
    del graph.value_info[:]
    graph.value_info.extend(value_info)
    graph.name = "main"
    properties = {
        "edge_lsla.stage": "export",
        "edge_lsla.opset": str(opset),
        "edge_lsla.image_size": str(image_size),
        "edge_lsla.producer": f"torch {torch.__version__}",
    }
    onnx.helper.set_model_props(proto, properties)


def _serialise(proto: Any) -> bytes:
    """Check the graph and return its bytes, deterministic, with every weight inside."""
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise GraphError("the weights do not fit into one file", "2 GiB limit of ONNX", "export a smaller model")
    try:
        onnx.checker.check_model(proto, full_check=True)
        data: bytes = proto.SerializeToString(deterministic=True)
    except Exception as error:  # the checker, shape inference and protobuf each have classes of their own
        raise GraphError("the exported graph is not valid ONNX", _first_line(error), "report this") from error
    return data


def _open(data: bytes) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # four images: spinning threads cost more than they bring on a busy machine
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes live in a private module
        raise GraphError("ONNX Runtime refuses the exported graph", _first_line(error), "report this") from error


def _compare(session: Any, sample: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> float:
    """Return max|ONNX Runtime - PyTorch| for one batch, or refuse."""
    where = f"batch {len(sample)}"
    try:
        logits = session.run([OUTPUT], {INPUT: sample})[0]
    except Exception as error:
        raise AccuracyError(
            "the exported graph does not run", where, f"its batch is frozen? ({_first_line(error)})"
        ) from error
    if logits.shape != expected.shape:
        raise AccuracyError(f"the exported graph gives logits {logits.shape}, PyTorch {expected.shape}", where)
    difference = float(np.abs(logits.astype(np.float64) - expected.astype(np.float64)).max())
    relative = difference / max(1.0, float(np.abs(expected).max()))
    if not relative <= tolerance:  # written so that nan is refused too
        raise AccuracyError(
            f"ONNX Runtime and PyTorch differ by {difference:.3g} ({relative:.3g} of the largest logit, "
            f"{tolerance:g} is allowed)",
            where,
            "nothing was written; check the weights for extreme values, or raise the tolerance",
        )
    return difference


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
