"""Every tensor inside a PyTorch model, by the name that `export_onnx` gives it in the ONNX file.

torch's exporter calls a tensor of the graph as the FX node that made it, and `fuse` keeps the names of what it does not
replace. So the traced program, run node by node, says what each named tensor of those files is in PyTorch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_lsla.errors import GraphError, UsageError
from edge_lsla.export.onnx_export import INPUT, OUTPUT, ExportSettings, device_of, trace

# What only moves values about; `clone` copies them.
MOVES = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "permute",
        "transpose",
        "t",
        "unsqueeze",
        "squeeze",
        "expand",
        "flatten",
        "clone",
        "contiguous",
        "alias",
        "detach",
    ]
)
NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"  # torch's name for a node outside every module


@dataclass(frozen=True)
class TracedTensor:
    """What is known of a tensor before the model runs.

    Attributes:
        op: the ATen operator that makes it, "linear"; "input" of the images.
        layer: the FX node's name.
        module: path of the module it is made in, "stages.0.0.norm1"; "" outside of all.
        inputs: names of the tensors it is made from, weights left out.
        moves: whether the operator only moves values about.
    """

    op: str
    layer: str
    module: str
    inputs: tuple[str, ...]
    moves: bool


class TracedModel:
    """A classifier that shows its inner tensors; one side of `calibration.compare`.

    Attributes:
        name: what to call it.
        precision: "fp32".
        notes: what a reader of its numbers must know: nothing.
        made: the float tensors by name, in the order in which they are made, `images` and `logits` included.

    Args:
        model: a classifier, float32; it is put into evaluation mode and moved nowhere.
        image_size: side of the square input, pixels.
        opset: that of the ONNX file whose names are wanted.

    Raises:
        GraphError: torch cannot trace the model.
    """

    precision = "fp32"
    notes: tuple[str, ...] = ()

    def __init__(self, name: str, model: nn.Module, image_size: int, *, opset: int = ExportSettings.opset) -> None:
        self.name, self._size, self._device = name, image_size, device_of(model)
        program = trace(model.eval(), image_size, opset).exported_program
        if program is None:
            raise GraphError("torch gave no program to look into", type(model).__name__, "report this")
        self._program = program.module()
        self._names = _names(self._program)
        self.made: dict[str, TracedTensor] = {}
        for node in self._program.graph.nodes:
            self._survey(node)

    def tensors(
        self, images: NDArray[np.float32], wanted: Collection[str] | None = None
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Run images float32 [N, 3, S, S]; yield name and value, float32, of the tensors `wanted` (None: all).

        They come in the order in which they are made, and each is freed when nothing needs it any more.

        Raises:
            UsageError: the images have another shape or type.
        """
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (3, self._size, self._size):
            raise UsageError(
                f"images are {images.dtype} {list(images.shape)}",
                self.name,
                f"they must be float32 [N, 3, {self._size}, {self._size}]",
            )
        for node, value in _Stepper(self._program).steps(torch.from_numpy(images).to(self._device)):
            name = self._names[node]
            if name in self.made and (wanted is None or name in wanted):
                yield name, value.to("cpu", torch.float32).numpy()

    def _survey(self, node: torch.fx.Node) -> None:
        """Note what a node makes, where that is a float tensor which depends on the images."""
        value = node.meta.get("val")
        inputs = tuple(name for other in node.all_input_nodes if (name := self._names[other]) in self.made)
        if node.op != "placeholder" and (node.op != "call_function" or not inputs):
            return
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return
        op = "input" if node.op == "placeholder" else _operator(node)
        modules = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        module = modules[-1] if modules and modules[-1] != NO_MODULE else ""
        self.made[self._names[node]] = TracedTensor(op, node.name, module, inputs, op in MOVES)


class _Stepper(torch.fx.Interpreter):
    """Runs a program as `Interpreter.run` does, and shows each node's value."""

    def __init__(self, program: torch.fx.GraphModule) -> None:
        super().__init__(program)
        self._nodes = program.graph.nodes

    def steps(self, images: torch.Tensor) -> Iterator[tuple[torch.fx.Node, Any]]:
        self.env = {}
        self.args_iter = iter((images,))
        for node in self._nodes:
            with torch.no_grad():  # not around the yield, where it would reach the caller
                self.env[node] = self.run_node(node)
            yield node, self.env[node]
            for dead in self.user_to_last_uses.get(node, ()):
                del self.env[dead]


def _operator(node: torch.fx.Node) -> str:
    """Return "linear" of aten.linear.default."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))


def _names(program: torch.fx.GraphModule) -> dict[torch.fx.Node, str]:
    """Name nodes as the ONNX file does: its input and output have names of their own."""
    names = {node: node.name for node in program.graph.nodes}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            names[node] = INPUT
        elif node.op == "output":
            for result in node.all_input_nodes:
                names[result] = OUTPUT
    return names
