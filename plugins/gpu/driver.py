"""Loading a cubin and launching it through the CUDA driver, in PyTorch's context and on its stream."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from edge_lsla.errors import EdgeLslaError, MissingComponentError
from plugins.gpu.cases import EPSILON, Case
from plugins.index import Entry

MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
LARGE_SHARED = 48 * 1024  # more must be asked for


class Kernel:
    """One loaded variant; call it with a case and an output.

    Raises:
        MissingComponentError: there is no CUDA driver.
        EdgeLslaError: the driver refused the module or a launch.
    """

    def __init__(self, entry: Entry, image: bytes) -> None:
        torch.cuda.current_stream().synchronize()  # makes PyTorch's context current
        self.entry = entry
        self._cuda = _library()
        self._image = ctypes.create_string_buffer(image + b"\0")
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._check("load the module", self._cuda.cuModuleLoadData(ctypes.byref(module), self._image))
        name = entry.symbol.encode()
        self._check("find the kernel", self._cuda.cuModuleGetFunction(ctypes.byref(function), module, name))
        if entry.shared_bytes > LARGE_SHARED:
            code = self._cuda.cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED, entry.shared_bytes)
            self._check("reserve shared memory", code)
        self._function = function

    def __call__(self, case: Case, y: Tensor, inputs: tuple[Tensor, ...] | None = None) -> None:
        """Launch on the current stream; `inputs` replaces those of the case, to time on other data."""
        variant, shape = case.variant, case.shape
        processors = torch.cuda.get_device_properties(y.device).multi_processor_count
        per_program = variant.per_program(shape.num_windows, shape.heads, processors)
        arguments: list[Any] = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*(inputs or case.inputs), y)]
        if variant.kernel == "residual":
            arguments.append(ctypes.c_float(EPSILON))
        numbers = (shape.num_windows, shape.down, shape.across, shape.heads, per_program)
        arguments += [ctypes.c_int32(number) for number in numbers]
        arguments += [ctypes.c_void_p(), ctypes.c_void_p()]  # Triton's scratch memory, unused
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        grid = variant.grid(shape.num_windows, shape.heads, per_program)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        block, shared = self.entry.threads, self.entry.shared_bytes
        code = self._cuda.cuLaunchKernel(self._function, grid, 1, 1, block, 1, 1, shared, stream, pointers, None)
        self._check("launch", code)

    def _check(self, doing: str, code: int) -> None:
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            raise EdgeLslaError(f"CUDA could not {doing}", f"{self.entry.name}: {reason} ({code})")


def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise MissingComponentError(
            "there is no CUDA driver", str(error), "run this on a machine with a GPU"
        ) from error
