"""The switched graph: for every assignment the numbers of the graph that `insert_qdq` builds for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from calibration_graphs import classifier, graph
from numpy.typing import NDArray
from onnx import helper

from calibration.points import find_attentions, find_layers
from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.ranges_file import Ranges
from calibration.settings import CalibrationSettings, QdqSettings
from calibration.switches import SwitchedSession, switchable, switched_names
from edge_lsla.errors import GraphError, RangesError, UsageError
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.checkpoint import open_checkpoint
from edge_lsla.preprocessing import find_pictures, to_tensor
from edge_lsla.surgery.fuse import fuse

Images = NDArray[np.float32]
BACKENDS = ("tensorrt", "onnxruntime")
DEMO = Path(__file__).parents[2] / "demo"


def data(*shape: int) -> Images:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def ranges_of(model: onnx.ModelProto, images: Images) -> Ranges:
    return collect_ranges(model, [images], CalibrationSettings())


def built(
    model: onnx.ModelProto, ranges: Ranges, settings: QdqSettings, int8: tuple[str, ...], images: Images
) -> Images:
    """Logits of the graph that is built for one assignment, run as `SwitchedSession` runs its own."""
    kept = tuple(name for name in switched_names(model, settings) if name not in int8)
    quantised = insert_qdq(model, ranges, QdqSettings(settings.backend, keep_float=kept, attention=settings.attention))[
        0
    ]
    options = ort.SessionOptions()
    if settings.backend == "tensorrt":
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: Images = session.run(None, {"images": images})[0]
    return logits


def assignments(names: tuple[str, ...], count: int) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(6)
    some = [tuple(name for name in names if rng.random() < 0.5) for _ in range(count)]
    return [(), names, *some]


def check(model: onnx.ModelProto, ranges: Ranges, settings: QdqSettings, images: Images, count: int) -> None:
    session = SwitchedSession(model, ranges, settings, threads=1)
    results = []
    for int8 in assignments(session.names, count):
        found = session.logits(images, session.mask(int8))
        expected = built(model, ranges, settings, int8, images)
        # Measured: bit for bit the same. Float32 rounding is allowed for, in case a fusion across a layer's border
        # orders a sum otherwise; one level of one activation would already give 1e-3.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        results.append(found)
    assert np.abs(results[0] - results[1]).max() > 1e-4 * np.abs(results[0]).max()  # the switches do switch


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiny_model_gives_the_numbers_of_insert_qdq(model: onnx.ModelProto, images: Images, backend: str) -> None:
    check(model, ranges_of(model, images), QdqSettings(backend), data(4, 3, 32, 32), 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_demo_model_gives_the_numbers_of_insert_qdq(demo: tuple[onnx.ModelProto, Images, Ranges], backend: str) -> None:
    model, pictures, ranges = demo
    assert len(switched_names(model, QdqSettings(backend))) == 26
    check(model, ranges, QdqSettings(backend), pictures[:8], 3)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, Images, Ranges]:
    """The shipped model, fused, with a few of the shipped pictures and ranges from them."""
    loaded = open_checkpoint(DEMO / "vit_lsla_demo.safetensors")
    path: Path = tmp_path_factory.mktemp("demo") / "demo.onnx"
    export_onnx(loaded.model, loaded.image_size, path)
    model = fuse(onnx.load(path))[0]
    paths = find_pictures(DEMO / "heldout")[::20]
    pictures = np.stack([to_tensor(picture, loaded.description.preprocessing) for picture in paths])
    return model, pictures, ranges_of(model, pictures)


def test_attention_is_switched_where_the_settings_say_int8(fused: onnx.ModelProto, images: Images) -> None:
    settings = QdqSettings("tensorrt", attention="int8")
    names = switched_names(fused, settings)
    assert names[-2:] == tuple(attention.name for attention in find_attentions(fused))
    assert names[:-2] == switched_names(fused, QdqSettings("tensorrt"))
    check(fused, ranges_of(fused, images), settings, data(4, 3, 32, 32), 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_layouts_and_grouped_convolutions(backend: str, trans_b: int) -> None:
    model = classifier(trans_b, groups=2)
    check(model, ranges_of(model, data(16, 4, 8, 8)), QdqSettings(backend), data(16, 4, 8, 8), 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_and_weights_that_layers_share(backend: str) -> None:
    model = graph(
        [
            helper.make_node("MatMul", ["images", "w"], ["a"]),
            helper.make_node("MatMul", ["images", "w"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["both"]),
            helper.make_node("Conv", ["both", "k"], ["c"]),  # without a bias: its pair is the next one's
            helper.make_node("Conv", ["c", "k"], ["logits"]),
        ],
        {"w": data(8, 8) / 3, "k": data(3, 3, 1, 1)},
    )
    images = data(4, 3, 8, 8)
    check(model, ranges_of(model, images), QdqSettings(backend), images, 6)


def test_names_are_the_layers_that_the_backend_can_run(fused: onnx.ModelProto) -> None:
    layers = tuple(layer.name for layer in find_layers(fused))
    assert switched_names(fused, QdqSettings("tensorrt")) == layers
    assert switched_names(fused, QdqSettings("tensorrt", keep_float=layers[1:3])) == (layers[0], *layers[3:])
    computed = graph(
        [
            helper.make_node("ReduceMean", ["images", "axes"], ["bias"], keepdims=0),
            helper.make_node("Conv", ["images", "w", "bias"], ["logits"], name="conv"),
        ],
        {"w": data(3, 3, 1, 1), "axes": np.array([0, 2, 3])},
    )
    assert switched_names(computed, QdqSettings("tensorrt")) == ("conv",)
    assert switched_names(computed, QdqSettings("onnxruntime")) == ()


def test_same_input_same_bytes_and_the_model_is_not_changed(fused: onnx.ModelProto, images: Images) -> None:
    before = fused.SerializeToString(deterministic=True)
    ranges = ranges_of(fused, images)
    a, b = (switchable(fused, ranges, QdqSettings("onnxruntime")) for _ in range(2))
    assert a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)
    assert fused.SerializeToString(deterministic=True) == before
    assert [entry.name for entry in a.graph.input] == ["images", "int8"]


def test_wrong_input_is_refused(fused: onnx.ModelProto, images: Images) -> None:
    ranges = ranges_of(fused, images)
    layers = tuple(layer.name for layer in find_layers(fused))
    with pytest.raises(RangesError, match="another model"):
        switchable(classifier(), ranges, QdqSettings("tensorrt"))
    with pytest.raises(GraphError, match="no layer can run in INT8"):
        switchable(fused, ranges, QdqSettings("tensorrt", keep_float=layers))
    with pytest.raises(UsageError, match="nowhere"):
        switchable(fused, ranges, QdqSettings("tensorrt", keep_float=("nowhere",)))
    session = SwitchedSession(fused, ranges, QdqSettings("tensorrt"), threads=1)
    with pytest.raises(UsageError, match="nowhere"):
        session.mask(["nowhere"])
