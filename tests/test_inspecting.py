"""What `inspect` says of a bundle: of its graphs, of engines that cannot be opened here, and of the time of layers."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from edge_lsla import layer_picture, layer_tables
from edge_lsla.bundle import GoldenSet, NewArtifact, Passport, Tolerance, open_bundle, write_bundle
from edge_lsla.console import verb
from edge_lsla.errors import CompatibilityError, EdgeLslaError, MissingComponentError, UsageError
from edge_lsla.inspecting import UNOPENED, examine_origin, inspect_bundle, read_graph
from edge_lsla.layer_times import Measured, profile_bundle
from edge_lsla.preprocessing import Preprocessing
from edge_lsla.runner.inspection import EngineLayer
from edge_lsla.runner.profile import LayerTime
from edge_lsla.tables import passport as passport_table
from edge_lsla.verbs.inspect import inspect

ROOT = Path(__file__).parents[1]
LABELS = ("ant", "bee", "lady beetle")
BUILT = {"tensorrt-rtx": "1.7.1.116", "profiles": "1-1-1,2-4-8", "memory_bytes": "1000"}


@pytest.fixture(scope="module")
def graphs(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tiny model in each form of attention, and in INT8 for ONNX Runtime."""
    from calibration.qdq import insert_qdq
    from calibration.ranges import collect_ranges
    from calibration.settings import CalibrationSettings, QdqSettings
    from edge_lsla.export.onnx_export import export_onnx
    from edge_lsla.model.checkpoint import load_checkpoint
    from edge_lsla.surgery.function import drop_function
    from edge_lsla.surgery.fuse import fuse
    from edge_lsla.surgery.half import to_half
    from edge_lsla.surgery.split import inline_functions, split_attention

    path = tmp_path_factory.mktemp("inspect") / "m.onnx"
    export_onnx(load_checkpoint(checkpoint).model, 32, path)
    fused, _ = fuse(onnx.load(path))
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    int8, _ = insert_qdq(fused, collect_ranges(fused, [images], CalibrationSettings()), QdqSettings("onnxruntime"))
    half, _ = to_half(fused)
    models = {
        "function": fused,
        "int8": int8,
        "plugin": drop_function(half),
        "split": split_attention(fused),
        "operators": inline_functions(half),
    }
    return {name: model.SerializeToString() for name, model in models.items()}


