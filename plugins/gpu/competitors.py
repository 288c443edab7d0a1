"""Other ways to compute a case on the same GPU, for its time to be seen beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from plugins.gpu import formulas
from plugins.gpu.cases import EPSILON, Case, formula
from plugins.gpu.driver import Kernel
from plugins.variants import Variant

Way = Callable[[Case, Tensor], object]


def competitors(variant: Variant, cases: list[Case], kernels: Mapping[Variant, Kernel]) -> dict[str, Way]:
    """Return other ways to compute each of the cases, by name; int8 competes with float16, PyTorch's nearest.

    eager and compile: the formula in PyTorch. sdpa: scaled_dot_product_attention and a product for the outer bias, the
    tables expanded beforehand. unfused, of the residual kernel: LayerNorm, projection and addition in PyTorch around
    our own attention kernel.
    """
    kind = torch.float32 if variant.dtype == "fp32" else torch.float16
    floats = {id(case): tuple(tensor.to(kind) for tensor in case.real) for case in cases}
    index = formulas.relative(variant.window, cases[0].inputs[0].device)
    plainly = formula(variant, index)
    torch._dynamo.reset()  # else it falls back to eager, silently, after eight shapes of one function
    compiled = torch.compile(plainly, dynamic=False)
    ways: dict[str, Way] = {
        "eager": lambda case, y: plainly(*floats[id(case)]),
        "compile": lambda case, y: compiled(*floats[id(case)]),
    }
    plain = kernels.get(Variant("attention", "fp16", variant.window, variant.head_width))
    if variant.kernel == "residual" and plain is not None:
        ways["unfused"] = _unfused(plain, cases)
    elif variant.kernel != "residual":
        tables = {
            key: [formulas.expand(table, index).contiguous() for table in value[4:6]] for key, value in floats.items()
        }

        def sdpa(case: Case, y: Tensor) -> Tensor:
            x, query, weight, bias, inner, outer = floats[id(case)][:6]
            whole_inner, whole_outer = tables[id(case)]
            parameters = (weight, bias, inner, outer)
            return formulas.attention_sdpa(x, query, parameters, whole_inner, whole_outer, variant.window)

        ways["sdpa"] = sdpa
    return ways


def _unfused(kernel: Kernel, cases: list[Case]) -> Way:
    """Return LayerNorm, projection and addition in PyTorch around our own attention kernel."""
    variant = kernel.entry
    plain = Variant("attention", "fp16", variant.window, variant.head_width)
    frames = {id(case): Case(plain, case.shape, case.inputs, case.inputs) for case in cases}

    def run(case: Case, y: Tensor) -> Tensor:
        x, norm_weight, norm_bias, weight, bias, *parameters = case.inputs
        n = torch.nn.functional.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps=EPSILON)
        query = torch.nn.functional.linear(n, weight.t(), bias)
        kernel(frames[id(case)], y, (n, query, *parameters))
        return x + y

    return run
