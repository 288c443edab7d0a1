"""ONNX Runtime's calibrators, restricted to chosen tensors, silent, and with bounded memory."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import (
    EntropyCalibrater,
    HistogramCollector,
    MinMaxCalibrater,
    PercentileCalibrater,
)

from calibration.settings import CalibrationSettings
from edge_lsla.errors import GraphError

ENTROPY_LEVELS = 128  # positive and negative levels that the KL divergence is taken over
SMALLEST_EXPONENT = -100  # activations below 2**-100 count as zero
FINITE = "_finite_check"


class _Chosen:
    """Makes a calibrator measure the tensors it is given, instead of all inputs and outputs of some operators."""

    chosen: Sequence[str]

    def select_tensors_to_calibrate(self, model: onnx.ModelProto) -> tuple[Sequence[str], dict[str, Any]]:
        graph = model.graph
        return self.chosen, {v.name: v for v in (*graph.value_info, *graph.output, *graph.input)}


class _MinMax(_Chosen, MinMaxCalibrater):  # type: ignore[misc]  # onnxruntime has no types
    pass


class _Entropy(_Chosen, EntropyCalibrater):  # type: ignore[misc]
    pass


class _Percentile(_Chosen, PercentileCalibrater):  # type: ignore[misc]
    pass


class FoldingCollector(HistogramCollector):  # type: ignore[misc]
    """Histograms whose range is a power of two and doubles by merging pairs of bins.

    ONNX Runtime's own collector keeps the width of the bins of the first batch and adds bins as values grow: a first
    batch that is nearly zero then asks for millions of bins. Here the number of bins is fixed, and the histogram
    depends only on the values, not on how they were batched.
    """

    def collect(self, name_to_arr: dict[str, list[NDArray[Any]]]) -> None:
        """Add values of each tensor."""
        for tensor, arrays in name_to_arr.items():
            for array in arrays:
                self._add(tensor, array)

    def _add(self, tensor: str, array: NDArray[Any]) -> None:
        low, high = array.min(), array.max()
        peak = float(max(abs(low), abs(high)))
        exponent = max(math.frexp(peak)[1], SMALLEST_EXPONENT)  # peak < 2**exponent, strictly
        bins = self.num_bins
        if tensor in self.histogram_dict:
            counts, _, old_low, old_high, threshold = self.histogram_dict[tensor]
            low, high = min(low, old_low), max(high, old_high)
            old_exponent = math.frexp(threshold)[1] - 1
            for _ in range(exponent - old_exponent):
                folded = np.zeros_like(counts)
                folded[bins // 4 : 3 * bins // 4] = counts.reshape(-1, 2).sum(axis=1)
                counts = folded
            exponent = max(exponent, old_exponent)
        else:
            counts = np.zeros(bins, np.int64)
        # Scaling by a power of two is exact in floating point, so the bin of a value does not depend on the batch.
        index = np.floor(np.ldexp(array.reshape(-1), -exponent) * np.float32(bins // 2)).astype(np.int32)
        counts = counts + np.bincount(index + bins // 2, minlength=bins)
        threshold = math.ldexp(1.0, exponent)
        edges = np.linspace(-threshold, threshold, bins + 1, dtype=np.float32)
        self.histogram_dict[tensor] = (counts, edges, low, high, threshold)


class _CheckedSession:
    """An ONNX Runtime session that refuses activations which are not finite."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def run(self, names: None, feeds: dict[str, NDArray[np.float32]]) -> Any:
        values = self._session.run(names, feeds)
        for name, value in zip(self._names, values):
            if name.endswith(FINITE) and not np.isfinite(value).all():
                raise GraphError(
                    "activations hold NaN or infinity", name[: -len(FINITE)], "check the weights and the images"
                )
        return values