@pytest.fixture(scope="module")
def bundle(graphs: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with real graphs, and with engines that nobody can open."""
    path = tmp_path_factory.mktemp("bundle") / "tiny.lsla"
    layers = {"node_conv2d": "fp16", "lsla_attention_0": "fp32"}
    passport = Passport(
        name="tiny", created="2025-01-31T12:00:00Z", edge_lsla="0.1.0", model={"name": "tiny"}, labels=LABELS,
        preprocessing=Preprocessing(32), digests={"onnx": "b" * 64}, fidelity={},
        precisions={"int8": {"node_conv2d": "int8", "lsla_attention_0": "fp32"}, "tensorrt-rtx-fp16.onnx": layers},
        calibration={"method": "minmax", "images": 2}, plugin=None,
    )  # fmt: skip
    artifacts = [
        NewArtifact(graphs["int8"], "onnxruntime", "int8", versions={"onnxruntime": "1.20.0"}),
        NewArtifact(graphs["function"], "onnxruntime", "fp32"),
        NewArtifact(b"native code" * 90, "tensorrt-rtx", "fp16", "engine", BUILT, ("sm99",)),
        NewArtifact(graphs["operators"], "tensorrt-rtx", "fp16"),
        NewArtifact(b"native code" * 50, "tensorrt", "fp16", "engine", {"tensorrt": "10.3.0"}, ("sm99",)),
    ]
    logits = {(one.backend, one.precision): np.zeros((2, 3), np.float32) for one in artifacts}
    pixels = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    tolerance = {one.precision: Tolerance(1.0) for one in artifacts}
    write_bundle(path, passport, artifacts, GoldenSet(pixels, logits, tolerance))
    return path


@pytest.fixture(scope="module")
def measured(bundle: Path) -> Measured:
    with open_bundle(bundle) as opened:
        return profile_bundle(opened, "onnxruntime", "int8", repeats=3, threads=1)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("function", {"LslaAttention": ["lsla_attention_0", "lsla_attention_1"]}),
        ("plugin", {"LslaAttention": ["lsla_attention_0", "lsla_attention_1"]}),
        ("split", None),
        ("operators", None),
    ],
)
def test_how_attention_is_written(graphs: dict[str, bytes], name: str, nodes: dict[str, list[str]] | None) -> None:
    found = read_graph(graphs[name])
    assert found.attention == name
    assert bool(found.functions) == (name == "function")
    if nodes is not None:
        assert found.attention_nodes == nodes
    else:
        (operator,) = found.attention_nodes
        assert operator == ("Attention" if name == "split" else "Softmax")
        assert len(found.attention_nodes[operator]) == 2


def test_nodes_and_weights_are_those_of_onnx(graphs: dict[str, bytes]) -> None:
    found, graph = read_graph(graphs["int8"]), onnx.load_from_string(graphs["int8"]).graph
    assert found.nodes == sum(found.operators.values()) == len(graph.node)
    assert found.operators["MatMul"] == sum(node.op_type == "MatMul" for node in graph.node)
    assert found.operators["edge_lsla::LslaAttention"] == 2
    arrays = [onnx.numpy_helper.to_array(one) for one in graph.initializer]
    assert found.weight_bytes == sum(array.nbytes for array in arrays)
    assert found.weights["int8"]["values"] == sum(array.size for array in arrays if array.dtype == np.int8)


def test_a_graph_without_attention_has_none() -> None:
    node = onnx.helper.make_node("Relu", ["images"], ["logits"], name="relu")
    border = [onnx.helper.make_tensor_value_info(name, 1, ["N", 5]) for name in ("images", "logits")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", border[:1], border[1:]))
    found = read_graph(model.SerializeToString())
    assert (found.attention, found.attention_nodes, found.weight_bytes) == ("none", {}, 0)


def test_every_artifact_is_told(bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        told = {one.artifact.name: one for one in inspect_bundle(opened)}
        assert len(told) == 5
        assert [one.artifact.backend for one in inspect_bundle(opened, "tensorrt-rtx")] == ["tensorrt-rtx"] * 2
        assert [one.artifact.precision for one in inspect_bundle(opened, precision="int8")] == ["int8"]
        with pytest.raises(CompatibilityError, match="holds no artifact for tensorrt int8"):
            inspect_bundle(opened, "tensorrt", "int8")
    rtx, trt = told["tensorrt-rtx-fp16-sm99.engine"], told["tensorrt-fp16-sm99.engine"]
    assert (rtx.profiles, rtx.memory_bytes) == (((1, 1, 1), (2, 4, 8)), rtx.artifact.size + 1000)
    # As the graph has them that it was built from.
    assert rtx.precisions == told["tensorrt-rtx-fp16.onnx"].precisions == {
        "node_conv2d": "fp16", "lsla_attention_0": "fp32"}  # fmt: skip
    assert (trt.precisions, trt.profiles, trt.memory_bytes) == (None, (), None)
    assert rtx.notes == (UNOPENED,)
    assert [note.partition(" say ")[0] for note in trt.notes[:2]] == ["the passport does not"] * 2
    assert told["onnxruntime-int8.onnx"].precisions == {"node_conv2d": "int8", "lsla_attention_0": "fp32"}
    json.dumps([one.to_dict() for one in told.values()])


def test_an_engine_that_cannot_be_opened_is_said_and_not_invented(bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        for one in inspect_bundle(opened, open_engines=True):
            if one.artifact.kind == "engine":
                assert one.engine_layers is None
                assert one.notes[-1].startswith("TensorRT's layers cannot be read here: ")
                assert f": {one.artifact.name}; " in one.notes[-1]


def test_facts_that_cannot_be_are_said_and_not_shown(bundle: Path, tmp_path: Path) -> None:
    """Each fact by itself; a figure made from a lie would look like one that was measured."""
    lies = [("9-0-1", "1000"), ("0-1-1", "1000"), ("1-2", "1000"), ("1-1-1", "999999999999999999"), ("1-1-1", "abc")]
    for index, (profiles, memory) in enumerate(lies):
        versions = {"tensorrt-rtx": "1.7.1.116", "profiles": profiles, "memory_bytes": memory}
        path = tmp_path / f"{index}.lsla"
        engine = NewArtifact(b"native code", "tensorrt-rtx", "fp16", "engine", versions, ("sm99",))
        rewrite(bundle, path, [engine])
        with open_bundle(path) as opened:
            (one,) = inspect_bundle(opened)
            text = printed(layer_tables.contents([one]))
        said = f"the manifest's profiles cannot be '{profiles}'" if index < 3 else (
            f"the manifest's memory_bytes cannot be '{memory}'")  # fmt: skip
        assert said in one.notes
        assert said in text
        assert (one.profiles == ()) is (index < 3)
        assert (one.memory_bytes is None) is (index >= 3)
        assert " best 0" not in text
        assert "999999" not in text.replace(said, "")


def test_layers_are_counted_by_precision_for_graphs_and_engines(bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        rows = [
            line
            for line in printed(passport_table(opened)).splitlines()
            if "│" in line and ("tensorrt" in line or "runtime-" in line)
        ]
    counts = {line.split("│")[1].strip(): line.split("│")[3].strip() for line in rows}
    assert counts["tensorrt-rtx-fp16.onnx"] == counts["tensorrt-rtx-fp16-sm99.engine"] == "1 fp16, 1 fp32"
    assert counts["onnxruntime-int8.onnx"] == "1 fp32, 1 int8"
    assert counts["onnxruntime-fp32.onnx"] == counts["tensorrt-fp16-sm99.engine"] == "-"
    assert layer_tables.count_precisions({"a": "fp16", "b": "int8", "c": "int8"}) == "2 int8, 1 fp16"


def rewrite(source: Path, path: Path, artifacts: list[NewArtifact]) -> None:
    """Write another bundle of the same pictures."""
    with open_bundle(source) as opened:
        manifest = opened.manifest
        passport = Passport(**{field.name: getattr(manifest, field.name) for field in dataclasses.fields(Passport)})
        pixels = opened.golden_inputs()
    logits = {(one.backend, one.precision): np.zeros((2, 3), np.float32) for one in artifacts}
    golden = GoldenSet(pixels, logits, {one.precision: Tolerance(1.0) for one in artifacts})
    write_bundle(path, dataclasses.replace(passport, precisions={}), artifacts, golden)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of trusted keys, and no record of bundles built here."""
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o755)
    monkeypatch.setenv("EDGE_LSLA_TRUSTED_KEYS", str(folder))
    monkeypatch.setenv("EDGE_LSLA_BUILT_HERE", str(tmp_path / "built-here"))
    return folder


