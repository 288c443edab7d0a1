"""Running a float graph and seeing its inner tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from edge_lsla.errors import GraphError


class Activations:
    """One ONNX Runtime session that gives tensors of a graph as well as its outputs.

    ONNX Runtime keeps every tensor that is asked for, so its own optimisations may run: they make it about twice as
    fast as the unoptimised graph that its calibrators run (160 against 290 ms an image of vit_lsla_t on two cores).

    Args:
        model: float32, one input; functions may remain. It is not changed.
        tensors: names of tensors outside functions.
        fusions: whether integer kernels may take the place of Q/DQ nodes; without, what the graph says is computed in
            float, the same on every processor.

    Raises:
        GraphError: ONNX Runtime cannot run the graph.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], fusions: bool = True) -> None:
        wide = onnx.ModelProto()
        wide.CopyFrom(model)
        self._input = wide.graph.input[0].name
        outputs = [output.name for output in wide.graph.output]
        inner = [name for name in dict.fromkeys(tensors) if name not in outputs and name != self._input]
        wide.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in inner)
        self._names = outputs + inner
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors come as exceptions; standard error belongs to the command line
        if not fusions:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        with _translated():
            self._session = ort.InferenceSession(wide.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return the tensors and the graph's outputs for images [N, 3, H, W].

        Raises:
            GraphError: the graph does not run on them.
        """
        with _translated():
            values = self._session.run(self._names, {self._input: images})
        return {self._input: images, **dict(zip(self._names, values))}


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn ONNX Runtime's own errors into GraphError."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        lines = str(error).strip().splitlines()
        reason = lines[0][:300] if lines else type(error).__name__
        raise GraphError("ONNX Runtime cannot run the graph", None, f"export it again ({reason})") from error