class _OneBatch:
    """ONNX Runtime's data reader interface over one batch."""

    def __init__(self, feeds: dict[str, NDArray[np.float32]]) -> None:
        self._feeds: dict[str, NDArray[np.float32]] | None = feeds

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        feeds, self._feeds = self._feeds, None
        return feeds


class Calibrator:
    """Measures the ranges of some tensors of one graph, batch by batch; made by `open_calibrator`."""

    def __init__(self, inner: Any, input_name: str) -> None:
        self._inner, self._input = inner, input_name

    def collect(self, images: NDArray[np.float32]) -> None:
        """Run one batch; nothing of it but ranges or histograms is kept.

        Raises:
            GraphError: an activation is NaN or infinite (the message names the tensor), or the graph does not run.
        """
        with _silent(), _translated():
            self._inner.collect_data(_OneBatch({self._input: images}))

    def compute(self) -> dict[str, tuple[float, float]]:
        """Return (low, high) of each tensor."""
        with _silent():
            data = self._inner.compute_data()
        ranges = {}
        for tensor, entry in data.items():
            low, high = (float(np.asarray(value).reshape(-1)[0]) for value in entry.range_value)
            # A percentile is given as the lower edge of its bin, which for a constant lies below the minimum.
            ranges[tensor] = (low, max(low, high))
        return ranges


@contextlib.contextmanager
def open_calibrator(
    graph: onnx.ModelProto, tensors: Sequence[str], settings: CalibrationSettings
) -> Iterator[Calibrator]:
    """Give a calibrator for `tensors` of a graph without model-local functions; its files are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="edge-lsla-calibration-") as folder:
        with _silent(), _translated():
            inner = _open(_with_finite_checks(graph, tensors), tensors, settings, Path(folder))
        yield Calibrator(inner, graph.graph.input[0].name)


def _open(model: onnx.ModelProto, tensors: Sequence[str], settings: CalibrationSettings, folder: Path) -> Any:
    path = folder / "graph.onnx"
    onnx.save(model, path)
    places = {"augmented_model_path": str(folder / "augmented.onnx")}
    inner: Any
    if settings.method == "minmax":
        inner = _MinMax(path, **places)
    elif settings.method == "entropy":
        inner = _Entropy(path, num_bins=settings.bins, num_quantized_bins=ENTROPY_LEVELS, **places)
    else:
        inner = _Percentile(path, num_bins=settings.bins, percentile=settings.percentile, **places)
    if settings.method != "minmax":
        inner.collector = FoldingCollector(
            settings.method, False, settings.bins, ENTROPY_LEVELS, settings.percentile, "same"
        )
    inner.chosen = tensors
    inner.augment_graph()
    inner.create_inference_session()
    inner.infer_session = _CheckedSession(inner.infer_session)
    return inner


def _with_finite_checks(graph: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Add sum(0 * tensor), which is 0 or NaN: the min-max calibrator skips NaN, and would hide it."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    known = {v.name for v in (*model.graph.value_info, *model.graph.output, *model.graph.input)}
    zero = onnx.numpy_helper.from_array(np.float32(0), "zero" + FINITE)
    model.graph.initializer.append(zero)
    for tensor in tensors:
        if tensor not in known:
            model.graph.value_info.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
        product, total = f"{tensor}_times_zero", tensor + FINITE
        model.graph.node.append(onnx.helper.make_node("Mul", [tensor, zero.name], [product]))
        model.graph.node.append(onnx.helper.make_node("ReduceSum", [product], [total], keepdims=0))
        model.graph.output.append(onnx.helper.make_tensor_value_info(total, onnx.TensorProto.FLOAT, []))
    return model


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    # ONNX Runtime's calibrators print; standard output belongs to the command line's --json.
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn ONNX Runtime's and onnx's own errors into GraphError."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("onnxruntime", "onnx")):
            raise
        lines = str(error).strip().splitlines()
        reason = lines[0][:300] if lines else type(error).__name__
        raise GraphError("ONNX Runtime cannot run the graph", None, f"export it again ({reason})") from error
