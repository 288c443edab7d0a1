"""Golden arrays as .npy bytes with one header for one type and shape, so that none is believed before it is compared.

Source: NumPy's format 1.0 (numpy.lib.format). NumPy's own writer pads headers differently from version to version.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import BundleError

_MAGIC = b"\x93NUMPY\x01\x00"
_ALIGNMENT = 64


def npy_size(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes that `npy_bytes` gives for an array of this type and shape."""
    size = np.dtype(dtype).itemsize
    for side in shape:  # Python integers do not overflow
        size *= side
    return len(_header(dtype, shape)) + size


def npy_bytes(array: NDArray[Any], dtype: str) -> bytes:
    """Write an array as little-endian `dtype`, C order, readable by `numpy.load`."""
    return _header(dtype, array.shape) + np.ascontiguousarray(array, dtype=dtype).tobytes()


def parse_npy(data: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the array in `data`, read-only; it shares `data`'s memory.

    Raises:
        BundleError: `data` is not an array of exactly this type and shape.
    """
    header = _header(dtype, shape)
    if len(data) != npy_size(dtype, shape) or not data.startswith(header):
        raise BundleError(f"not an array {np.dtype(dtype)} {list(shape)}", "golden", "rebuild the bundle")
    return np.frombuffer(data, np.dtype(dtype), offset=len(header)).reshape(shape)


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    sides = ", ".join(str(side) for side in shape) + ("," if len(shape) == 1 else "")
    text = f"{{'descr': '{np.dtype(dtype).str}', 'fortran_order': False, 'shape': ({sides}), }}".encode("ascii")
    start = len(_MAGIC) + 2
    padded = text + b" " * (-(start + len(text) + 1) % _ALIGNMENT) + b"\n"
    return _MAGIC + struct.pack("<H", len(padded)) + padded
