"""Models that show the tensors inside them: what `compare` sets side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto

from calibration.points import find_constants, layer_names
from edge_lsla.errors import GraphError

IMAGES, LOGITS = "images", "logits"
BEFORE = " before Q/DQ"
MOVES = frozenset({"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Identity"})
LARGEST_SHAPE = 64  # elements of a constant that may be a shape or axes, which types and shapes follow from


class Known(Protocol):
    """What is known of a tensor before a model runs; see `Made`."""

    @property
    def op(self) -> str: ...
    @property
    def layer(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def moves(self) -> bool: ...


@dataclass(frozen=True)
class Made:
    """What is known of a tensor before a model runs.

    Attributes:
        op: the operator that makes it; ", int8" follows where it is quantised at once.
        layer: name of the node that makes it, as `calibration.points` has it.
        module: the PyTorch module whose weights the node holds, as far as their names tell; else "".
        inputs: names of the tensors it is made from, constants left out.
        moves: whether the operator only moves values about.
    """

    op: str
    layer: str
    module: str
    inputs: tuple[str, ...]
    moves: bool


class Side(Protocol):
    """A model under comparison.

    Attributes:
        name: what to call it.
        precision: "fp32", "fp16" or "int8": the coarsest type it computes in.
        made: its float tensors by name, in the order in which they are made, among them `images` and `logits`; empty
            where nothing but logits can be seen.
        notes: what a reader of its numbers must know, a sentence each.
    """

    @property
    def name(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def made(self) -> Mapping[str, Known]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def tensors(self, images: NDArray[np.float32], wanted: Collection[str]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Run images float32 [N, 3, S, S]; yield name and value of the tensors `wanted`, and always of `logits`."""
        ...


