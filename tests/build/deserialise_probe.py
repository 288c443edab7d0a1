"""Run with TensorRT for RTX and this package on PYTHONPATH: try to read a plan; print what our table makes of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tensorrt_rtx as trt

from edge_lsla.tensorrt.messages import ErrorLines, explain, make_logger

if __name__ == "__main__":
    kept = ErrorLines()
    logger = make_logger(trt, kept)
    engine = trt.Runtime(logger).deserialize_cuda_engine(Path(sys.argv[1]).read_bytes())
    error = explain(kept.lines, "reading an engine")
    print(f"{engine is None} {type(error).__name__} {error}", flush=True)
    os._exit(0)  # not through the destructors, which may crash without a GPU
