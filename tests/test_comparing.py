"""The forms of one classifier, opened from files and compared on pictures."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console

from edge_lsla.bundling import Source, Wanted, build_bundle
from edge_lsla.comparing import Form, FormsCompared, choose_pictures, compare_forms
from edge_lsla.comparison_table import comparison
from edge_lsla.description import attach, find
from edge_lsla.errors import CheckpointError, DatasetError, GraphError, ImageError, UsageError
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.checkpoint import open_checkpoint, save_checkpoint
from edge_lsla.model.config import VitLslaConfig
from edge_lsla.model.vit_lsla import VitLsla
from edge_lsla.preprocessing import Preprocessing
from edge_lsla.quantising import Calibrate
from edge_lsla.surgery.function import drop_function
from edge_lsla.surgery.fuse import fuse
from edge_lsla.surgery.onnx_file import read_onnx

LABELS = ("ant", "bee", "lady beetle")  # of the checkpoint that all tests share


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forms") / "exported.onnx"
    loaded = open_checkpoint(checkpoint)
    export_onnx(loaded.model, loaded.image_size, path, description=loaded.description)
    return path


@pytest.fixture(scope="module")
def fused(exported: Path) -> Path:
    path = exported.with_name("fused.onnx")
    path.write_bytes(fuse(read_onnx(exported))[0].SerializeToString())
    return path


@pytest.fixture(scope="module")
def bundle(fused: Path, pictures: Path) -> Path:
    graph = read_onnx(fused)
    description = find(graph, fused)
    assert description is not None
    path = fused.with_name("tiny.lsla")
    wanted = Wanted(precisions=("int8", "fp32"), calibrate=Calibrate(pictures))
    digests = {"checkpoint": description.checkpoint or ""}
    build_bundle(Source(fused, graph, description, digests), path, wanted)
    return path


def run(first: Path | Form, second: Path | Form, data: Path, **options: int | str) -> FormsCompared:
    forms = [one if isinstance(one, Form) else Form(one) for one in (first, second)]
    forms = [dataclasses.replace(one, threads=1) for one in forms]
    return compare_forms(*forms, data, **options)  # type: ignore[arg-type]


def text(found: FormsCompared) -> str:
    console = Console(file=io.StringIO(), width=200, markup=False, highlight=False)
    console.print(comparison(found))
    return console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above


def changed_description(path: Path, target: Path, **changes: object) -> Path:
    graph = read_onnx(path)
    description = find(graph, path)
    assert description is not None
    attach(graph, dataclasses.replace(description, **changes))  # type: ignore[arg-type]
    target.write_bytes(graph.SerializeToString())
    return target


def test_checkpoint_and_exported_graph_agree_in_every_layer(checkpoint: Path, exported: Path, pictures: Path) -> None:
    steps: list[tuple[int, int]] = []
    found = compare_forms(Form(checkpoint), Form(exported), pictures, progress=lambda *step: steps.append(step))
    assert steps == [(number, 12) for number in range(1, 13)]
    numbers = found.comparison
    assert (numbers.images, numbers.top1_agreement) == (12, 100.0)
    assert len(numbers.matched) > 40
    assert max(error.rel_l2 for error in numbers.matched) < 1e-5  # float32, summed in another order
    assert numbers.first_parting is None
    assert any(error.module == "stages.0.0.attention.query" for error in numbers.matched)
    assert (found.first["kind"], found.second["kind"], found.notes) == ("checkpoint", "onnx", ())


def test_checkpoint_and_int8_bundle(checkpoint: Path, bundle: Path, pictures: Path) -> None:
    found = run(checkpoint, bundle, pictures, images=6)
    assert found.second == {
        "path": str(bundle),
        "kind": "bundle",
        "name": "tiny.lsla (onnxruntime int8)",
        "precision": "int8",
    }
    assert 15 < found.comparison.logits.sqnr_db < 60
    assert {error.op for error in found.comparison.matched} >= {"LslaAttention", "input, int8"}
    narrow = Console(file=io.StringIO(), width=40, soft_wrap=True, markup=False)
    narrow.print(comparison(found))
    assert "stages.0.0.attention.query" in narrow.file.getvalue()  # type: ignore[attr-defined]
    fields = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert fields["images"] == 6
    assert Path(fields["worst"][0]["path"]).is_file()
    assert fields["worst"][0]["first"] in LABELS
    shown = text(found)
    for part in ("tiny.safetensors and tiny.lsla (onnxruntime int8) on 6 images", "top-1 agreement", "20 dB",
                 "Gelu, int8", "stages.0.0.norm1", "integer kernels"):  # fmt: skip
        assert part in shown


def test_two_precisions_of_one_bundle(bundle: Path, pictures: Path) -> None:
    found = run(Form(bundle, precision="fp32"), Form(bundle, precision="int8"), pictures)
    assert (found.first["precision"], found.second["precision"]) == ("fp32", "int8")
    assert found.comparison.unmatched[0] == 0
    assert found.comparison.logits.max_abs > 0


def test_a_graph_for_the_plugin_gets_its_function_bodies_back(exported: Path, fused: Path, pictures: Path) -> None:
    bare = fused.with_name("plugin.onnx")
    bare.write_bytes(drop_function(read_onnx(fused)).SerializeToString())
    found = run(exported, bare, pictures, images=3)
    assert found.comparison.first_parting is None
    assert found.comparison.unmatched[1] == 0


def test_a_wrong_layer_is_named_in_text_and_json(checkpoint: Path, fused: Path, pictures: Path) -> None:
    graph = read_onnx(fused)
    node = next(node for node in graph.graph.node if node.name == "lsla_attention_1")
    table = next(t for t in graph.graph.initializer if t.name == node.input[5])
    values = onnx.numpy_helper.to_array(table).copy()
    values[0] += 2
    table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
    wrong = fused.with_name("wrong.onnx")
    wrong.write_bytes(graph.SerializeToString())
    found = run(checkpoint, wrong, pictures, images=2)
    expected = "they part, with an SQNR below 80 dB, at lsla_attention_1 (LslaAttention, in stages.1.1.attention)"
    assert found.to_dict()["verdict"].startswith(expected)
    assert expected in text(found)


def test_what_differs_beside_the_numbers_is_said(exported: Path, fused: Path, pictures: Path, tmp_path: Path) -> None:
    other = changed_description(fused, tmp_path / "other.onnx", preprocessing=Preprocessing(32, resize="stretch"),
                                labels=tuple(reversed(LABELS)), checkpoint="0" * 64)  # fmt: skip
    notes = " ".join(run(exported, other, pictures, images=1).notes)
    assert "different preprocessing; both got that of exported.onnx" in notes
    assert "by different names" in notes
    assert "different checkpoints" in notes
    graph = read_onnx(fused)
    next(entry for entry in graph.metadata_props if entry.key == "edge_lsla.producer").value = "torch 2.9"
    (tmp_path / "older.onnx").write_bytes(graph.SerializeToString())
    (note,) = run(exported, tmp_path / "older.onnx", pictures, images=1).notes
    assert "torch 2.9, and a name may mean another tensor" in note


def test_files_of_one_name_are_told_apart(fused: Path, pictures: Path, tmp_path: Path) -> None:
    copy = tmp_path / fused.name
    shutil.copy(fused, copy)
    found = run(fused, copy, pictures, images=1)
    assert (found.first["name"], found.second["name"]) == (str(fused), str(copy))


def test_other_sizes_and_classes_are_refused(checkpoint: Path, fused: Path, pictures: Path, tmp_path: Path) -> None:
    wider = VitLslaConfig("wider", len(LABELS), 64, widths=(32, 64), depths=(1, 1), windows=(4, 2))
    larger = tmp_path / "larger.safetensors"
    save_checkpoint(larger, VitLsla(wider).state_dict(), wider, LABELS, Preprocessing(64))
    with pytest.raises(UsageError, match=r"differ in their input sizes: .* has 64, .* has 32; compare forms of one"):
        run(larger, fused, pictures)
    more = wider.with_(classes=4, image_size=32)
    richer = tmp_path / "richer.safetensors"
    save_checkpoint(richer, VitLsla(more).state_dict(), more, (*LABELS, "wasp"), Preprocessing(32))
    with pytest.raises(UsageError, match=r"differ in their numbers of classes: .* has 3, .* has 4"):
        run(checkpoint, richer, pictures)


def test_pictures_that_cannot_be_read_are_named_and_left_out(fused: Path, pictures: Path, tmp_path: Path) -> None:
    for number in range(3):
        shutil.copy(pictures / "test" / "ant" / f"{number}.jpg", tmp_path / f"{number}.jpg")
    (tmp_path / "1.jpg").write_bytes(b"no picture")
    found = run(fused, fused, tmp_path)
    assert found.comparison.images == 2
    assert [str(error.where) for error in found.skipped] == [str(tmp_path / "1.jpg")]
    assert {path.name for path, _, _ in found.worst} == {"0.jpg", "2.jpg"}
    assert "skipped: not a picture that can be read" in text(found)
    for number in (0, 2):
        (tmp_path / f"{number}.jpg").unlink()
    with pytest.raises(DatasetError, match="none of the pictures can be read"):
        run(fused, fused, tmp_path)


def test_pictures_are_spread_over_the_split(pictures: Path, tmp_path: Path) -> None:
    chosen = choose_pictures(pictures, "test", 3)
    assert [path.parent.name for path in chosen[:3]] == ["ant", "bee", "lady_beetle"]
    assert len(set(chosen)) == len(chosen) == 12  # the others stand in for those that cannot be read
    assert len(choose_pictures(pictures, "val", 99)) == 12
    with pytest.raises(DatasetError, match="no picture to compare on"):
        choose_pictures(tmp_path, "test", 3)
    with pytest.raises(ImageError, match="no such folder"):
        choose_pictures(tmp_path / "absent", "test", 3)
    with pytest.raises(UsageError, match="at least one picture"):
        choose_pictures(pictures, "test", 0)
    with pytest.raises(UsageError, match=r"no such split 'nope': --split; use train, val, test"):
        choose_pictures(pictures, "nope", 3)
    shutil.copytree(pictures / "train", tmp_path / "train")
    with pytest.raises(DatasetError, match="no folder test"):
        choose_pictures(tmp_path, "test", 3)


def test_others_stand_in_for_pictures_that_cannot_be_read(fused: Path, pictures: Path, tmp_path: Path) -> None:
    for number, source in enumerate(sorted((pictures / "test").rglob("*.jpg"))[:6]):
        shutil.copy(source, tmp_path / f"{number}.jpg")
    (tmp_path / "0.jpg").write_bytes(b"no picture")
    found = run(fused, fused, tmp_path, images=3)
    assert (found.comparison.images, len(found.skipped)) == (3, 1)


def test_a_graph_of_another_size_than_it_says_is_refused(fused: Path, pictures: Path, tmp_path: Path) -> None:
    other = changed_description(fused, tmp_path / "other.onnx", preprocessing=Preprocessing(64))
    with pytest.raises(GraphError, match="takes pictures of 32 x 32 pixels and its description says 64"):
        run(fused, other, pictures)


def test_a_file_that_is_nothing_is_refused(fused: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        run(fused, tmp_path / "absent.pt", pictures)


def test_names_that_look_like_markup_are_shown_as_they_are(fused: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[red]ants"
    folder.mkdir()
    shutil.copy(pictures / "test" / "ant" / "0.jpg", folder / "[b].jpg")
    assert "[red]ants/[b].jpg" in text(run(fused, fused, tmp_path))


def test_a_nan_stands_out(fused: Path, pictures: Path, tmp_path: Path) -> None:
    graph = read_onnx(fused)
    head = next(tensor for tensor in graph.graph.initializer if tensor.name == "head.weight")
    head.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(head.dims), np.nan, np.float32), head.name))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(graph.SerializeToString())
    found = run(fused, broken, pictures, images=2)
    shown = text(found)
    assert "NaN or infinity in broken.onnx: first at" in shown
    assert found.worst[0][2] == "no class"
    json.dumps(found.to_dict(), allow_nan=False)
