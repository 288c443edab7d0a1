"""An ONNX file's inputs, outputs and operators, read straight from its protobuf encoding.

A device that rebuilds an engine from a bundle has no onnx package, and TensorRT's parser is no judge of a file: it
takes an empty or foreign one for a model without layers. Source of the field numbers: onnx.proto, IR version 3 to 13.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_lsla.build.tensorrt.protobuf import read_fields, read_message, read_number, read_text
from edge_lsla.build.tensorrt.weights import check_tensor
from edge_lsla.errors import GraphError

FLOAT = 1  # TensorProto.DataType
_EXTERNAL = 1  # TensorProto.DataLocation
LARGEST_SIDE = 4096  # of a picture, in pixels; `Preprocessing` takes no more
_LARGEST_SIZE = 2**31 - 1
# ONNX gains about two versions of its operators a year, and had 26 in 2025; its format had 13.
_LARGEST_VERSION = 64


@dataclass(frozen=True)
class Tensor:
    """An input or output of the graph.

    Attributes:
        element: TensorProto.DataType; 0 where the file says none.
        shape: a size, or the name of a size that is free ("" where it has none).
    """

    name: str
    element: int
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Node:
    """A node: its operator and its name."""

    domain: str
    operator: str
    name: str


@dataclass(frozen=True)
class Outline:
    """What is read of a model.

    Attributes:
        nodes: of the graph, in order, then those of the local functions.
        functions: (domain, name) of the local functions.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    functions: frozenset[tuple[str, str]]


def read_outline(data: bytes) -> Outline:
    """Read a serialised ModelProto.

    Raises:
        GraphError: not an ONNX model, cut short, damaged, of a later ONNX, or its weights lie in other files.
    """
    graph, functions, nodes, domains = None, set(), [], set()
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    initialisers = set()
    try:
        later = []
        for number, value in read_fields(memoryview(data)):
            if number == 1 and isinstance(value, int):
                _check_version("format", value)
            elif number == 7:
                graph = read_message(value)
            elif number == 25:
                body = read_message(value)
                functions.add((read_text(body, 10), read_text(body, 1)))
                later += [_checked_node(read_message(node)) for kind, node in read_fields(body) if kind == 7]
            elif number == 8:
                imported = read_message(value)
                domains.add(domain := read_text(imported, 1))
                _check_version(f"operators of {domain or 'ONNX'}", read_number(imported, 2))
        for number, value in read_fields(graph) if graph is not None else ():
            if number == 1:
                nodes.append(_checked_node(read_message(value)))
            elif number == 5:
                weight = read_message(value)
                if read_number(weight, 14) == _EXTERNAL:
                    raise GraphError(
                        "the graph keeps weights in other files", read_text(weight, 8), "save it as one file"
                    )
                check_tensor(weight)
                initialisers.add(read_text(weight, 8))
            elif number == 11:
                inputs.append(_tensor(read_message(value)))
            elif number == 12:
                outputs.append(_tensor(read_message(value)))
    except (ValueError, UnicodeDecodeError) as error:
        raise GraphError("the ONNX file is corrupt or cut short", str(error), "export it again") from error
    # The version of the standard operators comes last in a file: without it the end is missing.
    if not nodes or not outputs or not domains & {"", "ai.onnx"}:
        raise GraphError("this is not an ONNX model", "it holds no whole graph", "give the file that `export` wrote")
    # Before IR version 4 weights were inputs as well.
    real = tuple(tensor for tensor in inputs if tensor.name not in initialisers)
    return Outline(real, tuple(outputs), (*nodes, *later), frozenset(functions))


def _check_version(what: str, version: int) -> None:
    if version > _LARGEST_VERSION:
        raise GraphError(
            "the ONNX file is damaged, or needs a newer edge-lsla", f"{what}, version {version}", "export it again"
        )