class LogitsSide:
    """A model that shows nothing but its logits, such as an engine.

    Args:
        run: images float32 [N, 3, S, S] to logits float32 [N, classes].
    """

    made: Mapping[str, Known] = {}

    def __init__(
        self, name: str, run: Callable[[NDArray[np.float32]], NDArray[np.float32]], precision: str = "fp32"
    ) -> None:
        self.name, self.precision, self._run = name, precision, run
        self.notes = (f"{name} shows its logits only",)

    def tensors(self, images: NDArray[np.float32], wanted: Collection[str]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield "logits", float32 [N, classes]."""
        yield LOGITS, self._run(images)


class OnnxSide:
    """An ONNX graph in ONNX Runtime on the CPU, with the tensors outside its functions' bodies made visible.

    Where a tensor is quantised, its dequantised form stands for it. The tensors of a Q/DQ graph are computed as its
    nodes define them; its logits as ONNX Runtime runs it, on integers.

    Args:
        name: what to call it.
        load: gives the graph, from `images` to `logits`, with local functions or without; called for each session, so
            that the weights are not held here too.
        threads: of one inference; None: all.
        entries: configuration of the session that computes a Q/DQ graph's logits.

    Raises:
        GraphError: ONNX Runtime does not run it, or its input and output have other names.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], onnx.ModelProto],
        *,
        threads: int | None = None,
        entries: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self._load, self._threads = name, load, threads
        model = load()
        if [e.name for e in _inputs(model.graph)] != [IMAGES] or [e.name for e in model.graph.output] != [LOGITS]:
            raise GraphError("graph's input and output are not images and logits", name, "export it with `export`")
        self.precision = _precision(model)
        self._source, self.made = _survey(model)
        self._session: Any = None
        self._shown: list[str] = []
        self._integers: Any = None
        self._apart = 0.0
        if self.precision == "int8":
            self._integers = self._open(model, ort.GraphOptimizationLevel.ORT_ENABLE_ALL, entries or {})

    @property
    def notes(self) -> tuple[str, ...]:
        """How near the numbers are to a device's, as far as it was found until now."""
        if self.precision == "fp16":
            return (
                f"{self.name}: ONNX Runtime's CPU computes halves in float32 and rounds the tensors shown to float16; "
                "a GPU that computes in halves differs more",
            )
        if self.precision == "int8":
            return (
                f"{self.name}: tensors are as its Q/DQ nodes define them, logits as ONNX Runtime's integer kernels "
                f"compute them, which moved a logit by {self._apart:.2g} at most",
            )
        return ()

    def tensors(self, images: NDArray[np.float32], wanted: Collection[str]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Run images; yield the tensors `wanted` and `logits`, halves as float32.

        A session is made on the first call, and again whenever other tensors are wanted.

        Raises:
            GraphError: ONNX Runtime cannot run the graph, or not this batch.
        """
        names = [name for name in self.made if name in wanted or name == LOGITS]
        shown = [self._source[name] for name in names if self._source[name] != IMAGES]
        if self._session is None or shown != self._shown:
            self._session, self._shown = None, shown  # the old one's memory goes first
            entries = {"session.disable_quant_qdq": "1"}  # its rules for Q/DQ put other nodes in their place
            self._session = self._open(self._load(), ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, entries, shown)
        with _translated(self.name):
            values = self._session.run(shown, {IMAGES: images})[::-1]
            integers = self._integers.run([LOGITS], {IMAGES: images})[0] if self._integers is not None else None
        for name in names:
            value = images if self._source[name] == IMAGES else values.pop()
            if name == LOGITS and integers is not None:
                with np.errstate(invalid="ignore"):  # NaN and infinity are for `compare` to report
                    self._apart = max(self._apart, float(np.abs(integers - value).max(initial=0.0)))
                value = integers
            yield name, value.astype(np.float32) if value.dtype == np.float16 else value

    def _open(self, model: onnx.ModelProto, level: Any, entries: Mapping[str, str], shown: Collection[str] = ()) -> Any:
        """Start a session of a graph that also gives the tensors `shown`, whose types ONNX Runtime finds out."""
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its errors arrive as exceptions
        options.intra_op_num_threads = self._threads or 0
        options.graph_optimization_level = level
        options.enable_cpu_mem_arena = False  # it would keep what hundreds of outputs once took
        for key, value in {"session.disable_prepacking": "1", **entries}.items():
            options.add_session_config_entry(key, value)
        more = [onnx.ValueInfoProto(name=tensor) for tensor in shown if tensor != LOGITS]
        # Parts of one message that follow each other are merged: a copy with more outputs, without copying the weights.
        data = model.SerializeToString() + onnx.ModelProto(graph=onnx.GraphProto(output=more)).SerializeToString()
        del model
        with _translated(self.name):
            return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _survey(model: onnx.ModelProto) -> tuple[dict[str, str], dict[str, Made]]:
    """Return the tensor of the graph that stands for each name, and what is known of it, in graph order.

    A quantised tensor has two entries: its dequantised form has the name that the float graph has for it, what it was
    before has BEFORE added, because quantising can hide a NaN.
    """
    graph = model.graph
    names, constants = layer_names(graph), set(find_constants(graph))
    floats = _float_tensors(model)
    quantised = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    pairs: dict[str, str] = {}  # what is quantised to its dequantised form
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in quantised:
            pairs.setdefault(quantised[node.input[0]], node.output[0])
    makers = {tensor: node for node in graph.node for tensor in node.output}
    outputs = {entry.name for entry in graph.output}
    canonical: dict[str, str] = {}  # tensor of the graph to its name here; constants have none
    source: dict[str, str] = {}
    made: dict[str, Made] = {}

    def add(tensor: str, what: Made) -> None:
        if tensor not in pairs:
            canonical[tensor] = tensor
            if tensor in floats:
                source[tensor], made[tensor] = tensor, what
            return
        dequantised = pairs[tensor]
        own = dequantised in outputs or tensor == dequantised + "_float"  # see `calibration.qdq`
        name = dequantised if own else tensor
        before = name + BEFORE
        canonical[tensor], canonical[dequantised] = before, name
        source[before], made[before] = tensor, what
        source[name], made[name] = dequantised, Made(f"{what.op}, int8", what.layer, what.module, (before,), False)

    add(IMAGES, Made("input", IMAGES, "", (), False))
    for node in graph.node:
        read = tuple(dict.fromkeys(canonical[tensor] for tensor in node.input if tensor in canonical))
        if node.op_type == "QuantizeLinear" and node.input[0] in pairs:
            canonical[node.output[0]] = canonical[pairs[node.input[0]]]
        elif read:  # else it depends on constants only
            weights = [tensor for tensor in node.input if tensor in constants]
            # What an integer operator made is seen only once it is dequantised.
            maker = makers.get(node.input[0], node) if node.op_type == "DequantizeLinear" else node
            what = Made(maker.op_type, names[maker.output[0]], _module(weights), read, maker.op_type in MOVES)
            for tensor in node.output:
                if tensor and tensor not in canonical:
                    add(tensor, what)
    return source, made


def _module(weights: list[str]) -> str:
    """Return "stages.0.0.norm1" where a weight is called "stages.0.0.norm1.weight"."""
    return next((name.rpartition(".")[0] for name in weights if "." in name), "")


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Infer which tensors hold floats, on a copy without the weights' values."""
    graph = onnx.GraphProto(node=model.graph.node, input=model.graph.input, output=model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= LARGEST_SHAPE:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    bare.graph.CopyFrom(graph)
    inferred = onnx.shape_inference.infer_shapes(bare).graph
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    entries = (*inferred.input, *inferred.value_info, *inferred.output)
    return {entry.name for entry in entries if entry.type.tensor_type.elem_type in kinds}


def _precision(model: onnx.ModelProto) -> str:
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") or "Integer" in node.op_type for node in nodes):
        return "int8"
    casts = (a.i for node in nodes if node.op_type == "Cast" for a in node.attribute if a.name == "to")
    types = {*casts, *(tensor.data_type for tensor in model.graph.initializer)}
    return "fp16" if TensorProto.FLOAT16 in types else "fp32"


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return [entry for entry in graph.input if entry.name not in constants]


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's classes live in a private module
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        lines = str(error).strip().splitlines()
        reason = lines[0][:300] if lines else type(error).__name__
        raise GraphError("ONNX Runtime cannot run the graph", name, f"export it again ({reason})") from error
