"""Random inputs of a variant, fresh for every seed, and the operator's answer in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plugins.gpu import formulas
from plugins.variants import Variant

EPSILON = 1e-5
TYPES = {"fp16": torch.float16, "fp32": torch.float32, "int8": torch.int8}


@dataclass(frozen=True)
class Shape:
    """How many windows there are: images, windows down and across each map, and heads."""

    batch: int
    down: int
    across: int
    heads: int

    @property
    def num_windows(self) -> int:
        """Windows in all images together."""
        return self.batch * self.down * self.across


@dataclass(frozen=True)
class Case:
    """The inputs of one launch in the operator's order, and what they stand for.

    Attributes:
        variant, shape: what is run, and on how much.
        inputs: the kernel's tensors, in the operator's order.
        real: the inputs before they were quantised (of int8), else the same tensors.
    """

    variant: Variant
    shape: Shape
    inputs: tuple[Tensor, ...]
    real: tuple[Tensor, ...]

    def output(self) -> Tensor:
        """Return an output of the right shape and type, poisoned: NaN, or -128 for int8."""
        return torch.full_like(self.inputs[0], -128 if self.variant.dtype == "int8" else float("nan"))

    def answer(self, *, as_given: bool = False) -> Tensor:
        """Return the operator's result in float64, of the reals before quantisation, or `as_given` in int8."""
        return compute(self.variant, self.given() if as_given else self.real, torch.float64)

    def given(self) -> tuple[Tensor, ...]:
        """Return the inputs as real numbers: int8 times its scale."""
        if self.variant.kernel != "quantised":
            return self.inputs
        x, query, *parameters, x_scale, query_scale, _ = self.inputs
        return (x.double() * x_scale.double(), query.double() * query_scale.double(), *parameters)

    def value(self, y: Tensor) -> Tensor:
        """Return a result as real numbers, float64."""
        return y.double() * self.inputs[-1].double() if self.variant.dtype == "int8" else y.double()


def compute(variant: Variant, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """Run the operator's formula in PyTorch in one type; inputs are real numbers in the operator's order."""
    cast = tuple(tensor.to(dtype) for tensor in inputs)
    return formula(variant, formulas.relative(variant.window, cast[0].device))(*cast)


def formula(variant: Variant, index: Tensor) -> Callable[..., Tensor]:
    """Return the operator as a function of its inputs alone, which PyTorch can compile; index is rel(i, j)."""
    window = variant.window

    def residual(
        x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor
    ) -> Tensor:
        norm, projection = (norm_weight, norm_bias), (weight, bias)
        return formulas.residual(x, norm, projection, _four(rest), window, EPSILON, index)

    def attention(x: Tensor, query: Tensor, *rest: Tensor) -> Tensor:
        return formulas.attention(x, query, _four(rest), window, index)

    return residual if variant.kernel == "residual" else attention


def _four(tensors: Sequence[Tensor]) -> formulas.Parameters:
    weight, bias, inner, outer = tensors[:4]
    return weight, bias, inner, outer


def random_case(variant: Variant, shape: Shape, seed: int, *, device: str = "cpu", spread: float = 1.0) -> Case:
    """Draw ordinary values: x, query normal with deviation `spread`; scales and tables spread as the demo model's."""
    generator = torch.Generator(device=device).manual_seed(seed)
    heads, width, side = shape.heads, variant.head_width, variant.window
    channels = heads * width
    kind = torch.float32 if variant.dtype == "int8" else TYPES[variant.dtype]

    def normal(*size: int, std: float = 1.0, mean: float = 0.0) -> Tensor:
        return (torch.randn(size, generator=generator, device=device) * std + mean).to(kind)

    map_shape = (shape.batch, shape.down * side, shape.across * side, channels)
    table = ((2 * side - 1) ** 2, heads)
    x = normal(*map_shape, std=spread)
    scale = (normal(heads, width, std=0.1), normal(heads, std=0.25, mean=0.54))
    parameters = (*scale, normal(*table, std=0.3), normal(*table, std=0.06))
    if variant.kernel == "residual":
        norm = (normal(channels, std=0.2, mean=1.0), normal(channels, std=0.2))
        projection = (normal(channels, channels, std=channels**-0.5), normal(channels, std=0.2))
        inputs = (x, *norm, *projection, *parameters)
        return Case(variant, shape, inputs, inputs)
    query = normal(*map_shape, std=spread)
    real = (x, query, *parameters)
    if variant.kernel == "attention":
        return Case(variant, shape, real, real)
    y = compute(variant, real, torch.float32)
    scales = [calibrate(tensor) for tensor in (x, query, y)]
    integers = [(tensor / scale).round().clamp(-128, 127).to(torch.int8) for tensor, scale in zip((x, query), scales)]
    return Case(variant, shape, (*integers, *parameters, *scales), real)


def calibrate(tensor: Tensor) -> Tensor:
    """Return the int8 scale, a float32 scalar, that loses least: some clipping costs less than a coarse step."""

    def lost(scale: Tensor) -> float:
        return float(((tensor / scale).round().clamp(-128, 127) * scale - tensor).square().sum())

    largest = tensor.abs().max() / 127
    return min((largest * (1 - part / 40) for part in range(20)), key=lost).float()
