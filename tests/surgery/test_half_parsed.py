"""NVIDIA's own parser on the typed graphs: half and int8 are really there, and where they were written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.surgery.fuse import fuse, fuse_quantised
from edge_lsla.surgery.half import to_half
from edge_lsla.surgery.split import inline_functions, mark_decomposable, split_attention

# `make runtimes` installs it in a folder of its own.
RTX = sorted((Path(sys.prefix) / "runtimes").glob("tensorrt-rtx-*"))
pytestmark = pytest.mark.skipif(not RTX, reason="tensorrt-rtx is not installed (make runtimes)")
Layer = list[Any]  # type, name, types of inputs, types of outputs


@pytest.fixture(scope="module")
def networks(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The tiny model in every typed form, parsed; the half split one and half int8 attention are built as well."""
    folder = tmp_path_factory.mktemp("parsed")
    fused = fuse(onnx.load(tiny_onnx))[0]
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    ranges = collect_ranges(fused, [images], CalibrationSettings())
    qdq = insert_qdq(fused, ranges, QdqSettings("tensorrt"))[0]
    int8 = fuse_quantised(insert_qdq(fused, ranges, QdqSettings("tensorrt", attention="int8"))[0])[0]
    half = to_half(fused)[0]
    models = {
        "fp32": fused,
        "fp16": half,
        "fp16 kept": to_half(fused, keep_float=[kept_layer(fused)])[0],
        "residual fp16": to_half(fuse(fused, "residual")[0])[0],
        "int8 fp16": to_half(qdq)[0],
        "split fp32": split_attention(fused),
        "split fp16.build": mark_decomposable(split_attention(half)),
        "split int8 fp16": mark_decomposable(split_attention(to_half(qdq)[0])),
        "int8 attention fp16.build": inline_functions(to_half(int8)[0]),
    }
    paths = {name: str(folder / f"{name}.onnx") for name in models}
    for name, model in models.items():
        Path(paths[name]).write_bytes(model.SerializeToString())
    command = [sys.executable, str(Path(__file__).parent / "half_network_probe.py"), *paths.values()]
    environment = {**os.environ, "PYTHONPATH": str(RTX[-1])}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    return {name: found[path] for name, path in paths.items()}


def kept_layer(model: onnx.ModelProto) -> str:
    return next(str(node.name) for node in model.graph.node if node.op_type == "MatMul")


def of_type(network: dict[str, Any], *kinds: str) -> list[Layer]:
    return [layer for layer in network["layers"] if layer[0] in kinds]


def outside(network: dict[str, Any], *kinds: str) -> list[Layer]:
    """Layers that are not of an attention's body, which the parser names after the tensors of the function."""
    return [layer for layer in of_type(network, *kinds) if layer[1].startswith("node_") and "node_of" not in layer[1]]


def test_every_form_is_parsed(networks: dict[str, dict[str, Any]]) -> None:
    for name, network in networks.items():
        assert network["errors"] == [], name
        assert len(network["layers"]) > 50, name
        norms = of_type(network, "NORMALIZATION")
        assert norms or name == "residual fp16", name
        for _, _, inputs, outputs in norms + of_type(network, "REDUCE", "SOFTMAX"):
            assert set(inputs + outputs) == {"FLOAT"}, name  # statistics, means and softmax
        assert network["layers"][-1][3] == ["FLOAT"], name  # logits


def test_fp32_is_fp32(networks: dict[str, dict[str, Any]]) -> None:
    for name in ("fp32", "split fp32"):
        kinds = {kind for layer in networks[name]["layers"] for kind in layer[2] + layer[3]}
        assert kinds & {"HALF", "INT8"} == set(), name


def test_fp16_is_half_where_it_was_written(networks: dict[str, dict[str, Any]]) -> None:
    network = networks["fp16"]
    layers = outside(network, "CONVOLUTION", "MATRIX_MULTIPLY", "ACTIVATION")
    assert len(layers) >= 12
    assert all(set(inputs + outputs) == {"HALF"} for _, _, inputs, outputs in layers)
    body = [layer for layer in of_type(network, "MATRIX_MULTIPLY") if layer not in layers]
    assert len(body) == 2 * 2  # of each attention the scores and the sum over X
    assert all(set(inputs + outputs) == {"FLOAT"} for _, _, inputs, outputs in body)


def test_a_kept_layer_is_float_in_the_network(networks: dict[str, dict[str, Any]]) -> None:
    before, after = (
        {layer[1]: layer[3][0] for layer in outside(networks[name], "CONVOLUTION", "MATRIX_MULTIPLY")}
        for name in ("fp16", "fp16 kept")
    )
    assert set(before.values()) == {"HALF"}
    assert sorted(after.values()) == sorted(["HALF"] * (len(before) - 1) + ["FLOAT"])


@pytest.mark.parametrize("name", ["int8 fp16", "int8 attention fp16.build", "split int8 fp16"])
def test_int8_is_there_with_half_around_it(name: str, networks: dict[str, dict[str, Any]]) -> None:
    network = networks[name]
    layers = outside(network, "CONVOLUTION", "MATRIX_MULTIPLY")
    pairs = of_type(network, "QUANTIZE", "DEQUANTIZE")
    reals = []
    for kind, label, inputs, outputs in pairs:
        integers, real = (outputs[0], inputs[0]) if kind == "QUANTIZE" else (inputs[0], outputs[0])
        assert (integers, inputs[1]) == ("INT8", real), label  # the scale has the type of the real numbers
        reals.append(real)
    # x, query and y of int8 attention are float32 inside it.
    assert reals.count("FLOAT") == (2 * 3 if "attention" in name else 0)
    assert reals.count("HALF") == len(reals) - reals.count("FLOAT")
    assert [pair[0] for pair in pairs].count("DEQUANTIZE") >= 2 * len(layers)  # an activation and a weight each
    assert all(set(inputs + outputs) == {"HALF"} for _, _, inputs, outputs in layers)


@pytest.mark.parametrize(("name", "kind"), [("split fp32", "FLOAT"), ("split fp16.build", "HALF")])
def test_split_attention_is_an_attention_layer(name: str, kind: str, networks: dict[str, dict[str, Any]]) -> None:
    network = networks[name]
    layers = of_type(network, "ATTENTION_INPUT", "ATTENTION_OUTPUT")
    layers += [layer for layer in of_type(network, "MATRIX_MULTIPLY") if layer[1].endswith(".outer")]
    assert len(layers) == 2 * 3
    assert all(set(inputs + outputs) == {kind} for _, _, inputs, outputs in layers)
    scales = [layer for layer in of_type(network, "ACTIVATION") if layer[1].endswith(".softplus")]
    assert [layer[3] for layer in scales] == [["FLOAT"]] * 2


def test_what_needs_preparing_for_the_builder_is_built(networks: dict[str, dict[str, Any]]) -> None:
    """Without its mark the split form fails to build; without being written out, int8 attention fails to parse."""
    for name in ("split fp16.build", "int8 attention fp16.build"):
        assert networks[name]["plan_bytes"] > 10_000, name