def origin_of(path: Path) -> tuple[str, bool | None, bool | None, bool]:
    with open_bundle(path) as opened:
        found = examine_origin(opened)
        table = " ".join(printed(passport_table(opened)).split())
    assert found.signature.split()[0] in table
    assert f"built here │ {'yes' if found.built_here else 'no'}" in table
    return found.signature, found.valid, found.trusted, found.built_here


def test_who_signed_and_whether_it_was_built_here(bundle: Path, graphs: dict[str, bytes], keys: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need cryptography")
    from edge_lsla.bundle import generate_key, read_private_key, remember_built_here, sign_bundle

    path = keys.parent / "signed.lsla"
    rewrite(bundle, path, [NewArtifact(graphs["function"], "onnxruntime", "fp32")])
    assert origin_of(path) == ("none", None, None, False)
    with open_bundle(path) as opened:
        remember_built_here(opened.manifest.sha256())
    assert origin_of(path) == ("none", None, None, True)
    public = generate_key(keys.parent / "release.pem")
    sign_bundle(path, read_private_key(keys.parent / "release.pem"))
    name = f"valid, by the key {public.key_id}"
    assert origin_of(path) == (f"{name}, which is not trusted here", True, False, True)
    (keys / "release.pub").write_bytes(public.path.read_bytes())
    assert origin_of(path) == (f"{name}, trusted here (release.pub)", True, True, True)
    keys.chmod(0o777)
    signature, valid, trusted, _ = origin_of(path)
    assert (valid, trusted) == (True, None)
    assert signature.startswith(f"{name}; whether it is trusted cannot be told: folder of trusted keys is open to")


def test_signatures_that_are_none_are_said(bundle: Path, graphs: dict[str, bytes], keys: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    pytest.importorskip("cryptography", reason="signatures need cryptography")
    from edge_lsla.bundle import generate_key, open_bundle, read_private_key, sign_bundle

    path, other = keys.parent / "a.lsla", keys.parent / "b.lsla"
    rewrite(bundle, path, [NewArtifact(graphs["function"], "onnxruntime", "fp32")])
    rewrite(bundle, other, [NewArtifact(graphs["split"], "onnxruntime", "fp32")])
    generate_key(keys.parent / "release.pem")
    sign_bundle(path, read_private_key(keys.parent / "release.pem"))
    with open_bundle(path) as signed, open_bundle(other) as opened:
        opened.signature = signed.signature
        assert examine_origin(opened).signature.startswith("NOT VALID: signature is not of this bundle")
        opened.signature = b"{}"
        assert examine_origin(opened).signature == "NOT VALID: signature is malformed"
        monkeypatch.setitem(sys.modules, "cryptography", None)
        found = examine_origin(signed)
        assert (found.valid, found.trusted) == (None, None)
        assert found.signature.startswith("said to be by the key ")
        assert found.signature.endswith("not verified: signatures need the library cryptography, which is absent; "
                                        "pip install cryptography")  # fmt: skip


def test_bytes_that_are_no_graph_are_said(bundle: Path, tmp_path: Path) -> None:
    with open_bundle(bundle) as opened:
        manifest = opened.manifest
        passport = Passport(**{field.name: getattr(manifest, field.name) for field in dataclasses.fields(Passport)})
        golden = GoldenSet(
            opened.golden_inputs(), {("onnxruntime", "int8"): np.zeros((2, 3), np.float32)}, {"int8": Tolerance(1.0)}
        )
    passport = dataclasses.replace(passport, precisions={})
    path = tmp_path / "odd.lsla"
    write_bundle(path, passport, [NewArtifact(b"no graph", "onnxruntime", "int8")], golden)
    with open_bundle(path) as opened:
        (one,) = inspect_bundle(opened)
    assert one.graph is None
    assert "the ONNX file is corrupt" in one.notes[0]


def test_times_of_a_bundles_layers(measured: Measured) -> None:
    assert (measured.backend, measured.precision, measured.batch) == ("onnxruntime", "int8", 1)
    assert {"lsla_attention_0", "lsla_attention_1", "node_conv2d"} <= {layer.name for layer in measured.layers}
    assert measured.total_ms == pytest.approx(sum(layer.milliseconds for layer in measured.layers))
    assert measured.inference_ms > 0
    slowest = [layer.milliseconds for layer in measured.slowest]
    assert slowest == sorted(slowest, reverse=True)
    assert json.loads(json.dumps(measured.to_dict()))["layers"][0]["nodes"]


def test_a_backend_that_does_not_run_here_is_refused_or_passed_over(bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        with pytest.raises(EdgeLslaError, match=r"tensorrt-fp16-sm99\.engine"):
            profile_bundle(opened, "tensorrt", repeats=1)
        found = profile_bundle(opened, repeats=1, threads=1)
        assert [why.partition(":")[0] for why in found.passed_over] == ["tensorrt", "tensorrt-rtx"]
        with pytest.raises(UsageError, match="repeats"):
            profile_bundle(opened, repeats=0)


def printed(table: Any) -> str:
    console = Console(width=200, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_tables_hold_the_figures(bundle: Path, measured: Measured) -> None:
    with open_bundle(bundle) as opened:
        told = inspect_bundle(opened)
    text = printed(layer_tables.contents(told))
    written = ("function: 2 LslaAttention", "operators: 2 Softmax", "1 fp16, 1 fp32", "edge_lsla::LslaAttention")
    for words in (*written, "1 to 1, best 1, 2 to 8, best 4", "sm99", "tensorrt-rtx 1.7.1.116", UNOPENED):
        assert words in text
    opened_engine = dataclasses.replace(told[2], engine_layers=(EngineLayer("conv", "gemm", "fp16", tactic="sm80"),))
    text = printed(layer_tables.layers([*told[:2], opened_engine]))
    for words in ("lsla_attention_0", "the passport lists no layers for onnxruntime-fp32.onnx", "gemm", "sm80"):
        assert words in text
    text = printed(layer_tables.times(measured))
    assert measured.slowest[0].name in text
    assert f"{len(measured.layers) - layer_tables.SHOWN} others" in text
    assert "by precision: " in text


def test_times_of_nothing_are_laid_out(measured: Measured) -> None:
    empty = dataclasses.replace(measured, layers=())
    assert "0.000 ms in 0 layers" in printed(layer_tables.times(empty))
    with pytest.raises(EdgeLslaError, match="no layer was reported"):
        layer_picture.draw_times(empty, Path("never.png"))


def test_the_picture_shows_each_precision(measured: Measured, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    odd = LayerTime("{ForeignNode[$a...b_$c^]} " * 9, "x" * 9, "", 1.0)
    path = tmp_path / "layers.png"
    layer_picture.draw_times(dataclasses.replace(measured, layers=(*measured.layers, odd)), path)
    with Image.open(path) as picture:
        assert picture.width == 1200
        colours = {bytes(colour[:3]).hex() for _, colour in picture.convert("RGB").getcolors(2**20) or ()}
    for colour in (layer_picture.COLOURS["fp32"], layer_picture.COLOURS["int8"], layer_picture.OTHER):
        assert colour[1:] in colours


def test_without_matplotlib_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingComponentError, match=r"drawing needs matplotlib: .* or let the output end in \.csv"):
        layer_picture.check_drawing()


@pytest.fixture
def command() -> Callable[..., Any]:
    """Run the verb as the command line registers it."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    verb(app, "inspect")(inspect)
    return lambda *arguments: CliRunner().invoke(app, ["inspect", *(str(one) for one in arguments)])


def test_the_verb_prints_and_answers_in_json(command: Callable[..., Any], bundle: Path) -> None:
    result = command(bundle, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.strip().splitlines()[-1])
    assert {"bundle", "digest", "origin", "manifest", "artifacts", "profile", "output"} <= told.keys()
    assert (len(told["artifacts"]), told["profile"]) == (5, None)
    assert "nodes by operator" in result.stderr
    assert "precision by layer" in command(bundle, "--layers").stdout


def test_the_verb_measures_and_writes(command: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    arguments = (bundle, "--profile", "--backend", "onnxruntime", "--precision", "fp32", "--repeats", 2)
    path = tmp_path / "layers.csv"
    result = command(*arguments, "-o", path, "--json", "--threads", 1)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.strip().splitlines()[-1])["profile"]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [layer["name"] for layer in told["layers"]]
    assert sum(float(row["milliseconds"]) for row in rows) == pytest.approx(told["total_ms"], abs=1e-4)
    result = command(bundle, "--layers", "-o", path)
    assert result.exit_code == 0, result.output
    with path.open(newline="") as file:
        assert {row["source"] for row in csv.DictReader(file)} == {"passport"}
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    assert command(*arguments, "-o", tmp_path / "layers.png").exit_code == 0
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("-o", "x.png"), 2, "add --profile"),
        (("-o", "x.csv"), 2, "add --layers or --profile"),
        (("-o", "x.txt", "--profile"), 2, "end in .png or .csv"),
        (("--backend", "tensorflow"), 2, "no such backend"),
        (("--precision", "fp8"), 2, "unknown precision"),
        (("--backend", "tensorrt", "--precision", "fp32"), 4, "holds no artifact for tensorrt fp32"),
    ],
)
def test_the_verb_refuses(
    command: Callable[..., Any], bundle: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = command(bundle, *arguments)
    assert (result.exit_code, words in result.stderr) == (code, True), result.output
    assert not Path("x.csv").exists()


def test_the_bundle_is_never_overwritten(command: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "layers.csv"
    link.hardlink_to(bundle)
    assert "would overwrite" in command(bundle, "--layers", "-o", link).stderr
    with open_bundle(bundle):
        pass


def test_reading_needs_neither_onnx_nor_torch(bundle: Path) -> None:
    script = (
        "import sys\n"
        "absent = ('onnx', 'torch', 'onnxruntime', 'matplotlib', 'tensorrt', 'tensorrt_rtx')\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "from edge_lsla.bundle import open_bundle\n"
        "from edge_lsla.inspecting import inspect_bundle\n"
        "with open_bundle(sys.argv[1]) as bundle: print(len(inspect_bundle(bundle, open_engines=True)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "5"), done.stderr
