"""Model-Optimizer's INT8 of one ONNX file, in the environment that has it: started by `quantisation_peers`.

`python quantisation_peers_modelopt.py GRAPH PICTURES.npy OUTPUT METHOD LAYERS...`; prints the version. LAYERS are node
names to quantise; "gemms": all Conv, MatMul and Gemm; "default": what it chooses itself.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import numpy as np
from modelopt.onnx.quantization import quantize


def main(graph: str, pictures: str, output: str, method: str, *layers: str) -> None:
    placement = {
        ("default",): {},
        ("gemms",): {"op_types_to_quantize": ["Conv", "MatMul", "Gemm"]},
    }.get(layers, {"nodes_to_quantize": [f"^{name}$" for name in layers]})
    quantize(
        graph,
        quantize_mode="int8",
        calibration_data={"images": np.load(pictures)},
        calibration_method=method,
        calibration_eps=["cpu"],
        output_path=output,
        high_precision_dtype="fp32",  # else the rest becomes float16, and INT8 would not be what is compared
        log_level="ERROR",
        **placement,
    )
    print(version("nvidia-modelopt"))


if __name__ == "__main__":
    main(*sys.argv[1:])
