"""Saving, loading and refusing ranges."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from calibration_graphs import classifier

from calibration.identity import model_sha256
from calibration.ranges_file import Chosen, Ranges
from edge_lsla.errors import RangesError

GOOD = Ranges(
    method="percentile",
    parameters={"percentile": 99.99, "bins": 4096},
    images=3,
    requested=4,
    model_sha256="a" * 64,
    data_sha256="b" * 64,
    ranges={"images": (-2.0, 0.1), 'a "quoted"/name': (0.0, 0.0)},
)


CHOSEN = Chosen("tensorrt", 2, {"minmax": 30, "percentile": 31.25}, 32.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ranges.json"


def test_round_trip_and_same_bytes(path: Path, tmp_path: Path) -> None:
    GOOD.save(path)
    assert Ranges.load(path) == GOOD
    Ranges.load(path).save(tmp_path / "again.json")
    assert path.read_bytes() == (tmp_path / "again.json").read_bytes()
    assert '"images": [-2.0, 0.1]' in path.read_text()  # readable: a tensor a line


def test_what_the_method_was_chosen_by_is_kept_where_there_is_such(path: Path) -> None:
    GOOD.save(path)
    assert "chosen" not in json.loads(path.read_text())
    chosen = dataclasses.replace(GOOD, chosen=CHOSEN)
    chosen.save(path)
    assert Ranges.load(path) == chosen
    assert json.loads(path.read_text())["chosen"]["sqnr_db"] == {"minmax": 30, "percentile": 31.25}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backend", "cuda"),
        ("backend", None),
        ("images", 0),
        ("images", True),
        ("sqnr_db", []),
        ("sqnr_db", {"minmax": 30}),
        ("sqnr_db", {"minmax": "30", "percentile": 31}),
        ("sqnr_db", {"guess": 30, "percentile": 31}),
        ("corrected_db", "32"),
        ("corrected_db", ""),
        ("corrected_db", True),
        ("luck", 7),
    ],
)
def test_an_impossible_choice_is_refused(path: Path, field: str, value: Any) -> None:
    dataclasses.replace(GOOD, chosen=CHOSEN).save(path)
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "chosen": {**fields["chosen"], field: value}}))
    with pytest.raises(RangesError, match="chosen"):
        Ranges.load(path)
    for other in (None, [], "mse", {"backend": "tensorrt"}):
        path.write_text(json.dumps({**fields, "chosen": other}))
        with pytest.raises(RangesError, match="chosen"):
            Ranges.load(path)


def test_every_truncation_is_refused(path: Path) -> None:
    GOOD.save(path)
    text = path.read_text()
    for length in range(0, len(text.rstrip()), 7):
        path.write_text(text[:length])
        with pytest.raises(RangesError):
            Ranges.load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "something"),
        ("version", 1),
        ("version", 3),
        ("version", True),
        ("version", None),
        ("method", "guess"),
        ("parameters", None),
        ("parameters", {"percentile": 10}),
        ("parameters", {"percentile": "99.9"}),
        ("parameters", {"luck": 7}),
        ("parameters", {"method": "entropy"}),
        ("requested", 0),
        ("requested", "4"),
        ("images", 0),
        ("images", 2.5),
        ("images", True),
        ("model_sha256", "abc"),
        ("data_sha256", 5),
        ("ranges", []),
        ("ranges", {"images": 5}),
    ],
)
def test_wrong_fields_are_named(path: Path, field: str, value: Any) -> None:
    GOOD.save(path)
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, field: value}))
    with pytest.raises(RangesError, match=field):
        Ranges.load(path)
    del fields[field]
    path.write_text(json.dumps(fields))
    with pytest.raises(RangesError, match=field):
        Ranges.load(path)


@pytest.mark.parametrize(
    "pair",
    [
        "[NaN, 1]",
        "[0, Infinity]",
        "[0, 1e999]",
        "[-1e308, 1e308]",
        "[2, 1]",
        "[1]",
        "[0, 1, 2]",
        '["0", 1]',
        "[true, 1]",
        "[0, null]",
    ],
)
def test_impossible_ranges_are_refused(path: Path, pair: str) -> None:
    GOOD.save(path)
    path.write_text(path.read_text().replace("[-2.0, 0.1]", pair))
    with pytest.raises(RangesError, match=r"images|ranges"):
        Ranges.load(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "5", "null", "\x00", '{"format": 1, "format": 1}', ""])
def test_other_text_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(RangesError, match=r"ranges\.json"):
        Ranges.load(path)


def test_binary_and_missing_files_and_extra_fields_are_refused(path: Path) -> None:
    with pytest.raises(RangesError, match="cannot be read"):
        Ranges.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RangesError, match=r"not UTF-8"):
        Ranges.load(path)
    GOOD.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "extra": 1}))
    with pytest.raises(RangesError, match="extra"):
        Ranges.load(path)


def test_ranges_of_another_model_are_refused() -> None:
    model = classifier()
    ranges = dataclasses.replace(GOOD, model_sha256=model_sha256(model), ranges={"images": (-1.0, 1.0)})
    ranges.check(model)
    ranges.check_tensors(model)
    with pytest.raises(RangesError, match="range of a tensor that the model has not: nowhere"):
        dataclasses.replace(ranges, ranges={**ranges.ranges, "nowhere": (0.0, 1.0)}).check_tensors(model)
    other = classifier()
    values = bytearray(other.graph.initializer[0].raw_data)
    values[3] ^= 1
    other.graph.initializer[0].raw_data = bytes(values)
    with pytest.raises(RangesError, match="another model"):
        ranges.check(other)


def test_ranges_of_other_data_are_refused() -> None:
    model = classifier()
    ranges = dataclasses.replace(GOOD, model_sha256=model_sha256(model), ranges={"images": (-1.0, 1.0)})
    ranges.check(model, "b" * 64)
    with pytest.raises(RangesError, match="other data, measured on bbbbbbbbbbbb, this is cccccccccccc: data_sha256"):
        ranges.check(model, "c" * 64)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def test_model_digest_ignores_annotations_and_storage(fused: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(copy_of(fused), path, save_as_external_data=True, size_threshold=0)  # save changes what it is given
    annotated = onnx.load(path)
    annotated.producer_name = "somebody"
    annotated.doc_string = "words"
    annotated.graph.node[0].doc_string = "words"
    annotated.graph.node[0].name = "renamed"
    del annotated.graph.value_info[:]
    annotated.graph.initializer.sort(key=lambda t: str(t.name), reverse=True)
    assert model_sha256(annotated) == model_sha256(fused)


def test_model_digest_counts_what_is_computed(fused: onnx.ModelProto) -> None:
    changed = [copy_of(fused) for _ in range(5)]
    next(a for a in changed[0].graph.node[0].attribute if a.name == "strides").ints[0] = 7
    changed[1].functions[0].node.pop()
    changed[2].opset_import[0].version += 1
    changed[3].graph.node[1].input[0] = "images"
    changed[4].graph.initializer[0].dims.insert(0, 1)
    assert len({model_sha256(model) for model in (fused, *changed)}) == 6
