"""Which pictures are taken, which are left out, and what is said about them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from calibration_graphs import graph
from numpy.typing import NDArray
from onnx import helper
from PIL import Image, ImageEnhance, ImageFilter

from calibration.likeness import Descriptions, check_pictures, describe_pictures, kolmogorov_smirnov
from calibration.measure import data_sha256, golden_pixels, measure_data
from calibration.pictures import CalibrationPictures, choose_pictures
from calibration.qdq import insert_qdq
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.data.video_frames import read_frames
from edge_lsla.description import Description
from edge_lsla.errors import DatasetError, GraphError, ImageError, UsageError
from edge_lsla.preprocessing import Preprocessing, normalise, to_pixels
from edge_lsla.quantising import Calibrate, Quantiser

DEMO = Path(__file__).parents[2] / "demo"
SMALL = Preprocessing(32)


def scene(seed: int, size: int = 64) -> Image.Image:
    """Make a picture unlike that of any other seed: smooth blobs of colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def fill(folder: Path, seeds: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        scene(seed).save(folder / f"{seed:03}.png")
    return folder


def taken(data: Path, images: int = 100, split: str = "train") -> tuple[CalibrationPictures, list[NDArray[np.uint8]]]:
    pictures = CalibrationPictures(data, images, SMALL, split)
    return pictures, list(pictures)


@pytest.fixture(scope="module")
def demo() -> dict[str, list[NDArray[np.uint8]]]:
    preprocessing = Preprocessing(96)
    return {
        name: [to_pixels(path, preprocessing) for path in sorted((DEMO / name).rglob("*.jpg"))]
        for name in ("calibration", "heldout")
    }


def test_classes_take_turns_and_the_order_is_always_the_same(tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "bee", "fly")):
        fill(tmp_path / "train" / name, range(100 * number, 100 * number + 2 + number))
    fill(tmp_path / "test" / "ant", range(900, 901))
    chosen = choose_pictures(tmp_path, 100)
    assert [path.parent.name for path in chosen] == ["ant", "bee", "fly", "ant", "bee", "fly", "bee", "fly", "fly"]
    assert chosen == choose_pictures(tmp_path, 100)
    assert choose_pictures(tmp_path, 4) == chosen[:4]
    pictures, pixels = taken(tmp_path)
    assert pictures.expected == 9
    np.testing.assert_array_equal(pixels, [to_pixels(path, SMALL) for path in chosen])
    assert len(taken(tmp_path, split="test")[1]) == 1


