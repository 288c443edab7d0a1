"""Run with a TensorRT runtime on PYTHONPATH: print the names of its Python API as `record_surface` writes them."""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    trt = importlib.import_module(sys.argv[1])
    for name in dir(trt):
        print(name)
        value = getattr(trt, name)
        if isinstance(value, type):
            for member in dir(value):
                print(f"{name}.{member}")
