"""Counts of parameters and multiply-adds, by hooks, so that a user's own module is counted too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edge_lsla.model.vit_lsla import LslaAttention


@dataclass(frozen=True)
class Counts:
    """Parameters (elements) and multiply-adds (for one image) of a module."""

    parameters: int
    multiply_adds: int


def count(model: nn.Module, image_size: int) -> dict[str, Counts]:
    """Count parameters and multiply-adds of a model and of each module in it.

    Convolutions, linear layers and attention's two products and scale are counted in their mathematical form;
    normalisation, biases and activations are not, as is the custom for published figures.

    Args:
        model: takes images [1, 3, image_size, image_size].

    Returns:
        Counts by module name; "" is the whole model.
    """
    found: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, LslaAttention)):
            handles.append(module.register_forward_hook(_recorder(name, found)))
    training = model.training
    try:
        with torch.no_grad():
            parameter = next(model.parameters())
            model.eval()(torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    result = {}
    for name, module in model.named_modules():
        inside = [n for n in found if name == "" or n == name or n.startswith(f"{name}.")]
        result[name] = Counts(sum(p.numel() for p in module.parameters()), sum(found[n] for n in inside))
    return result


def _recorder(name: str, found: dict[str, int]) -> Callable[[nn.Module, Any, Tensor], None]:
    def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            kernel = module.weight.shape[1:].numel()
            found[name] = found.get(name, 0) + output.numel() // output.shape[0] * kernel
        elif isinstance(module, nn.Linear):
            found[name] = found.get(name, 0) + output.numel() // output.shape[0] * module.in_features
        elif isinstance(module, LslaAttention):
            elements = output.numel() // output.shape[0]
            # Q Xt and P X are T each for every element of the output, the scale's dot product one.
            found[name] = found.get(name, 0) + elements * (2 * module.window**2 + 1)

    return record