def test_copies_and_near_copies_are_left_out_and_replaced(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    shutil.copy(tmp_path / "001.png", tmp_path / "exact.png")
    scene(2).resize((50, 50)).save(tmp_path / "again.jpg", quality=60)
    pictures, pixels = taken(tmp_path)
    assert len(pixels) == 3
    assert [one.reason for one in pictures.left_out] == ["repeated", "repeated"]
    assert all("shows the same as" in one.sentence for one in pictures.left_out)
    assert len(taken(tmp_path, images=3)[1]) == 3  # a copy does not count


def test_unreadable_and_blank_pictures_are_named(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    Image.new("RGB", (40, 40), "white").save(tmp_path / "white.png")
    pictures, pixels = taken(tmp_path)
    assert len(pixels) == 2
    found = {one.sentence.split(": ")[1].split(";")[0].split("/")[-1]: one.reason for one in pictures.left_out}
    assert found == {"broken.jpg": "unreadable", "black.png": "blank", "white.png": "blank"}


def test_nothing_to_calibrate_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no picture to calibrate on"):
        CalibrationPictures(tmp_path, 10, SMALL)
    with pytest.raises(ImageError, match="no such folder"):
        CalibrationPictures(tmp_path / "absent", 10, SMALL)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"all pictures to calibrate on are blank.*grey level 0"):
        taken(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"no picture to calibrate on can be read"):
        taken(tmp_path)


def test_videos_are_sampled_evenly_and_still_scenes_count_once(tmp_path: Path) -> None:
    pytest.importorskip("av")
    shutil.copy(DEMO / "pests.mp4", tmp_path / "one.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for data, asked, looked_at in ((tmp_path / "one.mp4", 14, 14), (tmp_path, 28, 14)):
        pictures, pixels = taken(data, asked)
        assert pictures.expected == asked
        assert len(pixels) == 14  # one of each scene of the video
        frames = [to_pixels(frame.pixels, SMALL) for frame in read_frames(tmp_path / "one.mp4", looked_at)]
        np.testing.assert_array_equal(pixels, frames)
    assert [one.reason for one in pictures.left_out] == ["unreadable"]
    pictures, pixels = taken(tmp_path / "one.mp4", 252)
    assert len(pixels) + len(pictures.left_out) == 252
    assert len(pixels) < 150


def test_demo_pictures_are_fit_for_it(demo: dict[str, list[NDArray[np.uint8]]]) -> None:
    assert check_pictures(describe_pictures(demo["calibration"]), describe_pictures(demo["heldout"])) == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda image: ImageEnhance.Brightness(image).enhance(0.5), r"are darker than .*\(brightness"),
        (lambda image: ImageEnhance.Contrast(image).enhance(0.5), r"poorer in contrast than .*\(contrast"),
        (lambda image: image.convert("L").convert("RGB"), r"less colourful than .*\(saturation 0 "),
        (lambda image: image.filter(ImageFilter.GaussianBlur(2)), r"more blurred than .*\(sharpness"),
    ],
    ids=["darkened", "flat", "grey", "blurred"],
)
def test_another_camera_is_told(demo: dict[str, list[NDArray[np.uint8]]], change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    changed = [np.asarray(change(Image.fromarray(pixels))) for pixels in demo["calibration"]]
    warnings = check_pictures(describe_pictures(changed), describe_pictures(demo["heldout"]))
    assert any(re.search(sentence, warning) for warning in warnings), warnings


def test_few_pictures_are_told_but_chance_is_not(demo: dict[str, list[NDArray[np.uint8]]]) -> None:
    few = describe_pictures(demo["calibration"][::14][:16])
    (warning,) = check_pictures(few, describe_pictures(demo["heldout"]))
    assert warning == "calibrated on 16 pictures only; give at least 32, better 256"


def test_frames_of_one_scene_are_told() -> None:
    pytest.importorskip("av")
    frames = [to_pixels(frame.pixels, SMALL) for frame in read_frames(DEMO / "pests.mp4", 252)][:18] * 2
    (warning,) = check_pictures(describe_pictures(frames))
    assert "much alike" in warning


def test_kolmogorov_smirnov_of_known_samples() -> None:
    a = np.arange(10, dtype=np.float32)
    assert kolmogorov_smirnov(a, a) == 0
    assert kolmogorov_smirnov(a, a + 100) == 1
    assert kolmogorov_smirnov(a, a + 3) == pytest.approx(0.3)
    assert kolmogorov_smirnov(a, np.repeat(a, 7)) == pytest.approx(0)


def test_no_evaluation_pictures_compare_to_nothing() -> None:
    none = Descriptions(np.zeros((0, 5), np.float32), np.zeros((0, 64), np.bool_))
    assert check_pictures(describe_pictures([np.asarray(scene(seed)) for seed in range(40)]), none) == ()


def model(side: int | str = "side") -> onnx.ModelProto:
    weight = np.random.default_rng(7).standard_normal((8, 3, 3, 3)).astype(np.float32)
    return graph([helper.make_node("Conv", ["images", "w"], ["logits"])], {"w": weight}, ("N", 3, side, side))


def test_ranges_of_a_folder_and_their_data_digest(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", range(40))
    Image.new("RGB", (40, 40)).save(data / "black.png")
    done: list[tuple[int, int]] = []
    found = measure_data(model(), SMALL, data, 36, CalibrationSettings(), lambda a, b: done.append((a, b)))
    assert done[-1] == (36, 36)
    assert found.warnings == ()
    ranges = found.measured.ranges
    assert (ranges.images, ranges.requested) == (36, 36)
    ranges.check(model(), data_sha256(ranges, SMALL, data))
    expected = normalise(np.stack(list(CalibrationPictures(data, 36, SMALL))), SMALL)
    assert ranges.ranges["images"] == (expected.min(), expected.max())
    for seed in range(5):  # 35 are left, so one of those that were measured is gone
        (data / f"{seed:03}.png").unlink()
    assert data_sha256(ranges, SMALL, data) != ranges.data_sha256


def test_warnings_and_left_out_pictures_reach_the_caller(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", range(3))
    for copy in range(7):
        shutil.copy(data / "000.png", data / f"copy{copy}.png")
    found = measure_data(model(), SMALL, data, 10, CalibrationSettings(), lambda done, of: None, data)
    assert len(found.left_out) == 7
    assert [warning.split(";")[0] for warning in found.warnings] == [
        "calibrated on 3 pictures only",
        "7 pictures show the same as others and were left out, 3 remain",
    ]


def test_a_model_of_another_input_size_is_refused(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", range(2))
    with pytest.raises(UsageError, match=r"\[1, 3, 32, 32\], the graph takes float32 \[N, 3, 48, 48\].*input size"):
        measure_data(model(48), SMALL, data, 2, CalibrationSettings(), lambda done, of: None)


def test_a_quantised_model_is_refused(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", range(2))
    found = measure_data(model(), SMALL, data, 2, CalibrationSettings(), lambda done, of: None)
    quantised, _ = insert_qdq(model(), found.measured.ranges, QdqSettings("tensorrt"))
    with pytest.raises(GraphError, match="quantised already"):
        measure_data(quantised, SMALL, data, 2, CalibrationSettings(), lambda done, of: None)


def test_golden_pixels_are_the_first_that_are_taken(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", range(10))
    Image.new("RGB", (40, 40)).save(data / "0.png")
    golden = golden_pixels(SMALL, data, 4)
    np.testing.assert_array_equal(golden, taken(data, 10)[1][:4])
    assert golden_pixels(SMALL, None, 2).shape == (2, 32, 32, 3)


def test_a_broken_split_is_told_and_nothing_else_taken(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "ant", range(2))
    fill(tmp_path / "test" / "ant", range(10, 12))
    (tmp_path / "classes.txt").write_text("ant\n")
    assert len(taken(tmp_path)[1]) == 2
    fill(tmp_path / "train" / "zebra", range(20, 21))
    with pytest.raises(DatasetError, match=r"folder 'zebra' is not in classes\.txt"):
        choose_pictures(tmp_path, 3)
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DatasetError, match="no folder train"):
        choose_pictures(tmp_path, 3)


def test_copies_of_pictures_that_judge_are_not_calibrated_on(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", range(40))
    judging = fill(tmp_path / "judging", range(100, 103))
    for number, path in enumerate(sorted(judging.iterdir())):
        shutil.copy(path, data / f"copy{number}.png")
    found = measure_data(
        model(), SMALL, data, 99, CalibrationSettings(), lambda *_: None, exclude=sorted(judging.iterdir())
    )
    assert found.measured.ranges.images == 40
    assert found.warnings == ("3 pictures are copies of some that judge, and were left out",)
    by_another_path = [tmp_path / "data" / ".." / "data" / path.name for path in data.iterdir()]
    with pytest.raises(DatasetError, match="no picture is left to calibrate on"):
        list(CalibrationPictures(data, 10, SMALL, exclude=by_another_path))


def test_darker_pictures_than_those_that_judge_are_told(tmp_path: Path) -> None:
    fill(tmp_path / "judging", range(100, 140))
    dark = tmp_path / "dark"
    dark.mkdir()
    for seed in range(40):
        ImageEnhance.Brightness(scene(seed)).enhance(0.33).save(dark / f"{seed}.png")
    graph, described = model(), Description({"name": "m"}, ("a",), SMALL)
    judging = tuple(sorted((tmp_path / "judging").iterdir()))
    calibration = Quantiser(graph, described, Calibrate(dark, "minmax", exclude=judging)).calibration
    assert calibration is not None
    assert any("are darker than the evaluation pictures" in warning for warning in calibration.warnings)
    (tmp_path / "set").mkdir()
    for name, split in (("dark", "train"), ("judging", "test")):
        shutil.copytree(tmp_path / name, tmp_path / "set" / split / "ant")
    calibration = Quantiser(graph, described, Calibrate(tmp_path / "set", "minmax")).calibration
    assert calibration is not None
    assert any("are darker than the evaluation pictures" in warning for warning in calibration.warnings)


def test_pictures_that_judge_are_not_calibrated_on(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", range(6))
    kept = sorted(data.iterdir())[:2]
    everything = CalibrationPictures(data, 10, SMALL, exclude=kept)
    assert everything.expected == 4
    with pytest.raises(DatasetError, match="no picture is left to calibrate on"):
        CalibrationPictures(data, 10, SMALL, exclude=sorted(data.iterdir()))
