"""The forms that a classifier takes on its way to the field, each opened so that it can be compared.

Composes stages: checkpoints, ONNX files and bundles become the sides of `calibration.compare`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from calibration.tensors import Side
    from edge_lsla.preprocessing import Preprocessing

DEFAULT_OPSET = 20  # what `export` takes


@dataclass(frozen=True)
class Form:
    """One of the two things to compare, and how to open it.

    Attributes:
        path: a bundle (.lsla), an ONNX file (.onnx), or else a checkpoint.
        model, key_map: of a checkpoint, as `export` takes them. labels: class names, of a checkpoint or an ONNX file.
        backend, precision: which of a bundle's artifacts, as `infer` takes them.
        threads: CPU threads of ONNX Runtime; None: all.
    """

    path: Path
    model: str | None = None
    key_map: Path | None = None
    labels: Path | None = None
    backend: str = "auto"
    precision: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class OpenedForm:
    """A form whose facts are known.

    Attributes:
        form: how it was asked for. kind: "checkpoint", "onnx" or "bundle". name: what to call it.
        labels, preprocessing: its own.
        side: makes what runs, given the opset of the ONNX file whose names of tensors are wanted.
        checkpoint: SHA-256 of the checkpoint that it was made from. opset: of its graph. torch: the version that gave
            the tensors their names. None where that is not known.
    """

    form: Form
    kind: str
    name: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    side: Callable[[int], Side]
    checkpoint: str | None = None
    opset: int | None = None
    torch: str | None = None


def open_form(form: Form, stack: contextlib.ExitStack, *, whole_path: bool = False) -> OpenedForm:
    """Open a form, called by its file's name or its whole path; what has to be closed again goes onto the stack.

    Raises:
        InputError, GateError, MissingComponentError: see `open_checkpoint`, `read_onnx` and `edge_lsla.load`.
    """
    name = str(form.path) if whole_path else form.path.name
    if form.path.suffix == ".lsla":
        return _open_bundle(form, name, stack)
    return _open_onnx(form, name) if form.path.suffix == ".onnx" else _open_checkpoint(form, name)


def _open_checkpoint(form: Form, name: str) -> OpenedForm:
    import torch

    from edge_lsla.model.checkpoint import open_checkpoint

    loaded = open_checkpoint(form.path, form.model, form.key_map, form.labels)

    def side(opset: int) -> Side:
        from edge_lsla.export.tracing import TracedModel

        return TracedModel(name, loaded.model, loaded.image_size, opset=opset)

    described = loaded.description
    return OpenedForm(
        form,
        "checkpoint",
        name,
        described.labels,
        dataclasses.replace(described.preprocessing, image_size=loaded.image_size),
        side,
        described.checkpoint,
        torch=f"torch {torch.__version__}",
    )


def _open_onnx(form: Form, name: str) -> OpenedForm:
    from edge_lsla.description import describe
    from edge_lsla.sources import check_input_size
    from edge_lsla.surgery.onnx_file import read_onnx

    graph = read_onnx(form.path)
    described = describe(graph, form.path, form.labels)
    check_input_size(graph, form.path, described)
    side = functools.partial(_onnx_side, name, lambda: _runnable(read_onnx(form.path)), form.threads)
    return OpenedForm(
        form,
        "onnx",
        name,
        described.labels,
        described.preprocessing,
        side,
        described.checkpoint,
        max(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")),
        next((entry.value for entry in graph.metadata_props if entry.key == "edge_lsla.producer"), None),
    )


def _open_bundle(form: Form, name: str, stack: contextlib.ExitStack) -> OpenedForm:
    from edge_lsla.bundle import open_bundle
    from edge_lsla.runner.model import load

    model = stack.enter_context(load(form.path, backend=form.backend, precision=form.precision, threads=form.threads))
    artifact, manifest = model.artifact, model.manifest
    name = f"{name} ({artifact.backend} {artifact.precision})"
    side: Callable[[int], Side]
    opset = None
    if artifact.backend == "onnxruntime":
        model.close()  # its session shows logits only
        bundle = stack.enter_context(open_bundle(form.path))
        side = functools.partial(_onnx_side, name, lambda: _parsed(bundle.read(artifact)), form.threads)
        opset = int(artifact.versions.get("opset", 0)) or None
    else:
        side = functools.partial(_logits_side, name, model.logits, artifact.precision)
    checkpoint = manifest.digests.get("checkpoint")
    return OpenedForm(form, "bundle", name, manifest.labels, manifest.preprocessing, side, checkpoint, opset)


def _onnx_side(name: str, load: Callable[[], ModelProto], threads: int | None, _: int) -> Side:
    from calibration.tensors import OnnxSide
    from edge_lsla.runner.onnxruntime import integer_products_saturate

    entries = {"session.x64quantprecision": "1"} if integer_products_saturate() else {}
    return OnnxSide(name, load, threads=threads, entries=entries)


def _logits_side(name: str, run: Callable[[NDArray[np.float32]], NDArray[np.float32]], precision: str, _: int) -> Side:
    from calibration.tensors import LogitsSide

    return LogitsSide(name, run, precision)


def _runnable(graph: ModelProto) -> ModelProto:
    """Give a graph made for TensorRT's plugin the function bodies that it went without."""
    from edge_lsla.surgery.function import operator_functions

    held = {(function.domain, function.name) for function in graph.functions}
    graph.functions.extend(one for one in operator_functions(graph) if (one.domain, one.name) not in held)
    return graph


def _parsed(data: bytes) -> ModelProto:
    import onnx

    from calibration.counters import drop_counters

    return drop_counters(_runnable(onnx.load_from_string(data)))