def check_border(
    outline: Outline,
    largest_batch: int,
    smallest_batch: int,
    *,
    image_size: int | None = None,
    classes: int | None = None,
) -> None:
    """Refuse a graph without `images` [N, 3, H, W] float32 in and `logits` [N, classes] float32 out.

    Args:
        outline: of the graph.
        largest_batch, smallest_batch: of the profiles.
        image_size: what H and W must be, where it is known: the passport's `preprocessing.image_size`.
        classes: how many logits there must be, where it is known: the passport's labels.

    Raises:
        GraphError: other inputs or outputs, other types or sizes, or a batch size that the profiles do not fit.
    """
    for what, tensors, name, rank in (
        ("input", outline.inputs, "images", 4),
        ("output", outline.outputs, "logits", 2),
    ):
        names = ", ".join(tensor.name for tensor in tensors) or "none"
        if [tensor.name for tensor in tensors] != [name]:
            raise GraphError(f"the graph's {what} is not {name!r}", names, "give the graph of a ViT-LSLA")
        tensor = tensors[0]
        if tensor.element != FLOAT:
            raise GraphError(f"{name} is not float32", f"ONNX type {tensor.element}", "keep float32 at the border")
        if len(tensor.shape) != rank:
            raise GraphError(f"{name} has {len(tensor.shape)} dimensions, not {rank}", tensor.shape, "export it again")
        if any(isinstance(size, int) and size > _LARGEST_SIZE for size in tensor.shape):
            raise GraphError("the ONNX file is damaged", f"{name} {list(tensor.shape)}", "export it again")
    shape, where = outline.inputs[0].shape, f"images {list(outline.inputs[0].shape)}"
    if not all(isinstance(size, int) and size > 0 for size in shape[1:]):
        raise GraphError("only the batch size may be free", where, "export with one image size")
    if shape[1] != 3 or any(isinstance(size, int) and size > LARGEST_SIDE for size in shape[2:]):
        raise GraphError(f"images is not 3 colours of at most {LARGEST_SIDE} pixels a side", where, "export it again")
    if image_size is not None and shape[2:] != (image_size, image_size):
        what = f"the graph's pictures are not those of the passport, {image_size} pixels a side"
        raise GraphError(what, where, "rebuild the bundle")
    width = outline.outputs[0].shape[1]
    if classes is not None and isinstance(width, int) and width != classes:
        what = f"the graph has {width} classes and the passport {classes}"
        raise GraphError(what, f"logits {list(outline.outputs[0].shape)}", "rebuild the bundle")
    if isinstance(shape[0], int) and not smallest_batch == largest_batch == shape[0]:
        raise GraphError(
            f"the graph is for batches of {shape[0]}, not {smallest_batch} to {largest_batch}",
            where,
            "export it with a free batch size, or ask for that batch",
        )


def read_node(node: memoryview) -> Node:
    """Read a NodeProto."""
    domain = read_text(node, 7)
    return Node("" if domain == "ai.onnx" else domain, read_text(node, 4), read_text(node, 3))


def _checked_node(node: memoryview) -> Node:
    for number, value in read_fields(node):
        if number == 5:  # an attribute, whose tensor is field 5 again
            for kind, tensor in read_fields(read_message(value)):
                if kind == 5:
                    check_tensor(read_message(tensor))
    return read_node(node)


def _tensor(info: memoryview) -> Tensor:
    element, shape = 0, []
    for number, kind in read_fields(info):
        if number != 2:
            continue
        for which, tensor in read_fields(read_message(kind)):
            if which != 1:  # a sequence, map or optional
                continue
            element = read_number(read_message(tensor), 1)
            dimensions = [read_message(value) for field, value in read_fields(read_message(tensor)) if field == 2]
            for dimension in dimensions:
                for field, size in read_fields(dimension):
                    if field == 1:
                        shape.append(_size(read_message(size)))
    return Tensor(read_text(info, 1), element, tuple(shape))


def _size(dimension: memoryview) -> int | str:
    for number, value in read_fields(dimension):
        if number == 1 and isinstance(value, int):
            return value
    return read_text(dimension, 2)
