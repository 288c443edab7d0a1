"""The method that keeps the logits best: what it is chosen by, ties, both backends, and its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from calibration_graphs import classifier, run
from numpy.typing import NDArray

from calibration import measure, method_choice
from calibration.method_choice import CLOSE, choose_ranges
from calibration.pictures import CalibrationPictures
from calibration.qdq import insert_qdq
from calibration.ranges import Measured, collect, collect_ranges
from calibration.ranges_file import Chosen, Ranges
from calibration.settings import BACKENDS, METHODS, CalibrationSettings, QdqSettings, check_method
from edge_lsla.errors import DatasetError, UsageError
from edge_lsla.preprocessing import Preprocessing

Images = NDArray[np.float32]


def noise(count: int, side: int = 8) -> Images:
    return np.random.default_rng(4).standard_normal((count, 4, side, side), dtype=np.float32)


def measured(model: onnx.ModelProto, images: Images) -> Measured:
    return collect(model, [images], CalibrationSettings())


def as_written(model: onnx.ModelProto, images: Images) -> Images:
    """Logits with every Q/DQ node computed for itself."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: Images = session.run(None, {"images": images})[0]
    return logits


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_one_pass_gives_every_methods_ranges(fused: onnx.ModelProto, method: str, symmetric: bool) -> None:
    images = np.random.default_rng(1).standard_normal((19, 3, 32, 32), dtype=np.float32)  # a group and a bit
    settings = CalibrationSettings(method=method, symmetric=symmetric)
    assert measured(fused, images).by(method, symmetric) == collect_ranges(fused, [images], settings)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_best_is_chosen_by_the_logits_of_each(fused: onnx.ModelProto, images: Images, backend: str) -> None:
    settings = QdqSettings(backend)
    found = measured(fused, images)
    steps: list[tuple[int, int]] = []
    ranges = choose_ranges(fused, found, settings, [images], progress=lambda *step: steps.append(step))
    assert ranges.chosen is not None
    assert (ranges.chosen.backend, ranges.chosen.images, steps[-1]) == (backend, len(images), (5, 5))
    wanted = run(fused, images).astype(np.float64)
    for method in METHODS:
        own = found.by(method, symmetric=backend == "tensorrt")
        graph, _ = insert_qdq(fused, own, settings)
        change = (as_written if backend == "tensorrt" else run)(graph, images) - wanted
        db = 10 * np.log10((wanted**2).sum() / (change**2).sum())
        assert ranges.chosen.sqnr_db[method] == pytest.approx(db, abs=0.5)  # batches of 4 there, of 12 here
        if method == ranges.method:
            assert (ranges.ranges, ranges.parameters) == (own.ranges, own.parameters)
    simplest = [name for name, db in ranges.chosen.sqnr_db.items() if db >= max(ranges.chosen.sqnr_db.values()) - CLOSE]
    assert ranges.method == simplest[0]
    ranges.check(fused)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_choice_is_the_same_each_time(fused: onnx.ModelProto, images: Images, backend: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        found = choose_ranges(fused, measured(fused, images), QdqSettings(backend), [images])
        found.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert Ranges.load(tmp_path / "a") == found


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_wild_pixel_makes_the_full_range_lose(backend: str) -> None:
    model, images = classifier(), noise(40)
    images[0, 0, 0, 0] = 300
    ranges = choose_ranges(model, measured(model, images), QdqSettings(backend), [images[1:]])
    assert ranges.chosen is not None
    assert ranges.method not in ("minmax", "moving")
    assert ranges.chosen.sqnr_db[ranges.method] > ranges.chosen.sqnr_db["minmax"] + 6


def test_of_methods_that_are_close_the_simplest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = classifier(), noise(8)
    images[0, 0, 0, 0] = 300
    found, settings = measured(model, images), QdqSettings("tensorrt")
    ranges = choose_ranges(model, found, settings, [images[1:]])
    assert ranges.chosen is not None
    assert ranges.method not in ("minmax", "moving")
    assert ranges.chosen.sqnr_db["minmax"] == ranges.chosen.sqnr_db["moving"]  # one group: the same ranges
    monkeypatch.setattr(method_choice, "CLOSE", 200.0)
    assert choose_ranges(model, found, settings, [images[1:]]).method == "minmax"


def test_equal_logits_can_be_recorded(tmp_path: Path) -> None:
    model, images = classifier(), np.zeros((3, 4, 8, 8), np.float32)
    graph = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in graph.graph.initializer:
        if tensor.name == "b":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(8, np.float32), "b"))
    ranges = choose_ranges(graph, measured(graph, images), QdqSettings("tensorrt"), [images])
    assert ranges.chosen == Chosen("tensorrt", 3, dict.fromkeys(METHODS, 200.0))
    assert ranges.method == "minmax"
    ranges.save(tmp_path / "r.json")
    assert Ranges.load(tmp_path / "r.json") == ranges


def test_no_more_images_are_read_than_are_tried() -> None:
    model, images = classifier(), noise(8)
    found = measured(model, images)
    read = iter(images[:, None])
    ranges = choose_ranges(model, found, QdqSettings("tensorrt"), read, images=3)
    assert ranges.chosen is not None
    assert (ranges.chosen.images, len(list(read))) == (3, 5)
    with pytest.raises(DatasetError, match="no images"):
        choose_ranges(model, found, QdqSettings("tensorrt"), [])
    with pytest.raises(UsageError, match="images"):
        choose_ranges(model, found, QdqSettings("tensorrt"), [images], images=0)


def test_auto_stands_in_place_of_a_method() -> None:
    for method in ("auto", *METHODS):
        check_method(method)
    with pytest.raises(UsageError, match="unknown method 'best': method; use one of auto, minmax"):
        check_method("best")
    with pytest.raises(UsageError, match="unknown method"):
        CalibrationSettings(method="auto")  # one that measures must know what


def test_the_record_says_what_was_tried() -> None:
    chosen = Chosen("tensorrt", 64, {"minmax": 28.24, "mse": 33.3})
    assert str(chosen) == "minmax 28.2, mse 33.3 dB on 64 calibration pictures"
    corrected = Chosen("tensorrt", 64, {"mse": 33.3}, 34.25)
    assert str(corrected) == "mse 33.3 dB on 64 calibration pictures; with corrected biases 34.2 dB"


def test_pictures_to_try_on_are_the_first_that_are_measured(
    fused: onnx.ModelProto, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessing = Preprocessing(32)
    left_out = (pictures / "train" / "ant" / "3.jpg", pictures / "train" / "bee" / "0.jpg")
    taken = [image.tobytes() for image in CalibrationPictures(pictures, 256, preprocessing, exclude=left_out)]

    def drawn() -> list[int]:
        found = measure.measure_data(
            fused, preprocessing, pictures, 256, CalibrationSettings(), lambda done, of: None, exclude=left_out
        )
        return [taken.index(image.tobytes()) for image in found.trial]  # never what was left out

    assert drawn() == list(range(len(taken)))
    monkeypatch.setattr(measure, "TRIAL", 10)
    assert drawn() == list(range(10))  # of each class in turn
    video = property(lambda self: True, lambda self, value: None)
    monkeypatch.setattr(CalibrationPictures, "video", video, raising=False)
    monkeypatch.setattr(CalibrationPictures, "_frames", CalibrationPictures._pictures)
    some = drawn()  # of a video's frames, of which the first are alike
    assert len(set(some)) == 10
    assert max(some) >= len(taken) // 2
    assert drawn() == some
